//! Persistent workers, and who is given one that was there before.

use super::*;

/// A process that answers every request.
fn serving() -> FakeRun {
    FakeRun::Serve(r#"{"exitCode":0,"output":"done"}"#.to_owned())
}

async fn spec_with_worker(fleet: &Fleet, file: Option<&'static str>) -> v1::LeaseSpec {
    let mut files = Vec::new();
    if let Some(content) = file {
        let digest = put_bytes(&*fleet.coordinator.store, content.into()).await;
        files.push(v1::persistent_worker::RequestFile {
            path: "tests".to_owned(),
            digest: Some(digest.unwrap().into()),
        });
    }
    let mut spec = fleet.spec(&[]).await;
    spec.worker = Some(v1::PersistentWorker {
        key: "key".to_owned(),
        arguments: vec!["worker".to_owned()],
        files,
    });
    spec
}

fn one_slot(config: &mut AgentConfig) {
    config.slots = 1;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_worker_whose_work_was_lost_is_not_given_to_the_next() {
    let fleet = Fleet::join(Coordinator::start().await, one_slot, |_| serving());
    let spec = spec_with_worker(&fleet, None).await;
    fleet.coordinator.set_broken(true);
    let outcomes = fleet.run(spec.clone()).await;
    assert_eq!(outcomes[0].kind(), v1::OutcomeKind::Infrastructure);
    assert!(outcomes[0].message.contains("stored"), "{outcomes:?}");
    fleet.coordinator.set_broken(false);
    for lease in [2, 3] {
        fleet.coordinator.grant(lease, spec.clone());
        let outcomes = fleet.coordinator.outcomes(lease).await;
        assert_eq!(outcomes[0].kind(), v1::OutcomeKind::Completed);
        assert_eq!(fleet.runtime.calls().len(), 2, "{lease}");
    }
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_lease_that_is_cancelled_while_its_request_is_fetched_frees_its_slot() {
    let fleet = Fleet::join(Coordinator::start().await, one_slot, |call| {
        match call.arguments[0].as_str() {
            "worker" => serving(),
            _ => FakeRun::exit(0),
        }
    });
    let spec = spec_with_worker(&fleet, Some("test-1")).await;
    let plain = fleet.spec(&[]).await;
    // The tree is here before reads are held up.
    fleet.run(plain.clone()).await;
    fleet.coordinator.hold_reads();
    fleet.coordinator.grant(2, spec);
    fleet.coordinator.read_held().await;
    fleet.coordinator.cancel(2).await;
    fleet.coordinator.grant(3, plain);
    let outcomes = fleet.coordinator.outcomes(3).await;
    assert_eq!(outcomes[0].kind(), v1::OutcomeKind::Completed);
    fleet.end().await.unwrap();
}
