//! JUnit XML, for the systems that read it.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use quick_junit::{
    FlakyOrRerun, NonSuccessKind, Property, Report, TestCase, TestCaseStatus, TestRerun, TestSuite,
};
use regatta_wire::v1::{self, run_event::Event};

use super::{EventSink, Tally, class_name, shown_duration};
use crate::terminal::{visible, visible_lines};

/// What the only case of a build is called, and that of a suite without tests.
const BUILD: &str = "build";
const SUITE: &str = "suite";

/// Collects a run's results and writes them to a file in the end: a suite for each job.
///
/// A test or a build that failed and then passed has `flakyFailure` elements, one known from the cache has
/// the property `regatta.cached`, and one that overtook an attempt which did not end says so as its output. What
/// could not be told (class `infra`) is an `error`, everything else a `failure` whose `type` is its class.
#[derive(Debug)]
pub struct JunitReport {
    file: PathBuf,
    suites: BTreeMap<String, TestSuite>,
    retried: BTreeMap<(String, String), Vec<TestRerun>>,
    tally: Tally,
}

impl JunitReport {
    /// A report that will be in `file`; the directories above are made.
    #[must_use]
    pub fn new(file: PathBuf) -> Self {
        Self {
            file,
            suites: BTreeMap::new(),
            retried: BTreeMap::new(),
            tally: Tally::default(),
        }
    }

    fn add(&mut self, job: &str, case: TestCase) {
        self.suites
            .entry(job.to_owned())
            .or_insert_with(|| TestSuite::new(visible(job).as_ref()))
            .add_test_case(case);
    }

    fn test_finished(&mut self, result: &v1::TestResult) {
        let key = (result.job.clone(), result.test_id.clone());
        let mut reruns = self.retried.remove(&key).unwrap_or_default();
        if result.status() == v1::TestStatus::Flaky && reruns.is_empty() {
            reruns.push(rerun_by_its_runner());
        }
        // XML cannot hold every character: what is left out would make two tests one.
        let name = visible(&result.test_id);
        let mut case = TestCase::new(name.as_ref(), with_reruns(case_status(result), reruns));
        case.set_classname(visible(&result.job).as_ref())
            .set_time(shown_duration(result.duration.as_ref()));
        if result.status() == v1::TestStatus::Cached {
            case.add_property(Property::new("regatta.cached", "true"));
        }
        if let Some(place) = &result.r#where {
            let agent = visible(&place.agent_id);
            case.add_property(Property::new("regatta.agent", agent.as_ref()));
        }
        if result.status() == v1::TestStatus::Failed {
            if !result.stdout_tail.is_empty() {
                case.set_system_out_lossy(&result.stdout_tail);
            }
            if !result.stderr_tail.is_empty() {
                case.set_system_err_lossy(&result.stderr_tail);
            }
        }
        if result.status() == v1::TestStatus::Passed && !result.message.is_empty() {
            case.set_system_out(visible_lines(&result.message).as_ref());
        }
        if result.is_audit {
            self.take_out(&result.job, &result.test_id);
        }
        self.add(&result.job, case);
    }

    /// Takes a case out that another is to replace: a cached pass or skip.
    fn take_out(&mut self, job: &str, test: &str) {
        let Some(suite) = self.suites.get_mut(job) else {
            return;
        };
        let before = suite.test_cases.len();
        let name = visible(test);
        let is_it = |case: &&TestCase| case.name.as_str() == name;
        let skips = suite.test_cases.iter().filter(is_it);
        let skips = skips.filter(|case| matches!(case.status, TestCaseStatus::Skipped { .. }));
        suite.skipped -= skips.count();
        suite.test_cases.retain(|case| case.name.as_str() != name);
        suite.tests -= before - suite.test_cases.len();
    }

    fn test_retried(&mut self, retried: &v1::TestRetried) {
        let Some(result) = &retried.result else {
            return;
        };
        let outputs = [&result.stdout_tail, &result.stderr_tail];
        let rerun = rerun_of(
            result.failure_class(),
            shown_duration(result.duration.as_ref()),
            failure_message(result).as_deref(),
            outputs.map(|tail| tail.as_ref()),
        );
        let key = (result.job.clone(), result.test_id.clone());
        self.retried.entry(key).or_default().push(rerun);
    }

    fn build_retried(&mut self, retried: &v1::BuildRetried) {
        let Some(attempt) = &retried.attempt else {
            return;
        };
        let result = attempt.result.as_ref();
        let rerun = rerun_of(
            attempt.failure_class(),
            shown_duration(attempt.duration.as_ref()),
            Some(attempt.message.as_str()),
            [
                result.map_or(&[][..], |result| &result.stdout_raw),
                result.map_or(&[][..], |result| &result.stderr_raw),
            ],
        );
        let key = (attempt.job.clone(), BUILD.to_owned());
        self.retried.entry(key).or_default().push(rerun);
    }

    /// A build job is a suite of one; a suite that could not be listed has its failure as a case.
    fn job_finished(&mut self, finished: &v1::JobFinished) {
        let passed = finished.status() == v1::JobStatus::Passed;
        let suite = self.tally.is_suite(&finished.job);
        if suite && (passed || self.tally.is_told_by_tests(finished)) {
            return;
        }
        let name = if suite { SUITE } else { BUILD };
        let key = (finished.job.clone(), name.to_owned());
        let reruns = self.retried.remove(&key).unwrap_or_default();
        let mut case = TestCase::new(name, with_reruns(job_status(finished), reruns));
        case.set_classname(visible(&finished.job).as_ref())
            .set_time(shown_duration(finished.duration.as_ref()));
        if finished.cached {
            case.add_property(Property::new("regatta.cached", "true"));
        }
        self.add(&finished.job, case);
    }

    fn report(&mut self) -> Report {
        let mut report = Report::new("regatta");
        report.set_time(self.tally.duration());
        report.add_test_suites(std::mem::take(&mut self.suites).into_values());
        report
    }
}

