//! Tests that nobody answers.

use regatta_model::FailureClass;
use regatta_scheduler::UnitError;
use regatta_wire::v1;

use super::bare_result;
use super::execution::Execution;
use crate::runs::state::JobEnd;
use crate::runs::tally::Ending;

impl Execution<'_> {
    /// A test will have no answer.
    pub(super) fn lost(&mut self, test: usize, error: &UnitError) {
        // A unit that is cancelled belongs to a test that will be told as not run.
        if *error == UnitError::Cancelled {
            return;
        }
        if self.purpose.is_audit() {
            self.end_unanswered_audit(test);
            return;
        }
        let ending = Ending::Failed(FailureClass::Infra);
        if self.tally.record(test, ending) {
            self.outbox.tell(v1::TestResult {
                attempts: self.attempts[test],
                message: error.to_string(),
                ..bare_result(self.job, &self.tests[test], ending)
            });
        }
    }

    /// Tests that are open could not be submitted. Those of a job that is cancelled are told as not run in the end.
    pub(super) fn give_up(&mut self, tests: Vec<usize>, end: &JobEnd) {
        if self.job.cancel.is_cancelled() {
            return;
        }
        for test in tests {
            if self.purpose.is_audit() {
                self.end_unanswered_audit(test);
                continue;
            }
            let ending = Ending::Failed(FailureClass::Infra);
            self.tally.record(test, ending);
            self.outbox.tell(v1::TestResult {
                message: end.message.clone(),
                ..bare_result(self.job, &self.tests[test], ending)
            });
        }
    }
}
