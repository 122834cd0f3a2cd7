//! The general contract: ids in a file, results in JUnit XML.

mod times;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use regatta_cas::read_all;
use regatta_model::{Digest, FailureClass};
use regatta_wire::convert::required_digest;
use regatta_wire::{reapi, v1};

use super::judged::{Ended, Judged, cached_skip};
use super::runner_exit::WholeReport;
use super::suspects::Unreported;
use crate::junit::{self, Case, CaseStatus, KnownIds, StandsFor};
use crate::runs::action::judge;
use crate::runs::context::JobContext;
use crate::runs::event::duration_of;
use crate::runs::output::tail_to_show;

/// Changes whenever tests are run or judged in another way.
pub(super) const VERSION: &str = "contract 8";
/// What starting a batch costs: the runner itself starts, and finds its tests.
pub(super) const BATCH_OVERHEAD: Duration = Duration::from_millis(500);
/// The same where a persistent worker runs them, which has started and found them.
pub(super) const WORKER_BATCH_OVERHEAD: Duration = Duration::from_millis(50);
/// How long a test is expected to take of which nothing is known: most of a runner's own are quick, and each
/// batch more than is needed costs a start of it.
pub(super) const USUAL_DURATION: Duration = Duration::from_millis(20);
/// The largest report that is read, in bytes.
const MAX_REPORT_BYTES: u64 = 64 << 20;
/// How much of a test's output its result repeats, in bytes.
const OUTPUT_BYTES: usize = 16 * 1024;

/// What one batch's runner reported.
#[derive(Debug, Default)]
pub(super) struct BatchReport {
    cases: BTreeMap<String, Case>,
    twice: BTreeSet<String>,
    /// Whether there is a report that can be read.
    is_read: bool,
    /// How the runner ended if it has not reported all tests, one of which can have ended it, and nobody knows which.
    unreported: Option<Unreported>,
    /// Why tests that are not reported have no result.
    otherwise: Option<(FailureClass, String)>,
    /// How long a test may take,
    time_limit: Duration,
    /// and how long all of them took,
    batch_took: Duration,
    /// of which so much is left for a test that the report does not time.
    untimed: Option<(String, Duration)>,
    /// How many tests there are, if the runner was ended because their time was over.
    out_of_time: Option<usize>,
    /// Whether a test that was asked for is not reported.
    is_incomplete: bool,
    /// Whether the tests that are not reported run again, because the runner ended in the middle.
    is_continued: bool,
    /// The first test that is not reported, with what the runner itself printed: once is enough for all of
    /// a batch, which may have thousands.
    quoted: Option<(String, Printed)>,
    /// What cannot be blamed on one test.
    pub(super) complaints: Vec<String>,
}

/// What a runner printed: the last part, and where all of it is.
#[derive(Debug, Default)]
struct Printed {
    stdout_tail: Bytes,
    stderr_tail: Bytes,
    stdout_digest: Option<reapi::Digest>,
    stderr_digest: Option<reapi::Digest>,
}

impl Printed {
    async fn of(job: &JobContext, result: &reapi::ActionResult) -> Self {
        let blobs = job.run.blobs.as_ref();
        let tail = |inline, digest| tail_to_show(blobs, inline, digest, OUTPUT_BYTES as u64);
        Self {
            stdout_tail: tail(&result.stdout_raw, result.stdout_digest.as_ref()).await,
            stderr_tail: tail(&result.stderr_raw, result.stderr_digest.as_ref()).await,
            stdout_digest: result.stdout_digest.clone(),
            stderr_digest: result.stderr_digest.clone(),
        }
    }
}

