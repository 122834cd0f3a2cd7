//! What the events of a run say of it, for a coordinator that goes on with it. Pure.
//!
//! Whatever was told is so: a job or a test that ended before a restart has ended, and nothing of it is
//! told or counted again.

mod progress;
mod suite;
mod unexplained;

use std::collections::{BTreeMap, BTreeSet};

use regatta_ledger::RunCounts;
use regatta_model::{RunId, Timestamp};
use regatta_wire::convert::timestamp_from_wire;
use regatta_wire::v1;
use regatta_wire::v1::run_event::Event;

use self::progress::is_progress;
pub(super) use self::suite::RecordedSuite;
use super::event::job_end_of;
use super::hits::RecordedHits;
use super::state::{JobEnd, JobStatus};
use super::suite::{Claim, Disagreement};
use super::tally::plus;
use super::tried::Tried;

/// What is recorded of a run.
#[derive(Debug, Default)]
pub(super) struct Recorded {
    /// The last event.
    last: u64,
    spec: Option<v1::RunSpec>,
    begun_at: Option<Timestamp>,
    started: BTreeMap<String, Timestamp>,
    /// Jobs that a slot has taken something of.
    leased: BTreeSet<String>,
    ended: BTreeMap<String, v1::JobFinished>,
    /// The attempts of each build that have failed and are followed by another.
    builds: BTreeMap<String, Tried>,
    suites: BTreeMap<String, RecordedSuite>,
    /// What whoever submitted the run was warned of.
    warnings: BTreeSet<String>,
    /// What other runs have left in the cache for it.
    pub(super) hits: RecordedHits,
    is_cancelled: bool,
    resumed_in_vain: VainResumptions,
    has_ended: bool,
}

/// How often a run was taken up since anything of it came to an end, and from when on.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct VainResumptions {
    pub(super) count: u32,
    /// When the first of them was.
    pub(super) since: Timestamp,
}

impl VainResumptions {
    fn add(&mut self, at: Option<Timestamp>) {
        if self.count == 0 {
            self.since = at.unwrap_or(Timestamp::EPOCH);
        }
        self.count += 1;
    }
}

impl Recorded {
    /// A run of which nothing has been told yet.
    pub(super) fn of(run: &RunId) -> Self {
        Self {
            hits: RecordedHits::of(run),
            ..Self::default()
        }
    }

