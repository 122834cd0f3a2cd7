//! Test programs that run one test in a process of its own: what they are given, and what they say.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use regatta_model::{FailureClass, PlantedBug};
use regatta_wire::v1;

use super::company::Company;
use super::judged::{Ended, Judged, cached_skip};
use super::{ctest, googletest, gotest, libtest};
use crate::runs::action::judge;
use crate::runs::context::JobContext;
use crate::runs::event::duration_of;
use crate::runs::output::{tail, tail_to_show};
use crate::runs::plan::{Harness, PlannedSuite};

/// What starting a batch costs: staging its inputs, mostly.
pub(super) const BATCH_OVERHEAD: Duration = Duration::from_millis(20);
/// How long a test is expected to take of which nothing is known.
pub(super) const USUAL_DURATION: Duration = Duration::from_millis(100);
/// How much of a passing test's output its result repeats, in bytes.
const PASSED_TAIL_BYTES: u64 = 1024;
/// How much of any other's.
const FAILED_TAIL_BYTES: u64 = 16 * 1024;
/// Where the summary of one test fits, in bytes from the end.
const SUMMARY_BYTES: u64 = 4096;

/// How a test ended, or why it is a failure.
pub(super) type Verdict = Result<Ended, (FailureClass, String)>;

/// A command that lists tests, or something of them, and how to read what it prints.
#[derive(Debug)]
pub(super) struct ListCommand<Listed = Vec<String>> {
    pub(super) arguments: Vec<String>,
    pub(super) parse: fn(&str) -> Result<Listed, String>,
}

/// For each test that does not run alone, what runs with it.
pub(super) type CompanyByTest = BTreeMap<String, Company>;

impl Harness {
    /// Changes whenever tests are run or judged in another way.
    pub(super) const fn version(self) -> &'static str {
        match self {
            Self::Libtest => libtest::VERSION,
            Self::GoogleTest => googletest::VERSION,
            Self::Go => gotest::VERSION,
            Self::Ctest => ctest::VERSION,
        }
    }

    /// Whether it is usual that there is no test: crates and packages have some or none. A build for CTest, or a
    /// program of GoogleTest's, without any has lost them.
    pub(super) const fn may_have_no_test(self) -> bool {
        match self {
            Self::Libtest | Self::Go => true,
            Self::GoogleTest | Self::Ctest => false,
        }
    }

    /// Lists every test.
    pub(super) fn list(self, suite: &PlannedSuite) -> ListCommand {
        match self {
            Self::Libtest => ListCommand {
                arguments: libtest::list_arguments(suite),
                parse: libtest::parse_listing,
            },
            Self::GoogleTest => ListCommand {
                arguments: googletest::list_arguments(suite),
                parse: googletest::parse_listing,
            },
            Self::Go => ListCommand {
                arguments: gotest::list_arguments(suite),
                parse: gotest::parse_listing,
            },
            Self::Ctest => ListCommand {
                arguments: ctest::list_arguments(suite),
                parse: ctest::parse_listing,
            },
        }
    }

    /// Lists the tests that the suite itself says not to run; `None` if their names say so, or nothing does.
    pub(super) fn list_ignored(self, suite: &PlannedSuite) -> Option<ListCommand> {
        match self {
            Self::Libtest => Some(ListCommand {
                arguments: libtest::list_ignored_arguments(suite),
                parse: libtest::parse_listing,
            }),
            // The same action, whose result is then known.
            Self::Ctest => Some(ListCommand {
                arguments: ctest::list_arguments(suite),
                parse: ctest::parse_disabled,
            }),
            Self::GoogleTest | Self::Go => None,
        }
    }

    /// Those of `ids` whose names say that they are not to be run.
    pub(super) fn ignored_by_name(self, ids: &[String]) -> BTreeSet<String> {
        match self {
            Self::Libtest | Self::Go | Self::Ctest => BTreeSet::new(),
            Self::GoogleTest => {
                let disabled = ids.iter().filter(|id| googletest::is_disabled(id));
                disabled.cloned().collect()
            }
        }
    }

    /// What makes the suite's command run exactly one test, which may take so long.
    pub(super) fn run_arguments(
        self,
        suite: &PlannedSuite,
        (id, company): (&str, &Company),
        limit: Duration,
    ) -> Vec<String> {
        match self {
            Self::Libtest => libtest::run_arguments(suite, id),
            Self::GoogleTest => googletest::run_arguments(suite, id),
            Self::Go => gotest::run_arguments(id),
            Self::Ctest => ctest::run_arguments(suite, (id, company), limit),
        }
    }

    /// What the end of a test's output says, of a process that exited with 0.
    fn ran_one(self, id: &str, stdout: &str) -> Verdict {
        match self {
            Self::Libtest => libtest::ran_one(stdout),
            Self::GoogleTest => googletest::ran_one(stdout),
            Self::Go => gotest::ran_one(id, stdout),
            Self::Ctest => ctest::ran_one(id, stdout),
        }
    }

    /// What is to be said of a test whose process did not exit with 0, if its output says more than it shows.
    fn beside_failed(self, (id, company): (&str, &Company), ended: (i32, &str)) -> Option<Verdict> {
        match self {
            Self::Libtest | Self::GoogleTest | Self::Go => None,
            Self::Ctest => ctest::beside_failed((id, company), ended),
        }
    }

    /// Why the suite fails though a test passed whose process did not exit with 0.
    fn left_behind(self, named: (&str, &Company), stdout: &str) -> Option<String> {
        match self {
            Self::Libtest | Self::GoogleTest | Self::Go => None,
            Self::Ctest => ctest::left_behind(named, stdout),
        }
    }

    /// What lists the tests that run with others, and so how to read it; `None` if none does.
    pub(super) fn list_companies(self, suite: &PlannedSuite) -> Option<ListCommand<CompanyByTest>> {
        match self {
            Self::Libtest | Self::GoogleTest | Self::Go => None,
            // The same action as the list's, whose result is then known.
            Self::Ctest => Some(ListCommand {
                arguments: ctest::list_arguments(suite),
                parse: ctest::companies_parser(suite),
            }),
        }
    }

    /// Where what is said of one test fits, in bytes from the end of its output.
    const fn summary_bytes(self) -> u64 {
        match self {
            Self::Libtest | Self::GoogleTest => SUMMARY_BYTES,
            Self::Go => gotest::SUMMARY_BYTES,
            Self::Ctest => ctest::SUMMARY_BYTES,
        }
    }

    /// What one test's process says. Exit code 0 is a pass only if a test was run.
    pub(super) async fn judge(
        self,
        job: &JobContext,
        (id, company): (&str, &Company),
        outcome: &v1::ExecutionOutcome,
    ) -> Judged {
        let summary = || async {
            let result = outcome.result.clone().unwrap_or_default();
            let (blobs, digest) = (job.run.blobs.as_ref(), result.stdout_digest.as_ref());
            tail(blobs, &result.stdout_raw, digest, self.summary_bytes()).await
        };
        let mut complaint = None;
        let verdict = match judge(outcome) {
            Ok(()) => match summary().await {
                Ok(text) => self.ran_one(id, &String::from_utf8_lossy(&text)),
                // The test may well have passed: that nobody can tell is the machines' fault.
                Err(error) => Err((
                    FailureClass::Infra,
                    format!("what the runner said cannot be read: {error}"),
                )),
            },
            Err((class, _)) if class == FailureClass::Test && outcome.message.is_empty() => {
                let text = summary().await.unwrap_or_default();
                let text = String::from_utf8_lossy(&text);
                let exit_code = outcome.result.as_ref().map_or(0, |it| it.exit_code);
                let said = self.beside_failed((id, company), (exit_code, &text));
                complaint = self.left_behind((id, company), &text);
                said.unwrap_or(Err((class, String::new())))
            }
            Err(failure) => Err(failure),
        };
        Judged {
            complaint,
            ..judged(job, outcome, verdict).await
        }
    }
}

