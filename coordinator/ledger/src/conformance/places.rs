//! What is learnt in one place, and what of it holds in another.

use std::time::Duration;

use super::{observe, place, seen, tenant};
use crate::{Ledger, Place, SuiteObservation};

pub(super) async fn check(ledger: &dyn Ledger) {
    times_are_kept_apart(ledger).await;
    places_that_are_gone_are_forgotten(ledger).await;
}

/// How long a test of the suite `places` takes somewhere, in milliseconds.
async fn expected_at(ledger: &dyn Ledger, test: &str, place: Place) -> Option<u128> {
    let known = ledger.read_suite(&tenant("a"), "places", &place).await;
    let tests = known.expect("reads").tests;
    let found = tests.into_iter().find(|it| it.test == test)?;
    Some(found.timing.expected.as_millis())
}

/// By image and branch; then by image; then anywhere.
async fn times_are_kept_apart(ledger: &dyn Ledger) {
    for (image, branch, millis) in [("i", "main", 100), ("i", "slow", 300), ("j", "", 1000)] {
        let tests = vec![seen("x", millis, 1)];
        observe(ledger, "places", place(image, branch), tests).await;
    }
    let at = |image, branch| expected_at(ledger, "x", place(image, branch));
    assert_eq!(at("i", "main").await, Some(100));
    assert_eq!(at("i", "slow").await, Some(300));
    assert_eq!(at("i", "new").await, Some(160));
    assert_eq!(at("i", "").await, Some(160));
    assert_eq!(at("j", "main").await, Some(1000));
    assert_eq!(at("k", "main").await, Some(412));
    assert_eq!(expected_at(ledger, "y", place("i", "main")).await, None);

    let overhead = |millis| SuiteObservation {
        tenant: tenant("a"),
        suite: "places".to_owned(),
        place: Place::default(),
        tests: Vec::new(),
        batch_overhead: Some(Duration::from_millis(millis)),
    };
    let (owner, stranger, there) = (tenant("a"), tenant("b"), place("i", ""));
    for (millis, expected) in [(100, 100), (200, 130)] {
        ledger
            .observe_suite(overhead(millis))
            .await
            .expect("learns");
        let known = ledger.read_suite(&owner, "places", &there);
        let known = known.await.expect("reads").batch_overhead;
        assert_eq!(known, Some(Duration::from_millis(expected)));
    }
    let other = ledger.read_suite(&stranger, "places", &there);
    assert_eq!(other.await, Ok(crate::SuiteKnowledge::default()));
}

async fn places_that_are_gone_are_forgotten(ledger: &dyn Ledger) {
    for second in 2..=100 {
        let branch = format!("branch-{second}");
        let tests = vec![seen("z", second * 100, second)];
        observe(ledger, "places", place("i", &branch), tests).await;
    }
    let at = |branch| expected_at(ledger, "z", place("i", branch));
    assert_eq!(at("branch-100").await, Some(10_000));
    assert_eq!(at("branch-2").await, at("").await);
    assert_ne!(at("branch-99").await, at("").await);
}
