//! Counts tests. Pure.

use regatta_ledger::RunCounts;
use regatta_model::FailureClass;

/// How one planned test ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ending {
    Passed,
    Flaky,
    Cached,
    Skipped,
    Failed(FailureClass),
    /// Failed, which does not count for now.
    Quarantined(FailureClass),
    NotRun,
}

impl Ending {
    /// Whether it is a failure for which no machine is to blame.
    pub(crate) fn is_own_failure(self) -> bool {
        matches!(self, Self::Failed(class) if class != FailureClass::Infra)
    }
}

/// The tests of one suite, each of which ends once.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    endings: Vec<Option<Ending>>,
    counts: RunCounts,
    open: usize,
}

impl Tally {
    pub(crate) fn new(planned: usize) -> Self {
        let counts = RunCounts {
            planned: u32::try_from(planned).unwrap_or(u32::MAX),
            ..RunCounts::default()
        };
        Self {
            endings: vec![None; planned],
            counts,
            open: planned,
        }
    }

    /// Records how a test ended; whether it is news. A test that has ended stays as it is.
    pub(crate) fn record(&mut self, test: usize, ending: Ending) -> bool {
        let Some(slot @ None) = self.endings.get_mut(test) else {
            return false;
        };
        *slot = Some(ending);
        self.open -= 1;
        *count_of(&mut self.counts, ending) += 1;
        true
    }

    /// Tests that have not ended.
    pub(crate) fn open(&self) -> impl Iterator<Item = usize> {
        self.endings
            .iter()
            .enumerate()
            .filter(|(_, it)| it.is_none())
            .map(|(index, _)| index)
    }

    pub(crate) const fn open_count(&self) -> usize {
        self.open
    }

    pub(crate) const fn counts(&self) -> RunCounts {
        self.counts
    }

    /// How each test has ended, if it has.
    pub(crate) fn endings(&self) -> impl Iterator<Item = &Option<Ending>> + Clone {
        self.endings.iter()
    }
}

/// Whether every planned test is accounted for.
pub(crate) fn adds_up(counts: &RunCounts) -> bool {
    let ended = [
        counts.passed,
        counts.flaky,
        counts.failed,
        counts.cached,
        counts.skipped,
        counts.not_run,
        counts.quarantined,
    ];
    ended.into_iter().map(u64::from).sum::<u64>() == u64::from(counts.planned)
}

/// The counts once a test that was known, and did not hold to it, is counted as what it became instead.
pub(crate) fn corrected(mut counts: RunCounts, known: Ending, ending: Ending) -> RunCounts {
    let of_known = count_of(&mut counts, known);
    *of_known = of_known.saturating_sub(1);
    *count_of(&mut counts, ending) += 1;
    counts
}

/// The counts of one test that ended so.
pub(crate) fn one(ending: Ending) -> RunCounts {
    let mut counts = RunCounts {
        planned: 1,
        ..RunCounts::default()
    };
    *count_of(&mut counts, ending) += 1;
    counts
}

fn count_of(counts: &mut RunCounts, ending: Ending) -> &mut u32 {
    match ending {
        Ending::Passed => &mut counts.passed,
        Ending::Flaky => &mut counts.flaky,
        Ending::Cached => &mut counts.cached,
        Ending::Skipped => &mut counts.skipped,
        // A machine that is lost says nothing of a test.
        Ending::NotRun | Ending::Failed(FailureClass::Infra) => &mut counts.not_run,
        Ending::Failed(_) => &mut counts.failed,
        Ending::Quarantined(_) => &mut counts.quarantined,
    }
}

/// Both together.
pub(crate) const fn plus(one: RunCounts, other: RunCounts) -> RunCounts {
    RunCounts {
        planned: one.planned.saturating_add(other.planned),
        passed: one.passed.saturating_add(other.passed),
        flaky: one.flaky.saturating_add(other.flaky),
        failed: one.failed.saturating_add(other.failed),
        cached: one.cached.saturating_add(other.cached),
        skipped: one.skipped.saturating_add(other.skipped),
        not_run: one.not_run.saturating_add(other.not_run),
        quarantined: one.quarantined.saturating_add(other.quarantined),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ending() -> impl Strategy<Value = Ending> {
        prop_oneof![
            Just(Ending::Passed),
            Just(Ending::Flaky),
            Just(Ending::Cached),
            Just(Ending::Skipped),
            Just(Ending::Failed(FailureClass::Test)),
            Just(Ending::Failed(FailureClass::Infra)),
            Just(Ending::Quarantined(FailureClass::Test)),
            Just(Ending::NotRun),
        ]
    }

    proptest! {
        #[test]
        fn planned_is_the_sum_of_all_endings(
            planned in 0usize..40,
            records in prop::collection::vec((0usize..50, ending()), 0..120),
        ) {
            let mut tally = Tally::new(planned);
            let mut first = std::collections::BTreeMap::new();
            for (test, ending) in records {
                let news = tally.record(test, ending);
                prop_assert_eq!(news, test < planned && !first.contains_key(&test));
                first.entry(test).or_insert(ending);
                let open = u32::try_from(tally.open_count()).unwrap();
                let with_open = RunCounts {
                    not_run: tally.counts().not_run + open,
                    ..tally.counts()
                };
                prop_assert!(adds_up(&with_open));
            }
            let open: Vec<_> = tally.open().collect();
            for test in open {
                prop_assert!(tally.record(test, Ending::NotRun));
            }
            prop_assert!(adds_up(&tally.counts()));
        }
    }
}
