//! How far a run has come.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use regatta_wire::v1::{self, run_event::Event};

use super::shown_duration;

/// How far a run has come, counted from its events.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Tally {
    /// Tests planned so far; suites whose tests are not known yet are missing.
    pub planned: u64,
    /// Tests whose result is known, whatever it is.
    pub done: u64,
    /// Tests that failed.
    pub failed: u64,
    /// Those of them that nobody can tell of: the machines lost them, or somebody stopped them.
    pub lost: u64,
    /// Tests known from the cache.
    pub cached: u64,
    /// Those of them that were executed again, and passed.
    pub audited: u64,
    /// Jobs that have started and not ended.
    pub running: BTreeSet<String>,
    /// Jobs of the run.
    pub jobs: u64,
    /// Jobs that have ended.
    pub jobs_done: u64,
    /// Build jobs by how they ended.
    pub builds: BuildTally,
    /// Build jobs that failed, as far as anything can be told of them.
    pub failed_builds: u64,
    /// Suites that failed, likewise.
    pub failed_suites: u64,
    /// Whether a job ended in any other way than well.
    pub trouble: bool,
    /// What is more than its policy allows counts against the run, and has no failed test to show for it.
    policy: v1::Policy,
    /// Why the commit is not RELEASABLE only because the run is.
    pub says_less: Option<String>,
    /// Whether that is so because it is another's files that ran: a failure says nothing of the commit, either.
    pub is_of_other_files: bool,
    /// Tests that passed after they had failed, each with its job.
    flaky: Vec<String>,
    /// Tests that failed in quarantine, likewise.
    quarantined: Vec<String>,
    /// Set once the run has ended.
    pub finished: Option<v1::RunFinished>,
    /// Jobs that run a suite.
    suites: BTreeMap<String, SuiteTally>,
}

/// Build jobs by how they ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BuildTally {
    /// They succeeded.
    pub passed: u64,
    /// Their result was known.
    pub cached: u64,
    /// Those of them that failed before.
    pub flaky: u64,
    /// They failed.
    pub failed: u64,
    /// No answer could be had.
    pub unknown: u64,
    /// They did not run.
    pub not_run: u64,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct SuiteTally {
    planned: u64,
    done: u64,
    /// Something is wrong that is no test's fault.
    has_complaints: bool,
}

/// Whether a build passed after it had failed.
pub(super) fn is_flaky(finished: &v1::JobFinished) -> bool {
    finished.status() == v1::JobStatus::Passed && finished.attempts > 1
}

impl Tally {
    /// Takes the next event into account.
    pub fn event(&mut self, event: &v1::RunEvent) {
        match &event.event {
            Some(Event::RunStarted(started)) => self.run_started(started),
            Some(Event::JobStarted(started)) => {
                self.running.insert(started.job.clone());
            }
            Some(Event::SuitePlanned(planned)) => self.suite_planned(planned),
            Some(Event::TestsFinished(finished)) => {
                for result in &finished.results {
                    self.test_finished(result);
                }
            }
            Some(Event::SuiteComplained(complained)) => {
                let suite = self.suites.entry(complained.job.clone()).or_default();
                suite.has_complaints = true;
            }
            Some(Event::HitsAudited(audited)) => self.audited += u64::from(audited.agreed),
            Some(Event::JobFinished(finished)) => self.job_finished(finished),
            Some(Event::RunFinished(finished)) => self.finished = Some(finished.clone()),
            Some(
                Event::TestRetried(_)
                | Event::BuildRetried(_)
                | Event::JobOutput(_)
                | Event::InfrastructureRetry(_)
                | Event::RunResumed(_)
                | Event::HitsExecuted(_)
                | Event::BatchUnexplained(_)
                | Event::CancelRequested(_)
                | Event::Warning(_)
                | Event::TestSlow(_)
                | Event::JobLeased(_),
            )
            | None => {}
        }
    }

    /// Whether a job runs a suite.
    #[must_use]
    pub fn is_suite(&self, job: &str) -> bool {
        self.suites.contains_key(job)
    }

    /// Whether a suite's tests have already told why it ended as it did.
    #[must_use]
    pub fn is_told_by_tests(&self, finished: &v1::JobFinished) -> bool {
        let failed = finished.counts.is_some_and(|counts| counts.failed > 0);
        let suite = self.suites.get(&finished.job);
        let has_complaints = suite.is_some_and(|suite| suite.has_complaints);
        (failed && !has_complaints) || finished.message.is_empty()
    }

    fn run_started(&mut self, started: &v1::RunStarted) {
        let jobs = started.spec.as_ref().map_or(&[][..], |spec| &spec.jobs);
        self.jobs = jobs.len() as u64;
        let policy = started.spec.as_ref().and_then(|spec| spec.policy.clone());
        self.policy = policy.unwrap_or_default();
        self.says_less = started.spec.as_ref().and_then(says_less);
        self.is_of_other_files = started.spec.as_ref().is_some_and(|spec| spec.dirty);
        for job in jobs {
            if matches!(job.kind, Some(v1::job::Kind::Suite(_))) {
                self.suites.insert(job.name.clone(), SuiteTally::default());
            }
        }
    }