impl BatchReport {
    /// Reads the report of a batch that was asked to run `asked` of all the tests that are known.
    pub(super) async fn read(
        job: &JobContext,
        junit_path: &str,
        outcome: &v1::ExecutionOutcome,
        asked: &BTreeSet<&str>,
        known: &KnownIds,
    ) -> Self {
        let mut report = Self {
            otherwise: judge(outcome).err(),
            time_limit: job.job().timeout,
            batch_took: duration_of(outcome),
            ..Self::default()
        };
        match fetch(job, junit_path, outcome).await {
            Ok(Some(xml)) => match junit::parse(&String::from_utf8_lossy(&xml)) {
                Ok(read) => {
                    report.is_read = true;
                    report.take(read, asked, known);
                }
                Err(error) => report.refuse(format!("its JUnit report cannot be used: {error}")),
            },
            Ok(None) => report.refuse(format!("it wrote no JUnit report to `{junit_path}`")),
            Err(error) => {
                report.otherwise = Some((FailureClass::Infra, error));
            }
        }
        report.check(outcome, asked);
        report.untimed = times::untimed(asked, &report.cases, report.batch_took);
        let end = Unreported::of(outcome);
        report.out_of_time = (end == Some(Unreported::OutOfTime)).then_some(asked.len());
        report.unreported = end.filter(|end| report.is_unexplained(*end));
        let unreported = asked.iter().find(|id| !report.has(id));
        if let (Some(id), Some(result)) = (unreported, &outcome.result) {
            report.quoted = Some(((*id).to_owned(), Printed::of(job, result).await));
        }
        report
    }

    /// Whether there is a report that can be read.
    pub(super) const fn is_read(&self) -> bool {
        self.is_read
    }

    /// Whether it says of a test.
    pub(super) fn has(&self, id: &str) -> bool {
        self.cases.contains_key(id)
    }

    /// How the runner ended if one of the tests that are not reported may have ended it: for people, too.
    pub(super) fn unreported(&self) -> Option<(Unreported, &str)> {
        let (_, message) = self.otherwise.as_ref()?;
        Some((self.unreported?, message))
    }

    /// Whether it does not say which test ended a runner that ended like this, though one may have. What a runner leaves
    /// out that ends well, and reports others, it does not know.
    fn is_unexplained(&self, end: Unreported) -> bool {
        match self.is_read {
            false => !self.is_lost(),
            true => {
                let is_blameless = self.complaints.is_empty() && !self.has_failed();
                end != Unreported::Well && self.is_incomplete && is_blameless
            }
        }
    }

    fn has_failed(&self) -> bool {
        let mut cases = self.cases.values();
        cases.any(|case| matches!(case.status, CaseStatus::Failed(_)))
    }

    /// Whether the machines are to blame for what is not reported.
    fn is_lost(&self) -> bool {
        matches!(self.otherwise, Some((FailureClass::Infra, _)))
    }

    /// How long its tests ran; `None` if the report does not tell of all there was.
    pub(super) fn tests_took(&self) -> Option<Duration> {
        let is_whole = self.otherwise.is_none() && self.complaints.is_empty();
        let times = self.cases.values().filter_map(|case| case.time);
        is_whole.then(|| times.fold(Duration::ZERO, Duration::saturating_add))
    }

    fn refuse(&mut self, problem: String) {
        self.otherwise = Some(match self.otherwise.take() {
            Some((class, message)) => {
                let message = message.strip_prefix("it ").unwrap_or(&message);
                (class, format!("the runner {message}; {problem}"))
            }
            None => (
                FailureClass::Test,
                format!("the runner exited with code 0; {problem}"),
            ),
        });
    }

    fn take(&mut self, report: junit::Report, asked: &BTreeSet<&str>, known: &KnownIds) {
        let outside = report.errors.into_iter();
        self.complaints.extend(
            outside.map(|error| format!("the runner reported an error of no test: {error}")),
        );
        let contradictions = report.contradictions.into_iter();
        self.complaints.extend(
            contradictions
                .map(|detail| format!("the runner's report contradicts itself: {detail}")),
        );
        for case in report.cases {
            let id = match known.meant_by(&case) {
                StandsFor::One(id) if asked.contains(id.as_str()) => id,
                other => {
                    self.complaints.push(stranger(&case, other));
                    continue;
                }
            };
            if self.cases.insert(id.clone(), case).is_some() {
                self.twice.insert(id);
            }
        }
    }