/// A test's process with this verdict.
pub(super) async fn judged(
    job: &JobContext,
    outcome: &v1::ExecutionOutcome,
    verdict: Verdict,
) -> Judged {
    job.run.times.worked(duration_of(outcome));
    let result = outcome.result.clone().unwrap_or_default();
    let blobs = job.run.blobs.as_ref();
    let limit = if verdict.is_ok() {
        PASSED_TAIL_BYTES
    } else {
        FAILED_TAIL_BYTES
    };
    let stdout = result.stdout_digest.as_ref();
    let stderr = result.stderr_digest.as_ref();
    // A pass whose process failed for another test is not to be taken for one of the process, nor is a skip.
    let is_clean = result.exit_code == 0;
    Judged {
        cacheable: match &verdict {
            Ok(_) if !is_clean => None,
            Ok(Ended::Passed) => Some(result.clone()),
            Ok(Ended::Skipped(reason)) => Some(cached_skip(reason)),
            Ok(Ended::PassedAgain) => None,
            Err(_) if PlantedBug::FailureCached.is_planted() => Some(result.clone()),
            Err(_) => None,
        },
        verdict,
        note: String::new(),
        complaint: None,
        duration: duration_of(outcome),
        exit_code: outcome.result.as_ref().map(|result| result.exit_code),
        stdout_tail: tail_to_show(blobs, &result.stdout_raw, stdout, limit).await,
        stderr_tail: tail_to_show(blobs, &result.stderr_raw, stderr, limit).await,
        stdout_digest: result.stdout_digest.clone(),
        stderr_digest: result.stderr_digest.clone(),
    }
}

/// A pass that the output does not bear out. `line` is what it says instead.
pub(super) fn did_not_run_it(line: Option<&str>) -> (FailureClass, String) {
    let text = match line {
        Some(line) => {
            format!("the runner exited with code 0 but did not run exactly this test: {line}")
        }
        None => "the runner exited with code 0 but did not say that it ran a test".to_owned(),
    };
    (FailureClass::Test, text)
}
