//! Coordinators of other releases.

use regatta_runtime::fake::FakeRun;
use regatta_wire::v1;

use crate::coordinator::Coordinator;
use crate::{Fleet, wait_until};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_earlier_one_is_told_what_it_knows_and_nothing_is_lost() {
    let fleet = Fleet::start(|_| FakeRun::exit(0)).await;
    let kind = v1::OutcomeKind::ImageAbsent;
    fleet.coordinator.knows_nothing_of(kind);
    let good = fleet.spec(&[]).await;
    let absent = v1::LeaseSpec {
        image: "absent:1".to_owned(),
        ..good.clone()
    };
    fleet.coordinator.grant(1, good);
    fleet.coordinator.grant(2, absent);
    let outcomes = fleet.coordinator.outcomes(2).await;
    assert_eq!(outcomes[0].kind(), v1::OutcomeKind::Infrastructure);
    assert!(outcomes[0].message.contains("absent:1"), "{outcomes:?}");
    let outcomes = fleet.coordinator.outcomes(1).await;
    assert_eq!(outcomes[0].kind(), v1::OutcomeKind::Completed);
    assert_eq!(fleet.runtime.calls().len(), 1, "it ran once");
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_isolation_that_only_a_later_one_knows_is_the_best_there_is() {
    let fleet = Fleet::join(
        Coordinator::start().await,
        |config| {
            config.slots = 1;
            config.default_image = None;
        },
        |_| FakeRun::exit(0),
    );
    let spec = v1::LeaseSpec {
        isolation: 99,
        ..fleet.spec(&[]).await
    };
    let outcomes = fleet.run(spec).await;
    assert_eq!(outcomes[0].kind(), v1::OutcomeKind::Completed);
    // Its container is for nothing else, and another is started ahead.
    wait_until(|| fleet.runtime.started() == 2).await;
    fleet.end().await.unwrap();
}
