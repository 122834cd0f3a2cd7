//! A name of an image that comes to mean another one.

use regatta_model::ImageReference;
use regatta_runtime::fake::FakeRun;
use regatta_wire::v1;

use crate::Fleet;
use crate::coordinator::Known;

/// Grants a lease that was planned for a content, or for whatever the name means; what it came to.
async fn outcome(fleet: &Fleet, lease: u64, image_id: &str) -> v1::ExecutionOutcome {
    let spec = v1::LeaseSpec {
        image_id: image_id.to_owned(),
        ..fleet.spec(&[]).await
    };
    fleet.coordinator.grant(lease, spec);
    fleet.coordinator.outcomes(lease).await.remove(0)
}

/// Waits until the coordinator is told that the name means this.
async fn told(fleet: &Fleet, id: &str) {
    let told = |known: &Known| {
        let mut offers = known.reports.iter().filter_map(|it| it.offer.as_ref());
        let images = &offers.next_back()?.images;
        images.iter().any(|image| image.id == id).then_some(())
    };
    fleet.coordinator.wait_for("the change", told).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn work_runs_in_the_image_that_it_was_planned_for_or_not_at_all() {
    let fleet = Fleet::start(|_| FakeRun::exit(0)).await;
    let name: ImageReference = "img:1".parse().unwrap();
    for lease in 1..5 {
        let begun = outcome(&fleet, lease, "sha256:abc").await;
        assert_eq!(begun.image_id, "sha256:abc", "{begun:?}");
    }
    fleet.runtime.move_image(&name, "sha256:new");
    // Every slot has a warm container of what the name meant.
    for lease in 5..9 {
        let moved = outcome(&fleet, lease, "sha256:new").await;
        assert_eq!(moved.kind(), v1::OutcomeKind::Completed);
        assert_eq!(moved.image_id, "sha256:new", "{moved:?}");
    }
    let ran = fleet.runtime.calls().len();
    let gone = outcome(&fleet, 9, "sha256:old").await;
    assert_eq!(gone.kind(), v1::OutcomeKind::ImageAbsent, "{gone:?}");
    assert_eq!(fleet.runtime.calls().len(), ran, "it ran in another image");
    fleet.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn work_for_whatever_a_name_means_runs_in_no_warm_container_of_what_it_meant() {
    let fleet = Fleet::start(|_| FakeRun::exit(0)).await;
    let name: ImageReference = "img:1".parse().unwrap();
    told(&fleet, "sha256:abc").await;
    for lease in 1..3 {
        assert_eq!(outcome(&fleet, lease, "").await.image_id, "sha256:abc");
    }
    let started = fleet.runtime.started();
    fleet.runtime.move_image(&name, "sha256:new");
    told(&fleet, "sha256:new").await;
    for lease in 3..7 {
        assert_eq!(outcome(&fleet, lease, "").await.image_id, "sha256:new");
    }
    let replaced = fleet.runtime.started() - started;
    assert!(replaced <= 4, "{replaced} containers for two slots");
    fleet.end().await.unwrap();
}