    /// Compares how the runner ended with what it reported: one that fails for another reason than that tests do
    /// knows something that it did not report.
    fn check(&mut self, outcome: &v1::ExecutionOutcome, asked: &BTreeSet<&str>) {
        self.is_incomplete = asked.iter().any(|id| !self.has(id));
        let cases = self.cases.values();
        let failed = cases.filter(|case| matches!(case.status, CaseStatus::Failed(_)));
        let whole = WholeReport {
            failed: failed.clone().count(),
            is_ended_by_test: failed.clone().any(|case| case.ends_runner),
        };
        let Err((class, message)) = judge(outcome) else {
            return;
        };
        if self.is_incomplete || whole.explains(class, outcome) {
            return;
        }
        self.complaints.push(match whole.failed {
            0 => format!("the runner {message} though every test passed"),
            failed => format!(
                "the runner {message}, which is not how runners end because of failed tests, of which it reported \
                 {failed}: something else has failed, or it should exit with 1 if only tests have"
            ),
        });
    }

    /// Whether its passes may outlive the run. A complaint fails the suite this time; were the passes of
    /// its batch known the next time, nothing would run that could complain again.
    fn is_trusted(&self) -> bool {
        self.complaints.is_empty() && self.twice.is_empty() && !self.is_incomplete
    }

    /// The tests that another runner should run, because a test ended this one before it got to them: one
    /// that is reported as failed. Without such a test nobody knows which of them it was.
    pub(super) fn left<'a>(&self, asked: &BTreeSet<&'a str>) -> Vec<&'a str> {
        match self.has_failed() && self.complaints.is_empty() {
            true => asked.iter().copied().filter(|id| !self.has(id)).collect(),
            false => Vec::new(),
        }
    }

    /// The tests that are left run again: this report says nothing of them.
    pub(super) fn continued(&mut self) {
        self.is_continued = true;
    }

    /// Whether a test is left to another runner.
    pub(super) fn leaves(&self, id: &str) -> bool {
        self.is_continued && !self.has(id)
    }

    /// What the report says of one test.
    pub(super) fn judge(&self, id: &str) -> Judged {
        let Some(case) = self.cases.get(id) else {
            let (class, message) = self.otherwise.clone().unwrap_or_else(|| {
                (
                    FailureClass::Test,
                    format!("the runner did not report `{id}`"),
                )
            });
            let judged = self.judged(Err((class, message)), self.left_for(id), "");
            return match &self.quoted {
                Some((quoted, printed)) if quoted == id => Judged {
                    stdout_tail: printed.stdout_tail.clone(),
                    stderr_tail: printed.stderr_tail.clone(),
                    stdout_digest: printed.stdout_digest.clone(),
                    stderr_digest: printed.stderr_digest.clone(),
                    ..judged
                },
                _ => judged,
            };
        };
        let took = case.time.unwrap_or_else(|| self.left_for(id));
        if self.twice.contains(id) {
            let message = format!("the runner reported `{id}` twice");
            return self.judged(Err((FailureClass::Test, message)), took, &case.output);
        }
        let verdict = match &case.status {
            CaseStatus::Passed => self.in_time(case, Ended::Passed),
            CaseStatus::PassedAgain => self.in_time(case, Ended::PassedAgain),
            CaseStatus::Failed(message) if case.is_timeout => {
                Err((FailureClass::Timeout, message.clone()))
            }
            CaseStatus::Failed(message) => Err(self.why_failed(case, message, took)),
            CaseStatus::Skipped(reason) => Ok(Ended::Skipped(reason.clone())),
        };
        self.judged(verdict, took, &case.output)
    }

    fn judged(
        &self,
        verdict: Result<Ended, (FailureClass, String)>,
        duration: Duration,
        output: &str,
    ) -> Judged {
        let output = output.as_bytes();
        let tail = &output[output.len().saturating_sub(OUTPUT_BYTES)..];
        // A copy: a slice would keep the whole output in memory for as long as the result is.
        let stdout_tail = Bytes::copy_from_slice(tail);
        let cacheable = match &verdict {
            Ok(_) if !self.is_trusted() => None,
            Ok(Ended::Passed) => Some(reapi::ActionResult {
                stdout_raw: stdout_tail.clone(),
                ..Default::default()
            }),
            Ok(Ended::Skipped(reason)) => Some(cached_skip(reason)),
            Ok(Ended::PassedAgain) | Err(_) => None,
        };
        Judged {
            cacheable,
            verdict,
            note: String::new(),
            complaint: None,
            duration,
            exit_code: None,
            stdout_tail,
            stderr_tail: Bytes::new(),
            stdout_digest: None,
            stderr_digest: None,
        }
    }
}

