//! Whether a runner's failed tests explain how it ended.
//!
//! A failed test that passes when it is tried again excuses the failure of its runner, too. It must not excuse more: a
//! fixture that could not be taken down, coverage below its threshold, a crash after the last test. What can be told
//! apart:
//!
//! - Errors that a report tells of outside of its tests, and cases of tests that nobody asked for (a file that could not
//!   be loaded), are never a test's.
//! - A runner that failed and reported every test, none of them as failed, knows something else.
//! - A runner that reported a failed test and others not at all was ended by that test; and so was one whose report says
//!   so (`Case::ends_runner`). Then any exit code is explained.
//! - A runner that reported every test, and some as failed, is explained if it exited as runners do for failed tests:
//!   with 1, with how many there were, or with a code that is known for it. With any other, or if it ran out of time or
//!   memory, something else has failed.
//!
//! What fails a runner beside a failed test, with the exit code of failed tests, looks like the test's failure. It is
//! found out when the test is tried again, for then the runner fails although its test passes; it stays hidden only if it
//! does not happen then.

use regatta_model::FailureClass;
use regatta_wire::v1;

/// What runners exit with if tests have failed and all else went well: most; PHPUnit for errors, and make for whatever it
/// ran; CTest; Catch2; nextest; Cargo; Boost.Test.
const FAILED_TESTS: [i32; 7] = [1, 2, 8, 42, 100, 101, 201];
/// Runners that exit with how many tests have failed stop counting at one of these.
const MOST_COUNTED: [usize; 2] = [250, 255];

/// What is known of a runner that reported each test it was asked to run.
#[derive(Clone, Copy, Debug)]
pub(super) struct WholeReport {
    pub(super) failed: usize,
    /// Whether it says of one of them that it ended the runner.
    pub(super) is_ended_by_test: bool,
}

impl WholeReport {
    /// Whether the tests that failed explain that the runner failed.
    pub(super) fn explains(self, class: FailureClass, outcome: &v1::ExecutionOutcome) -> bool {
        if self.is_ended_by_test {
            return true;
        }
        match class {
            FailureClass::Test if self.failed == 0 => false,
            FailureClass::Test => {
                let code = outcome.result.as_ref().map(|result| result.exit_code);
                code.is_some_and(|code| is_of_failed_tests(code, self.failed))
            }
            FailureClass::Timeout | FailureClass::Oom => false,
            // The runner is not to blame.
            FailureClass::Infra | FailureClass::Cancelled => true,
        }
    }
}

fn is_of_failed_tests(code: i32, failed: usize) -> bool {
    let mut counted = std::iter::once(failed).chain(MOST_COUNTED.map(|most| failed.min(most)));
    FAILED_TESTS.contains(&code) || counted.any(|count| usize::try_from(code) == Ok(count))
}

#[cfg(test)]
mod tests {
    use regatta_wire::reapi;

    use super::*;

    #[track_caller]
    fn check(code: i32, failed: usize, is_ended_by_test: bool, expected: bool) {
        let outcome = v1::ExecutionOutcome {
            result: Some(reapi::ActionResult {
                exit_code: code,
                ..Default::default()
            }),
            ..Default::default()
        };
        let report = WholeReport {
            failed,
            is_ended_by_test,
        };
        let explained = report.explains(FailureClass::Test, &outcome);
        assert_eq!(explained, expected, "{code}, {failed} failed");
    }

    #[test]
    fn failed_tests_explain_what_runners_exit_with_for_them_and_nothing_else() {
        for code in FAILED_TESTS {
            check(code, 1, false, true);
        }
        check(3, 3, false, true);
        check(1, 0, false, false);
        check(250, 1000, false, true);
        check(255, 1000, false, true);
        for code in [3, 4, 127, 134, 139, 255, -1] {
            check(code, 1, false, false);
            check(code, 1, true, true);
        }
    }

    #[test]
    fn no_test_explains_what_ended_its_runner_after_the_last() {
        let report = WholeReport {
            failed: 1,
            is_ended_by_test: false,
        };
        let outcome = v1::ExecutionOutcome::default();
        assert!(!report.explains(FailureClass::Timeout, &outcome));
        assert!(!report.explains(FailureClass::Oom, &outcome));
        assert!(!report.explains(FailureClass::Test, &outcome));
        assert!(report.explains(FailureClass::Infra, &outcome));
    }
}
