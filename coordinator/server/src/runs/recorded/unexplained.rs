//! Batches whose runner ended before it had reported its tests, while nobody knows which of them did it.

use std::collections::BTreeSet;

use regatta_wire::v1;

use crate::runs::action::may_be_retried;
use crate::runs::tally::Ending;

/// Such a batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::runs) struct UnexplainedBatch {
    /// How its runner ended.
    pub(in crate::runs) message: String,
    /// Those of its tests that were to run again and have not been answered.
    pub(in crate::runs) tests: BTreeSet<String>,
}

/// Those of a suite.
#[derive(Debug, Default)]
pub(in crate::runs) struct UnexplainedBatches {
    batches: Vec<UnexplainedBatch>,
}

impl UnexplainedBatches {
    pub(in crate::runs) fn iter(&self) -> impl Iterator<Item = &UnexplainedBatch> {
        self.batches.iter()
    }

    /// Whether a test runs again because of one.
    pub(in crate::runs) fn has(&self, test: &str) -> bool {
        self.batches.iter().any(|batch| batch.tests.contains(test))
    }

    pub(super) fn take(&mut self, batch: v1::BatchUnexplained) {
        self.batches.push(UnexplainedBatch {
            message: batch.message,
            tests: batch.test_ids.into_iter().collect(),
        });
    }

    /// A test has failed, which explains how its batch had ended.
    pub(super) fn failed(&mut self, test: &str) {
        self.batches.retain(|batch| !batch.tests.contains(test));
    }

    /// A test has come to its end. If it was the last, whatever there is to say has been said before.
    pub(super) fn ended(&mut self, test: &str, ending: Ending) {
        match ending {
            Ending::Failed(class) if may_be_retried(class) => self.failed(test),
            Ending::Quarantined(_) => self.failed(test),
            Ending::Passed | Ending::Flaky | Ending::Skipped => {
                for batch in &mut self.batches {
                    batch.tests.remove(test);
                }
                self.batches.retain(|batch| !batch.tests.is_empty());
            }
            // Of the test nothing is known.
            Ending::Failed(_) | Ending::Cached | Ending::NotRun => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use regatta_model::FailureClass;

    use super::*;

    /// Those that are left of two batches after these ends.
    fn left(ends: &[(&str, Ending)]) -> Vec<String> {
        let mut batches = UnexplainedBatches::default();
        for tests in [["a", "b"], ["c", "d"]] {
            batches.take(v1::BatchUnexplained {
                job: "unit".to_owned(),
                message: tests.concat(),
                test_ids: tests.map(str::to_owned).to_vec(),
            });
        }
        for (test, ending) in ends {
            batches.ended(test, *ending);
        }
        batches.iter().map(|batch| batch.message.clone()).collect()
    }

    #[test]
    fn a_batch_is_unexplained_until_a_test_fails_or_all_are_answered() {
        let test = Ending::Failed(FailureClass::Test);
        let lost = Ending::Failed(FailureClass::Infra);
        assert_eq!(left(&[]), ["ab", "cd"]);
        assert_eq!(left(&[("b", test)]), ["cd"]);
        assert_eq!(left(&[("a", Ending::Passed)]), ["ab", "cd"]);
        assert_eq!(
            left(&[("a", Ending::Passed), ("b", Ending::Skipped)]),
            ["cd"]
        );
        assert_eq!(left(&[("a", Ending::Passed), ("b", test)]), ["cd"]);
        let unknown = [("a", lost), ("b", Ending::NotRun), ("z", test)];
        assert_eq!(left(&unknown), ["ab", "cd"]);
    }
}
