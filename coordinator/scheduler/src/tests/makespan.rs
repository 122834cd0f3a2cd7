//! How close a suite comes to the shortest time it could take.

use std::collections::BTreeMap;
use std::time::Duration;

use super::fixture::{Fixture, held, offer, report, submission};
use crate::simulation::Random;
use crate::{Grant, OutcomeKind, SchedulerConfig, Submission};

const SLOTS: u32 = 16;

/// Log-normal durations: a median of 200 ms, and a standard deviation of 1 of the logarithm.
fn durations(seed: u64, count: usize) -> Vec<Duration> {
    let mut random = Random::new(seed);
    let uniform = |random: &mut Random| (random.below(1_000_000) + 1) as f64 / 1_000_001.0;
    let mut duration = || {
        // Twelve uniform numbers make a normal one, near enough.
        let normal: f64 = (0..12).map(|_| uniform(&mut random)).sum::<f64>() - 6.0;
        Duration::from_secs_f64(0.2 * normal.exp())
    };
    (0..count).map(|_| duration()).collect()
}

/// Runs a suite whose history is exact, all outcomes of a batch reported at its end.
fn makespan(units: &[Duration], overhead: Duration) -> (Duration, usize) {
    let mut fixture = Fixture::new(SchedulerConfig::default());
    let begun = fixture.now;
    fixture.submit(Submission {
        units: units.to_vec(),
        batch_overhead: overhead,
        ..submission(1)
    });
    fixture.connect("a", offer(SLOTS));
    let mut running: BTreeMap<_, Grant> = BTreeMap::new();
    let (mut batches, mut sequence) = (0, 1);
    loop {
        for grant in fixture.grants() {
            let work = grant.units.iter().map(|(unit, _)| units[unit.0 as usize]);
            let end = fixture.now + overhead + work.sum::<Duration>();
            running.insert((end, grant.lease), grant);
            batches += 1;
        }
        let Some(((end, _), ended)) = running.pop_first() else {
            return (fixture.now.since(begun), batches);
        };
        fixture.now = end;
        sequence += 1;
        let outcomes = vec![OutcomeKind::Answered; ended.units.len()];
        let others = running.values().map(|grant| held(grant, &[], false));
        let leases = others.chain([held(&ended, &outcomes, true)]).collect();
        fixture.report(report("a", sequence, leases));
    }
}

#[test]
fn a_suite_of_two_thousand_tests_ends_within_a_twentieth_of_the_best() {
    for seed in 1..6 {
        let units = durations(seed, 2000);
        let overhead = Duration::from_millis(5);
        let (took, batches) = makespan(&units, overhead);
        let work: Duration = units.iter().sum();
        let longest = units.iter().max().copied().unwrap_or_default();
        let best = (work / SLOTS).max(longest);
        let ratio = took.as_secs_f64() / best.as_secs_f64();
        assert!(
            ratio <= 1.05,
            "seed {seed}: {ratio:.4} with {batches} batches"
        );
        assert!(batches < 500, "seed {seed}: {batches} batches");
    }
}
