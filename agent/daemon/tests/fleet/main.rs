//! An agent with a scripted runtime, against a coordinator over the loopback.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up has failed"
)]

mod cas;
mod coordinator;
mod images;
mod outputs;
mod releases;
mod troubles;
mod workers;

use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prost::Message as _;
use regatta_agent::{Agent, AgentConfig, AgentError};
use regatta_cas::{put_bytes, read_all};
use regatta_model::Digest;
use regatta_runtime::ExitStatus;
use regatta_runtime::fake::{FakeCall, FakeRun, FakeRuntime};
use regatta_wire::convert::timestamp_from_wire;
use regatta_wire::{reapi, v1};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

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