    fn suite_planned(&mut self, planned: &v1::SuitePlanned) {
        let suite = self.suites.entry(planned.job.clone()).or_default();
        self.planned += u64::from(planned.planned) - suite.planned.min(planned.planned.into());
        suite.planned = planned.planned.into();
    }

    fn test_finished(&mut self, result: &v1::TestResult) {
        match result.is_audit {
            // In the place of what was cached, which has been counted.
            true => {
                let was_cached = u64::from(!result.replaces_skip);
                self.cached = self.cached.saturating_sub(was_cached);
            }
            false => {
                self.done += 1;
                self.suites.entry(result.job.clone()).or_default().done += 1;
            }
        }
        let name = || format!("{} {}", result.job, result.test_id);
        match result.status() {
            v1::TestStatus::Failed => {
                self.failed += 1;
                let class = result.failure_class();
                let is_lost =
                    matches!(class, v1::FailureClass::Infra | v1::FailureClass::Cancelled);
                self.lost += u64::from(is_lost);
            }
            v1::TestStatus::Cached => self.cached += 1,
            v1::TestStatus::Flaky => self.flaky.push(name()),
            v1::TestStatus::Quarantined => self.quarantined.push(name()),
            v1::TestStatus::Passed
            | v1::TestStatus::Skipped
            | v1::TestStatus::NotRun
            | v1::TestStatus::Unspecified => {}
        }
    }

    fn job_finished(&mut self, finished: &v1::JobFinished) {
        self.running.remove(&finished.job);
        self.jobs_done += 1;
        self.trouble |= finished.status() != v1::JobStatus::Passed;
        let failed = u64::from(finished.status() == v1::JobStatus::Failed);
        if self.is_suite(&finished.job) {
            self.failed_suites += failed;
            return;
        }
        self.failed_builds += failed;
        self.builds.flaky += u64::from(is_flaky(finished));
        let count = match finished.status() {
            v1::JobStatus::Passed if finished.cached && !is_flaky(finished) => {
                &mut self.builds.cached
            }
            v1::JobStatus::Passed => &mut self.builds.passed,
            v1::JobStatus::Failed => &mut self.builds.failed,
            v1::JobStatus::Unknown | v1::JobStatus::Unspecified => &mut self.builds.unknown,
            v1::JobStatus::Cancelled | v1::JobStatus::NotRun => &mut self.builds.not_run,
        };
        *count += 1;
    }

    /// The tests of which there are more than the policy allows, by what they are.
    #[must_use]
    pub fn beyond_policy(&self) -> Vec<(&'static str, &[String])> {
        let limits = [
            ("flaky", &self.flaky, self.policy.max_flaky),
            (
                "quarantined",
                &self.quarantined,
                self.policy.max_quarantined,
            ),
        ];
        let is_beyond = |tests: &[String], most: Option<u32>| {
            most.is_some_and(|most| tests.len() as u64 > u64::from(most))
        };
        let beyond = limits
            .into_iter()
            .filter(|(_, tests, most)| is_beyond(tests, *most));
        beyond
            .map(|(what, tests, _)| (what, tests.as_slice()))
            .collect()
    }

    /// How long the run took, once it has ended.
    #[must_use]
    pub fn duration(&self) -> Duration {
        let finished = self.finished.as_ref();
        shown_duration(finished.and_then(|finished| finished.duration.as_ref()))
    }
}