    /// Takes in the next event.
    pub(super) fn take(&mut self, event: v1::RunEvent) {
        self.last = event.sequence;
        let time = event.time.as_ref();
        let time = time.and_then(|time| timestamp_from_wire(time).ok());
        let Some(event) = event.event else { return };
        self.hits.take(&event);
        if is_progress(&event) {
            self.resumed_in_vain = VainResumptions::default();
        }
        match event {
            Event::RunStarted(started) => {
                self.spec = started.spec;
                self.begun_at = time;
            }
            Event::RunResumed(_) => self.resumed_in_vain.add(time),
            Event::CancelRequested(_) => self.is_cancelled = true,
            Event::JobStarted(started) => {
                let time = time.unwrap_or(Timestamp::EPOCH);
                self.started.insert(started.job, time);
            }
            Event::JobLeased(leased) => {
                self.leased.insert(leased.job);
            }
            Event::JobFinished(finished) => {
                self.ended.insert(finished.job.clone(), finished);
            }
            Event::BuildRetried(retried) => {
                let failed = retried.attempt.unwrap_or_default();
                let tried = Tried::before(retried.next_attempt, failed.r#where.as_ref());
                self.builds.insert(failed.job, tried);
            }
            Event::SuitePlanned(planned) => {
                let suite = self.suites.entry(planned.job).or_default();
                suite.planned = Some(planned.planned);
                suite.plan = planned.plan.as_ref().and_then(|it| it.try_into().ok());
            }
            Event::SuiteComplained(complained) => {
                let suite = self.suites.entry(complained.job).or_default();
                match complained.is_audit {
                    true => suite.audit_complaints.push(complained.message),
                    false => suite.complaints.push(complained.message),
                }
            }
            Event::BatchUnexplained(batch) => {
                let suite = self.suites.entry(batch.job.clone()).or_default();
                suite.unexplained.take(batch);
            }
            Event::TestsFinished(finished) => {
                for result in finished.results {
                    let suite = self.suites.entry(result.job.clone()).or_default();
                    suite.take(&result);
                }
            }
            Event::TestRetried(retried) => {
                let result = retried.result.unwrap_or_default();
                let suite = self.suites.entry(result.job.clone()).or_default();
                suite.take_retry(result, retried.next_attempt);
            }
            Event::Warning(warning) if warning.job.is_empty() => {
                self.warnings.insert(warning.message);
            }
            Event::Warning(_)
            | Event::JobOutput(_)
            | Event::InfrastructureRetry(_)
            | Event::HitsAudited(_)
            | Event::HitsExecuted(_)
            | Event::TestSlow(_) => {}
            Event::RunFinished(_) => self.has_ended = true,
        }
    }

    pub(super) const fn last_sequence(&self) -> u64 {
        self.last
    }

    /// What the run was asked to do, unless its first event is lost.
    pub(super) const fn spec(&self) -> Option<&v1::RunSpec> {
        self.spec.as_ref()
    }

    /// When the run began, unless it has only just been submitted.
    pub(super) const fn begun_at(&self) -> Option<Timestamp> {
        self.begun_at
    }

    pub(super) const fn is_cancelled(&self) -> bool {
        self.is_cancelled
    }

    pub(super) const fn has_ended(&self) -> bool {
        self.has_ended
    }

    pub(super) const fn resumed_in_vain(&self) -> VainResumptions {
        self.resumed_in_vain
    }

    pub(super) fn started_at(&self, job: &str) -> Option<Timestamp> {
        self.started.get(job).copied()
    }

    /// The jobs that a slot has taken something of.
    pub(super) const fn leased(&self) -> &BTreeSet<String> {
        &self.leased
    }

    /// How a job ended, if it has.
    pub(super) fn end_of(&self, job: &str) -> Option<(JobEnd, &v1::JobFinished)> {
        let finished = self.ended.get(job)?;
        Some((job_end_of(finished), finished))
    }

    /// The attempts of a build that have failed already.
    pub(super) fn tried(&self, build: &str) -> Tried {
        self.builds.get(build).cloned().unwrap_or_default()
    }

    pub(super) fn suite(&self, job: &str) -> Option<&RecordedSuite> {
        self.suites.get(job)
    }

    pub(super) const fn warnings(&self) -> &BTreeSet<String> {
        &self.warnings
    }

    /// How many tests have failed by themselves.
    pub(super) fn failures(&self) -> u32 {
        let failed = self.suites.values().map(|suite| {
            let endings = suite.endings.values();
            endings.filter(|it| it.is_own_failure()).count()
        });
        u32::try_from(failed.sum::<usize>()).unwrap_or(u32::MAX)
    }

    /// Whether anything was executed for it.
    pub(super) fn has_executed(&self) -> bool {
        let ended = self.ended.values();
        self.suites.values().any(|suite| suite.has_executed)
            || ended.into_iter().any(|build| build.attempts > 0)
            || !self.builds.is_empty()
    }

    /// The cached passes and skips that were found not to hold.
    pub(super) fn disagreements(&self) -> Vec<Disagreement> {
        let suites = self.suites.iter();
        let found = suites.flat_map(|(job, suite)| {
            suite.audited.iter().map(|(test, ending)| Disagreement {
                job: job.clone(),
                test: test.clone(),
                claim: Claim::of(suite.endings.get(test)),
                ending: *ending,
            })
        });
        found.collect()
    }

    /// Results of tests that failed when their cached pass was looked into, and have no other.
    pub(super) fn failed_audits(&self) -> impl Iterator<Item = &v1::TestResult> {
        let suites = self.suites.values();
        suites.flat_map(|suite| suite.failed_audits.values())
    }

    /// What runners complained of when cached passes were executed again.
    pub(super) fn audit_complaints(&self) -> Vec<String> {
        let suites = self.suites.values();
        suites
            .flat_map(|suite| suite.audit_complaints.iter().cloned())
            .collect()
    }

    /// How a suite ends of which tests have been told and that is not taken up again.
    pub(super) fn told_of(&self, job: &str) -> Option<JobEnd> {
        let suite = self.suites.get(job).filter(|suite| suite.is_planned())?;
        let text =
            "it was under way when the coordinator was restarted, and was not taken up again";
        let end = JobEnd::without_tests(JobStatus::NotRun, None, text);
        Some(suite.completed(end))
    }

    /// The end of a job that came to nothing after a restart, with what had been told of its tests: what
    /// failed has failed.
    pub(super) fn completed(&self, job: &str, end: JobEnd) -> JobEnd {
        let told = self.suites.get(job).filter(|suite| suite.is_planned());
        match told {
            Some(suite) if end.counts == RunCounts::default() => suite.completed(end),
            Some(_) | None => end,
        }
    }

    /// What was told of all tests, with those that nothing was told of as not run.
    pub(super) fn counts(&self) -> RunCounts {
        let suites = self.suites.values().map(RecordedSuite::counts);
        suites.fold(RunCounts::default(), plus)
    }
}

#[cfg(test)]
mod tests {
    use regatta_model::{Digest, FailureClass};
    use regatta_wire::convert::timestamp_to_wire;

    use super::suite::ReplayError;
    use super::*;
    use crate::runs::tally::Tally;

    /// What is known after events of which each came a second after the other, from the first second on.
    fn recorded(events: Vec<Event>) -> Recorded {
        let mut recorded = Recorded::default();
        for (sequence, event) in (1..).zip(events) {
            let time = Timestamp::from_nanos(sequence * 1_000_000_000);
            recorded.take(v1::RunEvent {
                sequence,
                time: Some(timestamp_to_wire(time)),
                event: Some(event),
            });
        }
        recorded
    }

    fn planned(planned: u32) -> Event {
        Event::SuitePlanned(v1::SuitePlanned {
            job: "a".to_owned(),
            planned,
            ..Default::default()
        })
    }

