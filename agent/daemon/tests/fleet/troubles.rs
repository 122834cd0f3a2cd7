//! What an agent lacks: its coordinator, blobs, images, its disk, its engine.

use std::sync::Mutex;

use regatta_agent::AgentError;
use regatta_cas::BlobStore as _;
use regatta_model::Digest;
use regatta_runtime::ExitStatus;
use regatta_runtime::fake::{FakeRun, FakeRuntime};
use regatta_wire::{reapi, v1};
use tonic::Status;

use crate::coordinator;
use crate::coordinator::{Coordinator, DEADLINE};
use crate::{Fleet, gate, pass, printing, units};

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
    assert!(reason.contains("--minimum-free"), "{reason}");
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