/// What keeps a run from speaking for its commit, if it has one.
fn says_less(spec: &v1::RunSpec) -> Option<String> {
    /// Of a commit's id, enough to know it.
    const SHORT: usize = 12;
    if spec.commit.is_empty() {
        return None;
    }
    let commit = spec.commit.get(..SHORT).unwrap_or(&spec.commit);
    if spec.dirty {
        return Some(format!(
            "of these files, which are not those of commit {commit}"
        ));
    }
    let required = spec.policy.iter().flat_map(|it| &it.required_jobs);
    let is_here = |job: &String| !spec.chosen_tests && spec.jobs.iter().any(|it| it.name == *job);
    let lacking = required.filter(|job| !is_here(job));
    let lacking = lacking.map(|job| format!("`{job}`"));
    // Of another file than this run's.
    let of_commit = spec.commit_policy.iter().flat_map(|it| &it.required_jobs);
    let of_commit = of_commit.map(|job| format!("`{job}` of its own regatta.toml"));
    let lacking: Vec<_> = lacking.chain(of_commit).collect();
    let named = lacking.join(", ");
    (!lacking.is_empty()).then(|| {
        format!("of what has run: a release of commit {commit} requires {named}, with all tests")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_says_nothing_of_its_commit_says_so() {
        let job = |name: &str| v1::Job {
            name: name.to_owned(),
            ..v1::Job::default()
        };
        let spec = v1::RunSpec {
            commit: "0123456789abcdef".repeat(2) + "01234567",
            jobs: vec![job("lint")],
            policy: Some(v1::Policy {
                required_jobs: ["lint", "unit"].map(str::to_owned).into(),
                ..v1::Policy::default()
            }),
            ..v1::RunSpec::default()
        };
        let part =
            "of what has run: a release of commit 0123456789ab requires `unit`, with all tests";
        assert_eq!(says_less(&spec).as_deref(), Some(part));
        let whole = v1::RunSpec {
            jobs: vec![job("lint"), job("unit")],
            ..spec.clone()
        };
        assert_eq!(says_less(&whole), None);
        let of_other_file = v1::RunSpec {
            commit_policy: spec.policy.clone(),
            pipeline: "other.toml".to_owned(),
            ..whole.clone()
        };
        let said = says_less(&of_other_file).expect("it answers for no job of the commit's own");
        assert!(said.contains("`unit` of its own regatta.toml"), "{said}");
        let chosen = v1::RunSpec {
            chosen_tests: true,
            ..whole.clone()
        };
        let said = says_less(&chosen).expect("it answers for no job");
        assert!(said.contains("`lint`, `unit`"), "{said}");
        let dirty = v1::RunSpec {
            dirty: true,
            ..whole.clone()
        };
        let said = says_less(&dirty).expect("it has other files");
        assert!(said.starts_with("of these files"), "{said}");
        let none = v1::RunSpec {
            commit: String::new(),
            ..dirty
        };
        assert_eq!(says_less(&none), None);
    }

    #[test]
    fn tests_beyond_the_policy_are_known_by_name() {
        let ended = |status: v1::TestStatus, test: &str| v1::TestResult {
            job: "unit".to_owned(),
            test_id: test.to_owned(),
            status: status.into(),
            ..v1::TestResult::default()
        };
        let of = |max_flaky, max_quarantined| {
            let policy = v1::Policy {
                max_flaky,
                max_quarantined,
                ..v1::Policy::default()
            };
            let spec = v1::RunSpec {
                policy: Some(policy),
                ..v1::RunSpec::default()
            };
            let results = vec![
                ended(v1::TestStatus::Flaky, "a"),
                ended(v1::TestStatus::Passed, "b"),
                ended(v1::TestStatus::Quarantined, "c"),
            ];
            let mut tally = Tally::default();
            for event in [
                Event::RunStarted(v1::RunStarted { spec: Some(spec) }),
                Event::TestsFinished(v1::TestsFinished { results }),
            ] {
                tally.event(&v1::RunEvent {
                    event: Some(event),
                    ..v1::RunEvent::default()
                });
            }
            tally
        };
        assert_eq!(of(None, None).beyond_policy(), []);
        assert_eq!(of(Some(1), Some(1)).beyond_policy(), []);
        let (a, c) = (["unit a".to_owned()], ["unit c".to_owned()]);
        assert_eq!(of(Some(0), Some(1)).beyond_policy(), [("flaky", &a[..])]);
        let both = [("flaky", &a[..]), ("quarantined", &c[..])];
        assert_eq!(of(Some(0), Some(0)).beyond_policy(), both);
    }

    #[test]
    fn failed_tests_do_not_tell_of_a_complaint() {
        let finished = v1::JobFinished {
            job: "unit".to_owned(),
            message: "1 of 2 tests failed; the runner reported `ghost`".to_owned(),
            counts: Some(v1::Counts {
                failed: 1,
                ..v1::Counts::default()
            }),
            ..v1::JobFinished::default()
        };
        let mut tally = Tally::default();
        assert!(tally.is_told_by_tests(&finished));
        tally.event(&v1::RunEvent {
            event: Some(Event::SuiteComplained(v1::SuiteComplained {
                job: "unit".to_owned(),
                ..v1::SuiteComplained::default()
            })),
            ..v1::RunEvent::default()
        });
        assert!(!tally.is_told_by_tests(&finished));
    }

    #[test]
    fn what_an_audit_tells_takes_the_place_of_a_pass_or_of_a_skip() {
        let result = |status: v1::TestStatus, is_audit, replaces_skip| v1::TestResult {
            job: "unit".to_owned(),
            status: status.into(),
            is_audit,
            replaces_skip,
            ..v1::TestResult::default()
        };
        let mut tally = Tally::default();
        for (result, cached) in [
            (result(v1::TestStatus::Cached, false, false), 1),
            (result(v1::TestStatus::Skipped, false, false), 1),
            (result(v1::TestStatus::Passed, true, true), 1),
            (result(v1::TestStatus::Failed, true, false), 0),
        ] {
            let results = vec![result];
            tally.event(&v1::RunEvent {
                event: Some(Event::TestsFinished(v1::TestsFinished { results })),
                ..v1::RunEvent::default()
            });
            assert_eq!(tally.cached, cached);
        }
        assert_eq!(tally.done, 2);
    }
}