/// What is wrong with a case that stands for none of the tests that its runner was asked to run.
fn stranger(case: &Case, other: StandsFor) -> String {
    let name = match other {
        StandsFor::Nothing => case.name.clone(),
        StandsFor::One(id) => id,
        StandsFor::Several(ids) => {
            let (class, name) = (&case.classname, &case.name);
            return format!(
                "the runner reported `{name}` of `{class}`, which may be any of the tests `{}`: give them other names",
                ids.join("`, `")
            );
        }
    };
    format!("the runner reported `{name}`, which it was not asked to run")
}

/// The report's bytes, if the runner wrote one.
pub(super) async fn fetch(
    job: &JobContext,
    junit_path: &str,
    outcome: &v1::ExecutionOutcome,
) -> Result<Option<Bytes>, String> {
    let files = outcome
        .result
        .iter()
        .flat_map(|result| &result.output_files);
    let Some(file) = files.into_iter().find(|file| file.path == junit_path) else {
        return Ok(None);
    };
    if !file.contents.is_empty() {
        return Ok(Some(file.contents.clone()));
    }
    let digest: Digest =
        required_digest(file.digest.as_ref(), "digest").map_err(|error| error.to_string())?;
    let bytes = read_all(job.run.blobs.as_ref(), &digest, MAX_REPORT_BYTES).await;
    bytes
        .map(Some)
        .map_err(|error| format!("the JUnit report cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(classname: &str, name: &str, status: CaseStatus) -> Case {
        Case {
            name: name.to_owned(),
            classname: classname.to_owned(),
            time: None,
            status,
            is_googletest: false,
            ends_runner: false,
            is_timeout: false,
            output: String::new(),
        }
    }

    fn report(cases: Vec<Case>) -> BatchReport {
        let mut report = BatchReport::default();
        let read = junit::Report {
            cases,
            ..junit::Report::default()
        };
        let asked = BTreeSet::from(["a", "b", "m::c"]);
        report.take(read, &asked, &KnownIds::of(asked.iter().copied()));
        report
    }

    fn exited_with(exit_code: i32) -> v1::ExecutionOutcome {
        let result = Some(reapi::ActionResult {
            exit_code,
            ..Default::default()
        });
        v1::ExecutionOutcome {
            kind: v1::OutcomeKind::Completed.into(),
            result,
            ..Default::default()
        }
    }

    #[track_caller]
    fn check(report: &BatchReport, id: &str, expected: Result<Ended, &str>) {
        let verdict = report.judge(id).verdict.map_err(|(_, message)| message);
        assert_eq!(verdict, expected.map_err(ToOwned::to_owned));
    }

    #[test]
    fn every_lie_is_named() {
        let report = report(vec![
            case("", "a", CaseStatus::Passed),
            case("", "a", CaseStatus::Passed),
            case("m", "c", CaseStatus::Passed),
            case("", "ghost", CaseStatus::Passed),
        ]);
        check(&report, "a", Err("the runner reported `a` twice"));
        check(&report, "b", Err("the runner did not report `b`"));
        check(&report, "m::c", Ok(Ended::Passed));
        assert_eq!(
            report.complaints,
            ["the runner reported `ghost`, which it was not asked to run"]
        );
    }

    #[test]
    fn a_report_that_counts_a_failure_and_shows_none_is_no_pass() {
        let xml = "<testsuite name='s' failures='1'><testcase name='a'/></testsuite>";
        let mut report = BatchReport::default();
        let asked = BTreeSet::from(["a"]);
        let known = KnownIds::of(asked.iter().copied());
        report.take(junit::parse(xml).expect("is a report"), &asked, &known);
        report.check(&exited_with(0), &asked);
        let said = "the runner's report contradicts itself: its suite `s` counts 1 failures or errors, and its test \
                    cases show 0";
        assert_eq!(report.complaints, [said]);
        assert!(report.judge("a").cacheable.is_none());
    }

    #[test]
    fn a_skip_is_no_pass() {
        let why = "not on this system".to_owned();
        let report = report(vec![case("", "a", CaseStatus::Skipped(why.clone()))]);
        check(&report, "a", Ok(Ended::Skipped(why)));
    }

    #[test]
    fn a_test_whose_time_was_over_is_told_apart() {
        let late = || case("", "a", CaseStatus::Failed("late".to_owned()));
        for (is_timeout, class) in [(true, FailureClass::Timeout), (false, FailureClass::Test)] {
            let report = report(vec![Case {
                is_timeout,
                ..late()
            }]);
            let verdict = report.judge("a").verdict;
            assert_eq!(verdict, Err((class, "late".to_owned())));
        }
    }

    #[test]
    fn what_ran_when_its_runner_was_ended_says_which_time_was_over() {
        let unknown = "the runner ended while this test ran".to_owned();
        let mut report = report(vec![Case {
            ends_runner: true,
            ..case("", "a", CaseStatus::Failed(unknown.clone()))
        }]);
        report.time_limit = Duration::from_secs(2);
        report.untimed = Some(("a".to_owned(), Duration::from_secs(1)));
        let judged = report.judge("a");
        let expected = Err((FailureClass::Test, unknown.clone()));
        assert_eq!((judged.verdict, judged.duration.as_secs()), (expected, 1));
        let mut check = |tests, took, class, message: &str| {
            report.out_of_time = tests;
            report.untimed = Some(("a".to_owned(), Duration::from_secs(took)));
            let expected = Err((class, message.to_owned()));
            assert_eq!(report.judge("a").verdict, expected);
        };
        let own = "it still ran when 2s were over, the job's timeout";
        check(Some(1), 1, FailureClass::Timeout, own);
        check(Some(3), 5, FailureClass::Timeout, own);
        let of_batch = "it still ran when the time of its batch was over: 3 tests with the job's timeout of 2s each";
        check(Some(3), 1, FailureClass::Timeout, of_batch);
        let nobody = format!(
            "{unknown}; with the start of its runner it took 2.0s, and the job's timeout is 2s"
        );
        check(None, 2, FailureClass::Test, &nobody);
    }

    #[test]
    fn a_failure_that_no_test_accounts_for_is_a_complaint() {
        let mut report = report(vec![case("", "a", CaseStatus::Passed)]);
        report.check(&exited_with(3), &BTreeSet::from(["a"]));
        assert_eq!(
            report.complaints,
            ["the runner exited with code 3 though every test passed"]
        );
        assert!(report.judge("a").cacheable.is_none());
    }

    #[test]
    fn only_a_batch_without_contradictions_is_cached() {
        let cases = |names: &[&str]| {
            let passed = |name: &&str| case("", name, CaseStatus::Passed);
            names.iter().map(passed).collect::<Vec<_>>()
        };
        let is_cached = |names: &[&str], errors: &[&str]| {
            let asked = BTreeSet::from(["a", "b"]);
            let errors = errors.iter().map(|&error| error.to_owned()).collect();
            let mut report = BatchReport::default();
            let read = junit::Report {
                cases: cases(names),
                errors,
                contradictions: Vec::new(),
            };
            report.take(read, &asked, &KnownIds::of(asked.iter().copied()));
            report.check(&exited_with(0), &asked);
            report.judge("a").cacheable.is_some()
        };
        assert!(is_cached(&["a", "b"], &[]));
        assert!(!is_cached(&["a"], &[]), "one is missing");
        assert!(!is_cached(&["a", "b", "b"], &[]), "one is there twice");
        assert!(!is_cached(&["a", "b", "ghost"], &[]), "one is invented");
        assert!(!is_cached(&["a", "b"], &["fixture"]), "an error of no test");
    }

    #[test]
    fn a_tail_does_not_keep_the_whole_output() {
        let output = "x".repeat(OUTPUT_BYTES * 8);
        let judged = BatchReport::default().judged(Ok(Ended::Passed), Duration::ZERO, &output);
        drop(judged.cacheable);
        let tail = judged.stdout_tail.try_into_mut().expect("is held once");
        assert_eq!(tail.len(), OUTPUT_BYTES);
        assert!(tail.capacity() < OUTPUT_BYTES * 2);
    }
}
