//! What executions leave, and how much of it.

use prost::Message as _;
use regatta_runtime::ExitStatus;
use regatta_runtime::fake::FakeRun;
use regatta_wire::{reapi, v1};

use crate::coordinator::Coordinator;
use crate::{Fleet, printing, units, wait_until};

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
async fn output_is_cut_off_at_its_limit() {
    let fleet = Fleet::join(
        Coordinator::start().await,
        |config| config.max_stream_bytes = 1000,
        |_| printing(&format!("{}the end", "x".repeat(500_000))),
    );
    let outcomes = fleet.run(fleet.spec(&[]).await).await;
    let result = outcomes[0].result.as_ref().unwrap();
    let stdout = fleet.stored(result.stdout_digest.as_ref()).await;
    let stdout = String::from_utf8(stdout).unwrap();
    assert!(
        stdout.contains("the first 1000 and the last 65536 of 500007 bytes"),
        "{stdout}"
    );
    assert!(stdout.ends_with("the end"), "{stdout}");
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