    fn results(results: Vec<(&str, v1::TestStatus, bool)>) -> Event {
        let results = results
            .into_iter()
            .map(|(test, status, is_audit)| v1::TestResult {
                job: "a".to_owned(),
                test_id: test.to_owned(),
                status: status.into(),
                key: Some(Digest::of(test.as_bytes()).into()),
                is_audit,
                ..Default::default()
            });
        Event::TestsFinished(v1::TestsFinished {
            results: results.collect(),
        })
    }

    #[test]
    fn what_was_told_is_counted_and_the_rest_was_not_run() {
        let told = recorded(vec![
            planned(5),
            results(vec![
                ("passed", v1::TestStatus::Passed, false),
                ("failed", v1::TestStatus::Failed, false),
                ("cached", v1::TestStatus::Cached, false),
            ]),
        ]);
        let expected = RunCounts {
            planned: 5,
            passed: 1,
            failed: 1,
            cached: 1,
            not_run: 2,
            ..RunCounts::default()
        };
        assert_eq!(told.counts(), expected);
        assert_eq!((told.failures(), told.last_sequence()), (1, 2));
    }

    #[test]
    fn what_an_audit_told_takes_the_place_of_a_cached_pass() {
        let told = recorded(vec![results(vec![
            ("one", v1::TestStatus::Cached, false),
            ("other", v1::TestStatus::Cached, false),
            ("other", v1::TestStatus::Failed, true),
        ])]);
        let counts = told.counts();
        assert_eq!((counts.planned, counts.cached, counts.failed), (2, 1, 1));
        assert!(told.hits.has_pass("a", "one") && !told.hits.has_pass("a", "other"));
        assert_eq!(told.disagreements().len(), 1);
    }

    #[test]
    fn a_test_that_ended_and_is_gone_is_named() {
        let told = recorded(vec![results(vec![
            ("x", v1::TestStatus::Passed, false),
            ("y", v1::TestStatus::Passed, false),
        ])]);
        let suite = told.suite("a").expect("is recorded");
        let mut tally = Tally::new(2);
        let names = |names: [&str; 2]| names.map(str::to_owned);
        assert_eq!(suite.replay(&names(["y", "x"]), &mut tally), Ok(()));
        assert_eq!(tally.open_count(), 0);
        let error = suite.replay(&names(["y", "z"]), &mut Tally::new(2));
        let test = "x".to_owned();
        assert_eq!(error, Err(ReplayError::Stranger { test }));
        let fewer = recorded(vec![planned(3)]);
        let suite = fewer.suite("a").expect("is recorded");
        let error = suite.replay(&names(["x", "y"]), &mut Tally::new(2));
        let (planned, found) = (3, 2);
        assert_eq!(error, Err(ReplayError::OtherTests { planned, found }));
    }

    #[test]
    fn a_suite_that_ends_early_after_a_restart_keeps_what_failed() {
        let told = recorded(vec![
            planned(2),
            results(vec![("x", v1::TestStatus::Failed, false)]),
        ]);
        let lost = JobEnd::without_tests(JobStatus::Unknown, Some(FailureClass::Infra), "lost");
        let end = told.completed("a", lost.clone());
        assert_eq!(end.status, JobStatus::Failed);
        assert_eq!((end.counts.failed, end.counts.not_run), (1, 1));
        assert_eq!(told.completed("other", lost.clone()), lost);
        assert_eq!(told.told_of("a").map(|end| end.counts), Some(end.counts));
    }

    #[test]
    fn a_cached_pass_that_failed_once_is_not_forgotten() {
        let retried = |test: &str| {
            let failed = v1::TestResult {
                job: "a".to_owned(),
                test_id: test.to_owned(),
                status: v1::TestStatus::Failed.into(),
                ..Default::default()
            };
            Event::TestRetried(v1::TestRetried {
                result: Some(failed),
                next_attempt: 2,
            })
        };
        let cached = || results(vec![("x", v1::TestStatus::Cached, false)]);
        let told = recorded(vec![cached(), retried("x"), retried("y")]);
        let failed: Vec<_> = told.failed_audits().map(|it| &it.test_id).collect();
        assert_eq!(failed, ["x"]);
        let suite = told.suite("a").expect("is recorded");
        let attempts = ["x", "y"].map(|test| suite.tried(test).attempts);
        assert_eq!(attempts, [0, 1]);
        let ended = results(vec![("x", v1::TestStatus::Flaky, true)]);
        let told = recorded(vec![cached(), retried("x"), ended]);
        assert_eq!(told.failed_audits().count(), 0);
    }

    #[test]
    fn progress_ends_the_count_of_restarts() {
        let resumed = || Event::RunResumed(v1::RunResumed {});
        let told = recorded(vec![resumed(), planned(1), resumed(), resumed()]);
        let third = Timestamp::from_nanos(3_000_000_000);
        let vain = VainResumptions {
            count: 2,
            since: third,
        };
        assert_eq!(told.resumed_in_vain(), vain);
    }
}
