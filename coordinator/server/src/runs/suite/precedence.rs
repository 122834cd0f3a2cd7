//! Which tests run first, so that a failure is known soon. Pure.
//!
//! The shortest suite runs its longest tests first. Tests that may well fail go before them as long as they are a
//! small part of the work, so that the whole takes hardly longer.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::Duration;

use regatta_ledger::KnownTest;
use regatta_model::{Digest, Timestamp};

use super::Test;

/// How long a failure is remembered: a test that has passed since may fail again for a while.
const RECENT: Duration = Duration::from_secs(7 * 24 * 3600);
/// How many of a hundred parts of the expected work may go first.
const MOST_PERCENT: u32 = 10;

/// Why a test may fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Suspicion {
    /// When it did not pass at once, last.
    last_failure: Option<Timestamp>,
    /// Whether it is new, or something that it depends on is.
    is_changed: bool,
}

impl Suspicion {
    /// What earlier runs, if any, make one suspect of a test that has this key now.
    pub(super) fn of(known: Option<&KnownTest>, key: Digest) -> Self {
        match known {
            Some(known) => Self {
                last_failure: known.last_failure,
                is_changed: known.last_key.is_some_and(|last| last != key),
            },
            None => Self {
                last_failure: None,
                is_changed: true,
            },
        }
    }
}

/// The positions of the tests that go first: those that failed last, then those that changed, the shortest first.
pub(super) fn first<'test>(
    tests: impl Iterator<Item = &'test Test>,
    now: Timestamp,
) -> BTreeSet<usize> {
    let tests = tests.map(|test| (test.suspicion, test.estimate.timing.expected));
    choose(&tests.collect::<Vec<_>>(), now)
}

fn choose(tests: &[(Suspicion, Duration)], now: Timestamp) -> BTreeSet<usize> {
    let (mut failed, mut changed) = (Vec::new(), Vec::new());
    for (position, (suspicion, expected)) in tests.iter().enumerate() {
        let recent = suspicion.last_failure;
        match recent.filter(|failure| now.since(*failure) <= RECENT) {
            Some(failure) => failed.push((Reverse(failure), *expected, position)),
            None if suspicion.is_changed => changed.push((*expected, position)),
            None => {}
        }
    }
    failed.sort_unstable();
    changed.sort_unstable();
    // If most of them have changed, as when all depend on each file, that tells nothing of any.
    if changed.len() * 2 > tests.len() {
        changed.clear();
    }
    let failed = failed
        .into_iter()
        .map(|(_, expected, position)| (expected, position));
    let work: Duration = tests.iter().map(|(_, expected)| *expected).sum();
    let mut left = work * MOST_PERCENT / 100;
    let mut first = BTreeSet::new();
    for (rank, (expected, position)) in failed.chain(changed).enumerate() {
        // The most suspicious of all goes first, however long it takes.
        if expected <= left || rank == 0 {
            left = left.saturating_sub(expected);
            first.insert(position);
        }
    }
    first
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_nanos(1_800_000_000_000_000_000);
    const DAY: u64 = 24 * 3600 * 1_000_000_000;

    fn failed(days_ago: u64) -> Suspicion {
        Suspicion {
            last_failure: Some(Timestamp::from_nanos(NOW.as_nanos() - days_ago * DAY)),
            is_changed: false,
        }
    }

    const CHANGED: Suspicion = Suspicion {
        last_failure: None,
        is_changed: true,
    };
    const GOOD: Suspicion = Suspicion {
        last_failure: None,
        is_changed: false,
    };

    #[track_caller]
    fn check(tests: &[(Suspicion, u64)], expected: &[usize]) {
        let tests = tests.iter();
        let tests: Vec<_> = tests
            .map(|(suspicion, millis)| (*suspicion, Duration::from_millis(*millis)))
            .collect();
        let first: Vec<_> = choose(&tests, NOW).into_iter().collect();
        assert_eq!(first, expected);
    }

    #[test]
    fn what_failed_lately_goes_first_then_what_changed_within_a_tenth_of_the_work() {
        check(&[], &[]);
        check(&[(GOOD, 10), (GOOD, 20)], &[]);
        check(&[(GOOD, 900), (failed(1), 10), (CHANGED, 20)], &[1, 2]);
        check(&[(GOOD, 900), (failed(8), 10), (GOOD, 20)], &[]);
        // What failed last, though it takes long; then no more fits.
        check(&[(GOOD, 500), (failed(2), 1), (failed(1), 400)], &[2]);
        check(
            &[(GOOD, 900), (CHANGED, 60), (CHANGED, 50), (GOOD, 9)],
            &[2],
        );
        check(&[(CHANGED, 9), (CHANGED, 9), (failed(1), 1)], &[2]);
    }

    #[test]
    fn a_test_is_suspect_that_failed_or_has_another_key_or_is_new() {
        let key = Digest::of(b"now");
        let known = |last_key| KnownTest {
            test: String::new(),
            timing: regatta_ledger::Timing::default(),
            last_failure: None,
            last_key,
            last_input_root: None,
        };
        let changed = |known: Option<&KnownTest>| Suspicion::of(known, key).is_changed;
        assert!(changed(None));
        assert!(changed(Some(&known(Some(Digest::of(b"then"))))));
        assert!(!changed(Some(&known(Some(key)))));
        // Imported from elsewhere.
        assert!(!changed(Some(&known(None))));
    }

    proptest! {
        #[test]
        fn little_goes_first_and_only_what_is_suspect(
            tests in proptest::collection::vec((0u8..4, 0u64..1000), 0..60)
        ) {
            let suspicion = |kind| match kind {
                0 => failed(1),
                1 => CHANGED,
                _ => GOOD,
            };
            let tests: Vec<_> = tests
                .into_iter()
                .map(|(kind, millis)| (suspicion(kind), Duration::from_millis(millis)))
                .collect();
            let first = choose(&tests, NOW);
            let work: Duration = tests.iter().map(|test| test.1).sum();
            let ahead: Duration = first.iter().map(|position| tests[*position].1).sum();
            let longest = first.iter().map(|position| tests[*position].1).max();
            prop_assert!(first.iter().all(|position| tests[*position].0 != GOOD));
            prop_assert!(ahead <= (work * MOST_PERCENT / 100).max(longest.unwrap_or_default()) + longest.unwrap_or_default());
            let has_failed = tests.iter().any(|test| test.0 == failed(1));
            prop_assert!(!has_failed || first.iter().any(|position| tests[*position].0 == failed(1)));
        }
    }
}
