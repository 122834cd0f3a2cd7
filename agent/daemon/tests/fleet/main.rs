//! An agent with a scripted runtime, against a coordinator over the loopback.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up has failed"
)]

mod cas;
mod coordinator;

use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prost::Message as _;
use regatta_agent::{Agent, AgentConfig, AgentError};
use regatta_cas::{BlobStore as _, put_bytes, read_all};
use regatta_model::Digest;
use regatta_runtime::ExitStatus;
use regatta_runtime::fake::{FakeCall, FakeRun, FakeRuntime};
use regatta_wire::convert::timestamp_from_wire;
use regatta_wire::{reapi, v1};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::coordinator::{Coordinator, DEADLINE};

struct Fleet {
    coordinator: Coordinator,
    runtime: FakeRuntime,
    shutdown: CancellationToken,
    kill: CancellationToken,
    running: JoinHandle<Result<(), AgentError>>,
    directory: tempfile::TempDir,
}

impl Fleet {
    async fn start(script: impl Fn(&FakeCall) -> FakeRun + Send + Sync + 'static) -> Self {
        let coordinator = Coordinator::start().await;
        Self::join(coordinator, |_| {}, script)
    }

    fn join(
        coordinator: Coordinator,
        adjust: impl FnOnce(&mut AgentConfig),
        script: impl Fn(&FakeCall) -> FakeRun + Send + Sync + 'static,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let runtime = FakeRuntime::new(directory.path().join("views"), script);
        runtime.add_image("img:1".parse().unwrap(), "sha256:abc");
        let uri = format!("http://{}", coordinator.address);
        let mut config = AgentConfig::new(uri, directory.path().join("state"));
        config.slots = 2;
        config.default_image = Some("img:1".parse().unwrap());
        config.minimum_free_bytes = 0;
        adjust(&mut config);
        let agent = Agent::new(config, Arc::new(runtime.clone())).unwrap();
        let (shutdown, kill) = (CancellationToken::new(), CancellationToken::new());
        let running = tokio::spawn(agent.run(shutdown.clone(), kill.clone()));
        Self {
            coordinator,
            runtime,
            shutdown,
            kill,
            running,
            directory,
        }
    }

    /// Ends the agent and checks that it leaves nothing.
    async fn end(self) -> Result<(), AgentError> {
        self.kill.cancel();
        self.ended().await
    }

    async fn ended(self) -> Result<(), AgentError> {
        let ended = tokio::time::timeout(DEADLINE, self.running)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(self.runtime.live(), 0, "containers are left");
        assert!(
            !self.directory.path().join("state/scratch").exists(),
            "scratch is left"
        );
        ended
    }

    async fn spec(&self, files: &[(&str, &str)]) -> v1::LeaseSpec {
        let mut root = reapi::Directory::default();
        for (name, content) in files {
            let digest = put_bytes(&*self.coordinator.store, content.to_string().into()).await;
            root.files.push(reapi::FileNode {
                name: (*name).to_owned(),
                digest: Some(digest.unwrap().into()),
                ..Default::default()
            });
        }
        let root = put_bytes(&*self.coordinator.store, root.encode_to_vec().into())
            .await
            .unwrap();
        v1::LeaseSpec {
            run_id: "run".to_owned(),
            image: "img:1".to_owned(),
            command: Some(reapi::Command {
                arguments: vec!["program".to_owned()],
                ..Default::default()
            }),
            input_root: Some(root.into()),
            timeout: Some(prost_types::Duration {
                seconds: 60,
                nanos: 0,
            }),
            executions: vec![v1::Execution {
                unit: 0,
                extra_arguments: Vec::new(),
                extra_environment: Vec::new(),
            }],
            stream_output: true,
            ..Default::default()
        }
    }

    async fn run(&self, spec: v1::LeaseSpec) -> Vec<v1::ExecutionOutcome> {
        self.coordinator.grant(1, spec);
        self.coordinator.outcomes(1).await
    }

    async fn stored(&self, digest: Option<&reapi::Digest>) -> Vec<u8> {
        let digest = Digest::try_from(digest.unwrap()).unwrap();
        let bytes = read_all(&*self.coordinator.store, &digest, 1 << 30).await;
        bytes.unwrap().to_vec()
    }
}