impl EventSink for JunitReport {
    fn event(&mut self, event: &v1::RunEvent) -> io::Result<()> {
        self.tally.event(event);
        match &event.event {
            Some(Event::TestsFinished(finished)) => {
                for result in &finished.results {
                    self.test_finished(result);
                }
            }
            Some(Event::TestRetried(retried)) => self.test_retried(retried),
            Some(Event::BuildRetried(retried)) => self.build_retried(retried),
            Some(Event::JobFinished(finished)) => self.job_finished(finished),
            Some(
                Event::RunStarted(_)
                | Event::JobStarted(_)
                | Event::JobLeased(_)
                | Event::SuitePlanned(_)
                | Event::HitsAudited(_)
                | Event::HitsExecuted(_)
                | Event::BatchUnexplained(_)
                | Event::RunResumed(_)
                | Event::CancelRequested(_)
                | Event::SuiteComplained(_)
                | Event::JobOutput(_)
                | Event::InfrastructureRetry(_)
                | Event::Warning(_)
                | Event::TestSlow(_)
                | Event::RunFinished(_),
            )
            | None => {}
        }
        Ok(())
    }

    /// Writes the file, whole or not at all.
    fn finish(&mut self) -> io::Result<()> {
        let text = self.report().to_string().map_err(io::Error::other)?;
        let written = crate::files::write_atomically(&self.file, text.as_bytes());
        written.map_err(|error| {
            let message = format!("the JUnit report {}: {error}", self.file.display());
            io::Error::new(error.kind(), message)
        })
    }
}

fn case_status(result: &v1::TestResult) -> TestCaseStatus {
    match result.status() {
        v1::TestStatus::Passed | v1::TestStatus::Cached | v1::TestStatus::Flaky => {
            TestCaseStatus::success()
        }
        v1::TestStatus::Skipped | v1::TestStatus::NotRun | v1::TestStatus::Quarantined => {
            let mut status = TestCaseStatus::skipped();
            if !result.message.is_empty() {
                status.set_message(visible_lines(&result.message).as_ref());
            }
            status
        }
        v1::TestStatus::Failed | v1::TestStatus::Unspecified => {
            let mut status = TestCaseStatus::non_success(kind_of(result.failure_class()));
            status
                .set_type(class_name(result.failure_class()))
                .set_rerun_kind(FlakyOrRerun::Rerun);
            if let Some(message) = failure_message(result) {
                explain(&mut status, &message);
            }
            status
        }
    }
}

fn with_reruns(mut status: TestCaseStatus, reruns: Vec<TestRerun>) -> TestCaseStatus {
    if !matches!(status, TestCaseStatus::Skipped { .. }) {
        status.add_reruns(reruns);
    }
    status
}

fn job_status(finished: &v1::JobFinished) -> TestCaseStatus {
    let kind = match finished.status() {
        v1::JobStatus::Passed => return TestCaseStatus::success(),
        v1::JobStatus::Cancelled | v1::JobStatus::NotRun => return TestCaseStatus::skipped(),
        v1::JobStatus::Failed => kind_of(finished.failure_class()),
        v1::JobStatus::Unknown | v1::JobStatus::Unspecified => NonSuccessKind::Error,
    };
    let mut status = TestCaseStatus::non_success(kind);
    status
        .set_type(class_name(finished.failure_class()))
        .set_rerun_kind(FlakyOrRerun::Rerun);
    explain(&mut status, &finished.message);
    status
}

/// An attempt that failed and was followed by another; what it wrote to standard output and error output.
fn rerun_of(
    class: v1::FailureClass,
    duration: Duration,
    message: Option<&str>,
    [stdout, stderr]: [&[u8]; 2],
) -> TestRerun {
    let mut rerun = TestRerun::new(kind_of(class));
    rerun.set_type(class_name(class)).set_time(duration);
    if let Some(message) = message {
        let message = &visible_lines(message);
        let (first_line, whole) = lines_of(message);
        rerun.set_message(first_line);
        if let Some(whole) = whole {
            rerun.set_description(whole);
        }
    }
    if !stdout.is_empty() {
        rerun.set_system_out_lossy(stdout);
    }
    if !stderr.is_empty() {
        rerun.set_system_err_lossy(stderr);
    }
    rerun
}

/// An attempt of which a runner says no more than that there was one.
fn rerun_by_its_runner() -> TestRerun {
    let message = "it failed, and its runner ran it again until it passed";
    let class = v1::FailureClass::Test;
    rerun_of(class, Duration::ZERO, Some(message), [&[], &[]])
}

fn explain(status: &mut TestCaseStatus, message: &str) {
    let message = &visible_lines(message);
    let (first_line, whole) = lines_of(message);
    status.set_message(first_line);
    if let Some(whole) = whole {
        status.set_description(whole);
    }
}

/// A message's first line, and all of it if it has more: that is an element's text, since readers of XML
/// make a line of what is in an attribute.
fn lines_of(message: &str) -> (&str, Option<&str>) {
    let message = message.trim_end();
    let first_line = message.lines().next().unwrap_or_default();
    (first_line, Some(message).filter(|_| first_line != message))
}

fn kind_of(class: v1::FailureClass) -> NonSuccessKind {
    match class {
        v1::FailureClass::Infra | v1::FailureClass::Cancelled => NonSuccessKind::Error,
        v1::FailureClass::Test
        | v1::FailureClass::Timeout
        | v1::FailureClass::Oom
        | v1::FailureClass::Unspecified => NonSuccessKind::Failure,
    }
}

fn failure_message(result: &v1::TestResult) -> Option<String> {
    match (result.message.as_str(), result.exit_code) {
        ("", code) => code.map(|code| format!("exit code {code}")),
        (message, _) => Some(message.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::recorded;
    use super::*;

    fn written(events: &[v1::RunEvent]) -> String {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("deep/junit.xml");
        let mut report = JunitReport::new(file.clone());
        for event in events {
            report.event(event).expect("memory takes it");
        }
        report.finish().expect("it is written");
        std::fs::read_to_string(file).expect("it is there")
    }

    #[test]
    fn tests_have_their_class_their_output_and_their_flaky_attempts() {
        assert_eq!(
            written(&recorded::mixed_run()),
            include_str!("junit/mixed_run.xml")
        );
    }

    #[test]
    fn what_a_runner_ran_again_by_itself_is_flaky_here_too() {
        let result = v1::TestResult {
            job: "check".to_owned(),
            test_id: "a".to_owned(),
            status: v1::TestStatus::Flaky.into(),
            ..v1::TestResult::default()
        };
        let finished = v1::TestsFinished {
            results: vec![result],
        };
        let event = v1::RunEvent {
            event: Some(Event::TestsFinished(finished)),
            ..v1::RunEvent::default()
        };
        let report = written(&[event]);
        assert!(report.contains("<flakyFailure"), "{report}");
        assert!(report.contains("its runner ran it again"), "{report}");
    }

    #[test]
    fn builds_are_suites_of_one() {
        assert_eq!(
            written(&recorded::build_run()),
            include_str!("junit/build_run.xml")
        );
    }
}