/// Scripts wait for the test and the test for scripts.
fn gate() -> (Sender<()>, Mutex<Receiver<()>>) {
    let (open, wait) = channel();
    (open, Mutex::new(wait))
}

fn pass(gate: &Mutex<Receiver<()>>) {
    gate.lock().unwrap().recv_timeout(DEADLINE).unwrap();
}

/// For what the runtime under the agent shows and no message tells.
async fn wait_until(happened: impl Fn() -> bool) {
    let waiting = async {
        while !happened() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, waiting).await.unwrap();
}

fn units(count: u32) -> Vec<v1::Execution> {
    let unit = |unit| v1::Execution {
        unit,
        extra_arguments: vec![format!("--unit={unit}")],
        extra_environment: Vec::new(),
    };
    (0..count).map(unit).collect()
}

fn printing(text: &str) -> FakeRun {
    FakeRun::End {
        stdout: text.as_bytes().to_vec(),
        stderr: Vec::new(),
        files: Vec::new(),
        status: ExitStatus::Code(0),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_lease_runs_each_execution_on_a_fresh_view_and_reports_them_in_order() {
    let fleet = Fleet::start(|call| {
        assert_eq!(std::fs::read(call.view.join("input")).unwrap(), b"content");
        assert!(
            !call.view.join("left-behind").exists(),
            "views are not fresh"
        );
        std::fs::write(call.view.join("left-behind"), "x").unwrap();
        assert!(call.environment["PATH"].contains("/usr/bin"));
        printing(call.arguments.last().unwrap())
    })
    .await;
    let mut spec = fleet.spec(&[("input", "content")]).await;
    spec.executions = units(5);
    let outcomes = fleet.run(spec).await;
    assert_eq!(outcomes.len(), 5);
    for (unit, outcome) in outcomes.iter().enumerate() {
        assert_eq!(outcome.unit as usize, unit);
        assert_eq!(outcome.kind(), v1::OutcomeKind::Completed);
        assert_eq!(outcome.image_id, "sha256:abc");
        let result = outcome.result.as_ref().unwrap();
        let stdout = fleet.stored(result.stdout_digest.as_ref()).await;
        assert_eq!(String::from_utf8(stdout).unwrap(), format!("--unit={unit}"));
        let metadata = result.execution_metadata.as_ref().unwrap();
        assert!(metadata.execution_start_timestamp.is_some() && !metadata.worker.is_empty());
    }
    let offer = fleet
        .coordinator
        .wait_for("the tree in the offer", |known| {
            let mut offers = known
                .reports
                .iter()
                .filter_map(|report| report.offer.as_ref());
            offers
                .next_back()
                .filter(|offer| !offer.trees.is_empty() && !offer.images.is_empty())
                .cloned()
        });
    let offer = offer.await;
    assert!(
        offer
            .properties
            .iter()
            .any(|property| property.name == "OSFamily")
    );
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_command_without_a_path_gets_that_of_its_image() {
    let fleet = Fleet::join(
        Coordinator::start().await,
        |config| config.default_image = None,
        |call| printing(&call.environment["PATH"]),
    );
    fleet.runtime.set_search_path("/opt/tools");
    let bare = fleet.spec(&[]).await;
    let mut own = bare.clone();
    own.command.as_mut().unwrap().environment_variables =
        vec![reapi::command::EnvironmentVariable {
            name: "PATH".to_owned(),
            value: "/own".to_owned(),
        }];
    for (lease, spec, path) in [(1, bare, "/opt/tools"), (2, own, "/own")] {
        fleet.coordinator.grant(lease, spec);
        let outcomes = fleet.coordinator.outcomes(lease).await;
        let result = outcomes[0].result.as_ref().unwrap();
        let stdout = fleet.stored(result.stdout_digest.as_ref()).await;
        assert_eq!(stdout, path.as_bytes());
    }
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn outputs_are_collected_and_nothing_outside_the_view_is() {
    let fleet = Fleet::start(|call| {
        std::fs::write(call.view.join("out/file"), "result").unwrap();
        std::fs::create_dir_all(call.view.join("dir/sub")).unwrap();
        std::fs::write(call.view.join("dir/sub/a"), "a").unwrap();
        // The agent has made the parent of a declared output; the job puts a trap in its place.
        std::fs::remove_dir(call.view.join("escape")).unwrap();
        std::os::unix::fs::symlink("/etc", call.view.join("escape")).unwrap();
        std::os::unix::fs::symlink("out/file", call.view.join("link")).unwrap();
        FakeRun::exit(3)
    })
    .await;
    let mut spec = fleet.spec(&[]).await;
    let outputs = ["out/file", "dir", "escape/passwd", "link", "absent"];
    spec.command.as_mut().unwrap().output_paths = outputs.map(str::to_owned).to_vec();
    let outcomes = fleet.run(spec).await;
    let result = outcomes[0].result.as_ref().unwrap();
    assert_eq!(result.exit_code, 3);
    assert_eq!(result.output_files.len(), 1, "{result:?}");
    assert_eq!(
        fleet.stored(result.output_files[0].digest.as_ref()).await,
        b"result"
    );
    assert_eq!(result.output_symlinks[0].target, "out/file");
    let tree = fleet
        .stored(result.output_directories[0].tree_digest.as_ref())
        .await;
    let tree = reapi::Tree::decode(&*tree).unwrap();
    assert_eq!(
        fleet
            .stored(tree.children[0].files[0].digest.as_ref())
            .await,
        b"a"
    );
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn legacy_output_directories_are_there_before_the_command() {
    let fleet = Fleet::start(|call| {
        std::fs::write(call.view.join("old/tree/file"), "made").unwrap();
        FakeRun::exit(i32::from(call.view.join("new/tree").exists()))
    })
    .await;
    let mut spec = fleet.spec(&[]).await;
    let command = spec.command.as_mut().unwrap();
    command.output_paths = vec!["new/tree".to_owned(), "old/tree".to_owned()];
    #[expect(deprecated, reason = "what old clients send")]
    {
        command.output_directories = vec!["old/tree".to_owned()];
    }
    let outcomes = fleet.run(spec).await;
    let result = outcomes[0].result.as_ref().unwrap();
    assert_eq!(result.exit_code, 0, "{result:?}");
    assert_eq!(result.output_directories[0].path, "old/tree");
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn outputs_behind_absolute_links_are_collected_if_the_input_root_is_the_root() {
    let fleet = Fleet::start(|call| {
        std::fs::create_dir_all(call.view.join("usr/out")).unwrap();
        std::fs::write(call.view.join("usr/out/file"), "result").unwrap();
        // The agent has made the parent of the output; the command puts a link in its place.
        std::fs::remove_dir(call.view.join("link")).unwrap();
        std::os::unix::fs::symlink("/usr/out", call.view.join("link")).unwrap();
        FakeRun::exit(0)
    })
    .await;
    let mut spec = fleet.spec(&[]).await;
    spec.chroot = true;
    spec.command.as_mut().unwrap().output_paths = vec!["link/file".to_owned()];
    let outcomes = fleet.run(spec).await;
    let result = outcomes[0].result.as_ref().unwrap();
    assert_eq!(result.output_files.len(), 1, "{outcomes:?}");
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_lost_connection_kills_nothing() {
    let ((open, wait), (begun, began)) = (gate(), gate());
    let begun = Mutex::new(begun);
    let fleet = Fleet::start(move |_| {
        begun.lock().unwrap().send(()).unwrap();
        pass(&wait);
        FakeRun::exit(0)
    })
    .await;
    fleet.coordinator.grant(1, fleet.spec(&[("f", "x")]).await);
    tokio::task::block_in_place(|| pass(&began));
    fleet.coordinator.disconnect();
    fleet
        .coordinator
        .wait_for("a second connection", |known| {
            let held = known
                .reports
                .last()
                .is_some_and(|report| report.leases.len() == 1);
            (known.connections == 2 && held).then_some(())
        })
        .await;
    open.send(()).unwrap();
    let outcomes = fleet.coordinator.outcomes(1).await;
    assert_eq!(outcomes[0].kind(), v1::OutcomeKind::Completed);
    assert_eq!(fleet.runtime.calls().len(), 1, "it ran once");
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn results_wait_for_a_coordinator_that_is_gone_for_a_while() {
    let ((open, wait), (begun, began)) = (gate(), gate());
    let begun = Mutex::new(begun);
    let mut fleet = Fleet::start(move |_| {
        begun.lock().unwrap().send(()).unwrap();
        pass(&wait);
        printing("kept")
    })
    .await;
    fleet.coordinator.grant(1, fleet.spec(&[("f", "x")]).await);
    tokio::task::block_in_place(|| pass(&began));
    tokio::task::block_in_place(|| fleet.coordinator.stop());
    open.send(()).unwrap();
    fleet.coordinator.restart().await;
    let outcomes = fleet.coordinator.outcomes(1).await;
    let result = outcomes[0].result.as_ref().unwrap();
    assert_eq!(fleet.stored(result.stdout_digest.as_ref()).await, b"kept");
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_no_longer_desired_is_killed_and_the_slot_is_free_again() {
    let fleet = Fleet::join(
        Coordinator::start().await,
        |config| config.slots = 1,
        |call| {
            if call.arguments.len() > 1 {
                FakeRun::exit(0)
            } else {
                FakeRun::Hang
            }
        },
    );
    let spec = fleet.spec(&[]).await;
    fleet.coordinator.grant(7, spec.clone());
    fleet
        .coordinator
        .wait_for("the lease running", |known| {
            let leases = known.reports.last().map(|report| &report.leases)?;
            leases
                .iter()
                .any(|lease| lease.phase() == v1::LeasePhase::Running)
                .then_some(())
        })
        .await;
    fleet.coordinator.cancel(7).await;
    let outcomes = fleet
        .run(v1::LeaseSpec {
            executions: units(1),
            ..spec
        })
        .await;
    assert_eq!(outcomes[0].kind(), v1::OutcomeKind::Completed);
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_drain_finishes_what_runs_and_takes_nothing_new() {
    let ((open, wait), (begun, began)) = (gate(), gate());
    let begun = Mutex::new(begun);
    let fleet = Fleet::start(move |_| {
        begun.lock().unwrap().send(()).unwrap();
        pass(&wait);
        FakeRun::exit(0)
    })
    .await;
    let spec = fleet.spec(&[]).await;
    fleet.coordinator.grant(1, spec.clone());
    tokio::task::block_in_place(|| pass(&began));
    fleet.shutdown.cancel();
    fleet
        .coordinator
        .wait_for("a draining agent", |known| {
            known
                .reports
                .last()
                .filter(|report| report.draining)
                .map(drop)
        })
        .await;
    fleet.coordinator.grant(2, spec);
    open.send(()).unwrap();
    assert_eq!(fleet.coordinator.outcomes(1).await.len(), 1);
    assert_eq!(fleet.runtime.calls().len(), 1);
    fleet.ended().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn missing_blobs_are_named() {
    let fleet = Fleet::start(|_| FakeRun::exit(0)).await;
    let spec = fleet.spec(&[("gone", "gone"), ("there", "there")]).await;
    let gone = Digest::of(b"gone");
    fleet.coordinator.store.delete(&gone).await.unwrap();
    let outcomes = fleet.run(spec).await;
    assert_eq!(outcomes[0].kind(), v1::OutcomeKind::Rejected);
    assert_eq!(outcomes[0].missing_blobs, [reapi::Digest::from(gone)]);
    assert!(
        outcomes[0].message.contains(&gone.to_string()),
        "{}",
        outcomes[0].message
    );
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn output_is_cut_off_at_its_limit() {
    let fleet = Fleet::join(
        Coordinator::start().await,
        |config| config.max_stream_bytes = 1000,
        |_| printing(&"x".repeat(500_000)),
    );
    let outcomes = fleet.run(fleet.spec(&[]).await).await;
    let result = outcomes[0].result.as_ref().unwrap();
    let stdout = fleet.stored(result.stdout_digest.as_ref()).await;
    assert!(
        String::from_utf8(stdout)
            .unwrap()
            .contains("the first 1000 of 500000 bytes")
    );
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn outputs_that_cannot_be_used_cost_neither_the_exit_code_nor_the_log() {
    let fleet = Fleet::start(|call| {
        use std::os::unix::ffi::OsStrExt as _;
        let out = call.view.join("out");
        std::fs::create_dir_all(&out).unwrap();
        let unit = call.arguments[1].as_str();
        if unit == "--unit=0" || unit == "--unit=1" {
            let name = std::ffi::OsStr::from_bytes(b"not-utf8-\xff");
            std::fs::write(out.join(name), "x").unwrap();
        } else {
            let deep = (0..250).fold(out, |path, _| path.join("d"));
            std::fs::create_dir_all(deep).unwrap();
        }
        let status = ExitStatus::Code(i32::from(unit != "--unit=1"));
        FakeRun::End {
            stdout: b"log".to_vec(),
            stderr: b"complaint".to_vec(),
            files: Vec::new(),
            status,
        }
    })
    .await;
    let mut spec = fleet.spec(&[]).await;
    spec.command.as_mut().unwrap().output_paths = vec!["out".to_owned()];
    spec.executions = units(3);
    let outcomes = fleet.run(spec).await;
    let expected = [
        (v1::OutcomeKind::Completed, 1, "not UTF-8"),
        (v1::OutcomeKind::Rejected, 0, "not UTF-8"),
        (v1::OutcomeKind::Completed, 1, "200 directories deep"),
    ];
    assert_eq!(outcomes.len(), expected.len());
    for (outcome, (kind, exit_code, words)) in outcomes.iter().zip(expected) {
        let result = outcome.result.as_ref().unwrap();
        assert_eq!((outcome.kind(), result.exit_code), (kind, exit_code));
        assert!(outcome.message.contains(words), "{}", outcome.message);
        let stdout = fleet.stored(result.stdout_digest.as_ref()).await;
        let stderr = fleet.stored(result.stderr_digest.as_ref()).await;
        assert_eq!((&stdout[..], &stderr[..]), (&b"log"[..], &b"complaint"[..]));
        assert!(result.output_directories.is_empty());
    }
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_huge_output_is_refused_at_once_and_the_slot_goes_on() {
    let fleet = Fleet::join(
        Coordinator::start().await,
        |config| config.slots = 1,
        |call| {
            let out = std::fs::File::create(call.view.join("out")).unwrap();
            let huge = call.arguments[1] == "--unit=0";
            out.set_len(if huge { 1 << 42 } else { 1 << 20 }).unwrap();
            FakeRun::exit(0)
        },
    );
    let mut spec = fleet.spec(&[]).await;
    spec.command.as_mut().unwrap().output_paths = vec!["out".to_owned()];
    spec.executions = units(2);
    let outcomes = fleet.run(spec).await;
    assert_eq!(outcomes[0].kind(), v1::OutcomeKind::Rejected);
    assert!(
        outcomes[0].message.contains("--max-output-size"),
        "{}",
        outcomes[0].message
    );
    assert_eq!(outcomes[1].kind(), v1::OutcomeKind::Completed);
    assert_eq!(outcomes[1].result.as_ref().unwrap().output_files.len(), 1);
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_lease_that_is_cancelled_while_its_outputs_are_read_frees_its_slot() {
    let fleet = Fleet::join(
        Coordinator::start().await,
        |config| {
            config.slots = 1;
            config.max_output_bytes = u64::MAX;
        },
        |call| {
            let out = std::fs::File::create(call.view.join("out")).unwrap();
            let huge = call.arguments.len() == 1;
            out.set_len(if huge { 1 << 42 } else { 1 }).unwrap();
            FakeRun::exit(0)
        },
    );
    let mut spec = fleet.spec(&[]).await;
    spec.command.as_mut().unwrap().output_paths = vec!["out".to_owned()];
    fleet.coordinator.grant(7, spec.clone());
    wait_until(|| !fleet.runtime.calls().is_empty()).await;
    fleet.coordinator.cancel(7).await;
    spec.executions = units(1);
    let outcomes = fleet.run(spec).await;
    assert_eq!(outcomes[0].kind(), v1::OutcomeKind::Completed);
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_timeout_is_told_from_a_lost_container_and_a_missing_program() {
    let fleet = Fleet::start(|call| match call.arguments[1].as_str() {
        "--unit=0" => FakeRun::Hang,
        "--unit=1" => FakeRun::Lose,
        "--unit=2" => FakeRun::End {
            stdout: Vec::new(),
            stderr: Vec::new(),
            files: Vec::new(),
            status: ExitStatus::NotStarted { errno: 2 },
        },
        _ => FakeRun::End {
            stdout: b"partial".to_vec(),
            stderr: Vec::new(),
            files: Vec::new(),
            status: ExitStatus::OutOfMemory,
        },
    })
    .await;
    let mut spec = fleet.spec(&[]).await;
    spec.executions = units(4);
    spec.timeout = Some(prost_types::Duration {
        seconds: 0,
        nanos: 300_000_000,
    });
    let outcomes = fleet.run(spec).await;
    let kinds: Vec<_> = outcomes.iter().map(v1::ExecutionOutcome::kind).collect();
    let expected = [
        v1::OutcomeKind::TimedOut,
        v1::OutcomeKind::Infrastructure,
        v1::OutcomeKind::Completed,
        v1::OutcomeKind::OutOfMemory,
    ];
    assert_eq!(kinds, expected);
    let missing = outcomes[2].result.as_ref().unwrap();
    assert_eq!(missing.exit_code, 127);
    let stderr = String::from_utf8(fleet.stored(missing.stderr_digest.as_ref()).await).unwrap();
    assert!(
        stderr.contains("`program`") && stderr.contains("img:1"),
        "{stderr}"
    );
    let killed = outcomes[3].result.as_ref().unwrap();
    assert_eq!(
        fleet.stored(killed.stdout_digest.as_ref()).await,
        b"partial"
    );
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_cannot_be_had_or_read_is_rejected_with_the_reason() {
    let fleet = Fleet::start(|_| FakeRun::exit(0)).await;
    let good = fleet.spec(&[]).await;
    let absent = v1::LeaseSpec {
        image: "absent:1".to_owned(),
        ..good.clone()
    };
    let outside = v1::LeaseSpec {
        command: Some(reapi::Command {
            working_directory: "../..".to_owned(),
            ..good.command.clone().unwrap()
        }),
        ..good
    };
    for (lease, spec, kind, part) in [
        (1, absent, v1::OutcomeKind::ImageAbsent, "absent:1"),
        (2, outside, v1::OutcomeKind::Rejected, "leads out"),
    ] {
        fleet.coordinator.grant(lease, spec);
        let outcomes = fleet.coordinator.outcomes(lease).await;
        assert_eq!(outcomes[0].kind(), kind);
        assert!(
            outcomes[0].message.contains(part),
            "{}",
            outcomes[0].message
        );
    }
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_timeout_says_which_limit_it_was() {
    let fleet = Fleet::start(|call| {
        assert!(Path::new(&call.view).exists());
        FakeRun::Hang
    })
    .await;
    let mut spec = fleet.spec(&[]).await;
    spec.timeout = Some(prost_types::Duration {
        seconds: 1,
        nanos: 0,
    });
    let outcomes = fleet.run(spec).await;
    assert_eq!(outcomes[0].kind(), v1::OutcomeKind::TimedOut);
    assert!(
        outcomes[0].message.contains("limit"),
        "{}",
        outcomes[0].message
    );
    fleet.end().await.unwrap();
}

fn length_of(
    start: &Option<prost_types::Timestamp>,
    end: &Option<prost_types::Timestamp>,
) -> Duration {
    let time = |time: &Option<_>| timestamp_from_wire(time.as_ref().unwrap()).unwrap();
    time(end).since(time(start))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_time_that_inputs_take_is_not_the_commands() {
    let timeout = Duration::from_millis(300);
    let fleet = Fleet::start(|call| match call.arguments[1].as_str() {
        "--unit=0" => FakeRun::exit(0),
        _ => FakeRun::Hang,
    })
    .await;
    let mut spec = fleet.spec(&[("input", "content")]).await;
    spec.executions = units(2);
    spec.timeout = Some(timeout.try_into().unwrap());
    fleet.coordinator.hold_reads();
    fleet.coordinator.grant(1, spec);
    fleet.coordinator.release_reads_after(timeout * 2).await;
    let outcomes = fleet.coordinator.outcomes(1).await;
    let kinds: Vec<_> = outcomes.iter().map(v1::ExecutionOutcome::kind).collect();
    assert_eq!(
        kinds,
        [v1::OutcomeKind::Completed, v1::OutcomeKind::TimedOut]
    );
    let times = outcomes[0].result.as_ref().unwrap();
    let times = times.execution_metadata.as_ref().unwrap();
    let fetch = length_of(
        &times.input_fetch_start_timestamp,
        &times.input_fetch_completed_timestamp,
    );
    assert!(fetch > timeout, "the inputs took only {fetch:?}");
    // It had all of its time.
    let times = outcomes[1].result.as_ref().unwrap();
    let times = times.execution_metadata.as_ref().unwrap();
    let ran = length_of(
        &times.execution_start_timestamp,
        &times.execution_completed_timestamp,
    );
    assert!(ran >= timeout, "it was stopped after {ran:?}");
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_ran_too_long_leaves_what_it_made() {
    let fleet = Fleet::start(|call| {
        std::fs::write(call.view.join("out/file"), "made").unwrap();
        FakeRun::End {
            stdout: b"so far".to_vec(),
            stderr: b"slow".to_vec(),
            files: Vec::new(),
            status: ExitStatus::TimedOut,
        }
    })
    .await;
    let mut spec = fleet.spec(&[]).await;
    spec.command.as_mut().unwrap().output_paths = vec!["out/file".to_owned()];
    let outcomes = fleet.run(spec).await;
    assert_eq!(outcomes[0].kind(), v1::OutcomeKind::TimedOut);
    let result = outcomes[0].result.as_ref().unwrap();
    for (digest, content) in [
        (&result.stdout_digest, "so far"),
        (&result.stderr_digest, "slow"),
        (&result.output_files[0].digest, "made"),
    ] {
        let stored = fleet.stored(digest.as_ref()).await;
        assert_eq!(stored, content.as_bytes());
    }
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_full_disk_refuses_new_work_and_says_why() {
    let fleet = Fleet::join(
        Coordinator::start().await,
        |config| config.minimum_free_bytes = u64::MAX / 4,
        |_| FakeRun::exit(0),
    );
    let reason = fleet.coordinator.wait_for("a refusal", |known| {
        let report = known.reports.last()?;
        Some(report.unavailable_reason.clone()).filter(|reason| !reason.is_empty())
    });
    let reason = reason.await;
    assert!(reason.starts_with("disk full: "), "{reason}");
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_slot_was_given_waits_for_an_engine_that_is_away_and_nothing_new_is_taken() {
    // The first execution loses its container, and the engine with it.
    let (leave, left) = std::sync::mpsc::channel::<FakeRuntime>();
    let left = std::sync::Mutex::new(left);
    let fleet = Fleet::start(move |_| match left.lock().unwrap().try_recv() {
        Ok(runtime) => {
            runtime.set_away(true);
            FakeRun::Lose
        }
        Err(_) => FakeRun::exit(0),
    })
    .await;
    leave.send(fleet.runtime.clone()).unwrap();
    let mut spec = fleet.spec(&[]).await;
    spec.executions.push(v1::Execution {
        unit: 1,
        ..Default::default()
    });
    fleet.coordinator.grant(1, spec);
    let refusal = |known: &coordinator::Known| {
        let reason = &known.reports.last()?.unavailable_reason;
        reason
            .contains("the container engine is away")
            .then_some(())
    };
    fleet.coordinator.wait_for("a refusal", refusal).await;
    fleet.runtime.set_away(false);
    let outcomes = fleet.coordinator.outcomes(1).await;
    let kinds: Vec<_> = outcomes.iter().map(v1::ExecutionOutcome::kind).collect();
    let expected = [v1::OutcomeKind::Infrastructure, v1::OutcomeKind::Completed];
    assert_eq!(kinds, expected, "what waited for the engine is done");
    let welcome = |known: &coordinator::Known| {
        let reason = &known.reports.last()?.unavailable_reason;
        reason.is_empty().then_some(())
    };
    fleet
        .coordinator
        .wait_for("work to be welcome", welcome)
        .await;
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn another_protocol_version_ends_the_agent_with_a_clear_error() {
    let coordinator = Coordinator::start().await;
    coordinator.refuse(Status::failed_precondition(
        "this coordinator speaks version 2",
    ));
    let fleet = Fleet::join(coordinator, |_| {}, |_| FakeRun::exit(0));
    let error = fleet.ended().await.unwrap_err();
    assert!(matches!(error, AgentError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("version 2"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_reason_to_end_is_told_even_if_scratch_space_cannot_be_removed() {
    let fleet = Fleet::start(|_| FakeRun::exit(0)).await;
    let connected = |known: &coordinator::Known| (!known.reports.is_empty()).then_some(());
    fleet.coordinator.wait_for("a connection", connected).await;
    let scratch = fleet.directory.path().join("state/scratch");
    std::fs::remove_dir_all(&scratch).unwrap();
    std::fs::write(&scratch, "in the way of its removal").unwrap();
    fleet
        .coordinator
        .refuse(Status::failed_precondition("no longer welcome"));
    fleet.coordinator.disconnect();
    let ended = tokio::time::timeout(DEADLINE, fleet.running).await.unwrap();
    let error = ended.unwrap().unwrap_err();
    assert!(matches!(error, AgentError::Refused { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn heartbeats_come_while_work_runs() {
    let fleet = Fleet::start(|_| FakeRun::Hang).await;
    fleet.coordinator.grant(1, fleet.spec(&[]).await);
    let enough = |known: &coordinator::Known| (known.reports.len() > 6).then_some(());
    let waiting = fleet.coordinator.wait_for("heartbeats", enough);
    tokio::time::timeout(Duration::from_secs(20), waiting)
        .await
        .unwrap();
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_state_larger_than_grpc_takes_by_default_arrives() {
    let fleet = Fleet::start(|_| FakeRun::exit(0)).await;
    let mut spec = fleet.spec(&[]).await;
    spec.executions = units(1);
    spec.executions[0].extra_arguments = vec!["x".repeat(5 << 20)];
    let outcomes = fleet.run(spec).await;
    assert_eq!(outcomes[0].kind(), v1::OutcomeKind::Completed);
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cancelled_lease_does_not_wait_for_its_container() {
    let fleet = Fleet::join(
        Coordinator::start().await,
        |config| {
            config.slots = 1;
            config.default_image = None;
        },
        |_| FakeRun::exit(0),
    );
    fleet.runtime.hang_starts(1);
    let spec = fleet.spec(&[]).await;
    let spec = v1::LeaseSpec {
        image: "img:1".to_owned(),
        ..spec
    };
    fleet.coordinator.grant(7, spec.clone());
    wait_until(|| fleet.runtime.hanging() > 0).await;
    fleet.coordinator.cancel(7).await;
    let outcomes = fleet.run(spec).await;
    assert_eq!(outcomes[0].kind(), v1::OutcomeKind::Completed);
    assert_eq!(fleet.runtime.hanging(), 0, "the start was given up");
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_lease_does_not_wait_for_a_container_of_another_image() {
    let fleet = Fleet::join(
        Coordinator::start().await,
        |config| {
            config.slots = 1;
            config.default_image = None;
        },
        |_| FakeRun::exit(0),
    );
    fleet
        .runtime
        .add_image("img:2".parse().unwrap(), "sha256:def");
    let mut spec = fleet.spec(&[]).await;
    // So that the slot has no container afterwards, and starts one ahead, which never comes.
    spec.set_isolation(v1::Isolation::Fresh);
    assert_eq!(
        fleet.run(spec.clone()).await[0].kind(),
        v1::OutcomeKind::Completed
    );
    wait_until(|| fleet.runtime.started() == 2).await;
    fleet.runtime.hang_starts(1);
    fleet.coordinator.grant(2, spec.clone());
    let outcomes = fleet.coordinator.outcomes(2).await;
    assert_eq!(outcomes[0].kind(), v1::OutcomeKind::Completed);
    wait_until(|| fleet.runtime.hanging() > 0).await;
    spec.image = "img:2".to_owned();
    fleet.coordinator.grant(3, spec);
    let outcomes = fleet.coordinator.outcomes(3).await;
    assert_eq!(outcomes[0].image_id, "sha256:def");
    assert_eq!(fleet.runtime.hanging(), 0, "the start was given up");
    fleet.end().await.unwrap();
}
