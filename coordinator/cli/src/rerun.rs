//! What of a run is done again.

use std::collections::{BTreeMap, BTreeSet};

use regatta_wire::v1;
use regatta_wire::v1::job::Kind;
use regatta_wire::v1::run_event::Event;

/// A suite of which more tests than these failed is done again whole, which finds what passed cached.
const MAX_CHOSEN_TESTS: usize = 10_000;

/// What the events of a run tell of it, as far as it matters here.
#[derive(Debug, Default)]
pub(crate) struct Story {
    spec: Option<v1::RunSpec>,
    passed_jobs: BTreeSet<String>,
    /// How each test of each job ended last.
    tests: BTreeMap<String, BTreeMap<String, v1::TestStatus>>,
    /// How many tests each job has.
    planned: BTreeMap<String, u32>,
    /// Suites of which something is wrong that is no test's fault.
    complained: BTreeSet<String>,
    /// Why the run as a whole is not good.
    reasons: Vec<String>,
}

impl Story {
    /// Takes the next event.
    pub(crate) fn take(&mut self, event: v1::RunEvent) {
        match event.event {
            Some(Event::RunStarted(started)) => self.spec = started.spec,
            Some(Event::JobFinished(job)) if job.status() == v1::JobStatus::Passed => {
                self.passed_jobs.insert(job.job);
            }
            Some(Event::SuitePlanned(suite)) => {
                self.planned.insert(suite.job, suite.planned);
            }
            Some(Event::TestsFinished(finished)) => {
                for result in finished.results {
                    if result.is_audit && result.status() == v1::TestStatus::Failed {
                        self.passed_jobs.remove(&result.job);
                    }
                    let status = result.status();
                    let tests = self.tests.entry(result.job).or_default();
                    tests.insert(result.test_id, status);
                }
            }
            Some(Event::SuiteComplained(complained)) => {
                // Its cached passes did not hold, though the job had passed.
                if complained.is_audit {
                    self.passed_jobs.remove(&complained.job);
                }
                self.complained.insert(complained.job);
            }
            Some(Event::RunFinished(finished)) if finished.verdict() != v1::Verdict::Releasable => {
                self.reasons = finished.reasons;
            }
            _ => {}
        }
    }

    /// Why the run as a whole is not good; empty if it is.
    pub(crate) fn reasons(&self) -> &[String] {
        &self.reasons
    }

    /// All of the run; `None` if its events do not say what it was.
    pub(crate) fn all(self) -> Option<v1::RunSpec> {
        self.spec
    }

    /// What did not pass, and what that needs: of a suite that told all of its tests, those that failed or were
    /// not reached; jobs that did not pass for another reason, whole. No jobs are left if everything passed.
    pub(crate) fn failed(mut self) -> Option<v1::RunSpec> {
        let mut spec = self.spec.take()?;
        let jobs = std::mem::take(&mut spec.jobs);
        let wanted = self.with_needs(&jobs);
        spec.jobs = jobs
            .into_iter()
            .filter(|job| wanted.contains(&job.name))
            .map(|job| self.without_passed_tests(job))
            .collect();
        Some(spec)
    }

    fn with_needs(&self, jobs: &[v1::Job]) -> BTreeSet<String> {
        let by_name: BTreeMap<_, _> = jobs.iter().map(|job| (job.name.as_str(), job)).collect();
        let names = jobs.iter().map(|job| &job.name);
        let mut open: Vec<&String> = names
            .filter(|name| !self.passed_jobs.contains(*name))
            .collect();
        let mut wanted = BTreeSet::new();
        while let Some(name) = open.pop() {
            if wanted.insert(name.clone())
                && let Some(job) = by_name.get(name.as_str())
            {
                open.extend(&job.needs);
                open.extend(job.inputs_from.iter().map(|from| &from.job));
            }
        }
        wanted
    }

    fn without_passed_tests(&self, mut job: v1::Job) -> v1::Job {
        let Some(Kind::Suite(suite)) = &mut job.kind else {
            return job;
        };
        // Runs of one test have names that no suite knows.
        if self.passed_jobs.contains(&job.name)
            || self.complained.contains(&job.name)
            || suite.repetition.is_some()
        {
            return job;
        }
        let tests = self.tests.get(&job.name);
        let told = tests.map_or(0, BTreeMap::len);
        // A run that lost its coordinator did not come to tell all of its tests.
        let planned = self.planned.get(&job.name);
        if planned.is_none_or(|planned| usize::try_from(*planned) != Ok(told)) {
            return job;
        }
        let failed = tests.into_iter().flatten().filter(|(_, status)| {
            matches!(
                status,
                v1::TestStatus::Failed
                    | v1::TestStatus::Quarantined
                    | v1::TestStatus::NotRun
                    | v1::TestStatus::Unspecified
            )
        });
        let failed: Vec<_> = failed.map(|(id, _)| id.clone()).collect();
        // None failed if the suite did so on its own: then what was chosen stays chosen.
        if !failed.is_empty() && failed.len() <= MAX_CHOSEN_TESTS {
            suite.only_tests = failed;
        }
        job
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(name: &str, needs: &[&str], kind: Kind) -> v1::Job {
        v1::Job {
            name: name.to_owned(),
            needs: needs.iter().map(ToString::to_string).collect(),
            kind: Some(kind),
            ..v1::Job::default()
        }
    }

    fn story(passed: &[&str], tests: &[(&str, &str, v1::TestStatus)]) -> Story {
        let planned = u32::try_from(tests.len()).expect("few");
        story_of(planned, passed, tests)
    }

    /// The suite `unit` has `planned` tests.
    fn story_of(planned: u32, passed: &[&str], tests: &[(&str, &str, v1::TestStatus)]) -> Story {
        let suite = || Kind::Suite(v1::Suite::default());
        let build = || Kind::Build(v1::Build::default());
        let spec = v1::RunSpec {
            jobs: vec![
                job("make", &[], build()),
                job("unit", &["make"], suite()),
                job("lint", &[], build()),
                job("slow", &["unit"], suite()),
            ],
            ..v1::RunSpec::default()
        };
        let finished = passed.iter().map(|name| {
            Event::JobFinished(v1::JobFinished {
                job: (*name).to_owned(),
                status: v1::JobStatus::Passed.into(),
                ..v1::JobFinished::default()
            })
        });
        let results = tests.iter().map(|(job, test, status)| v1::TestResult {
            job: (*job).to_owned(),
            test_id: (*test).to_owned(),
            status: (*status).into(),
            ..v1::TestResult::default()
        });
        let tests = Event::TestsFinished(v1::TestsFinished {
            results: results.collect(),
        });
        let mut story = Story::default();
        let started = Event::RunStarted(v1::RunStarted { spec: Some(spec) });
        let planned = Event::SuitePlanned(v1::SuitePlanned {
            job: "unit".to_owned(),
            planned,
            ..v1::SuitePlanned::default()
        });
        for event in [started, planned, tests].into_iter().chain(finished) {
            story.take(v1::RunEvent {
                event: Some(event),
                ..v1::RunEvent::default()
            });
        }
        story
    }

    fn again(story: Story) -> Vec<(String, Vec<String>)> {
        let jobs = story.failed().expect("it has begun").jobs;
        let only = |job: v1::Job| match job.kind {
            Some(Kind::Suite(suite)) => (job.name, suite.only_tests),
            _ => (job.name, Vec::new()),
        };
        jobs.into_iter().map(only).collect()
    }

    #[test]
    fn what_failed_is_done_again_with_what_it_needs() {
        use v1::TestStatus::{Cached, Failed, Flaky, NotRun, Passed, Skipped};
        let tests = [
            ("unit", "a", Passed),
            ("unit", "b", Failed),
            ("unit", "c", NotRun),
            ("unit", "d", Cached),
            ("unit", "e", Flaky),
            ("unit", "f", Skipped),
        ];
        let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let wanted = [
            ("make".to_owned(), owned(&[])),
            ("unit".to_owned(), owned(&["b", "c"])),
            // It was not reached: all of it is to be done.
            ("slow".to_owned(), owned(&[])),
        ];
        assert_eq!(again(story(&["make", "lint"], &tests)), wanted);
    }

    #[test]
    fn a_suite_that_did_not_come_to_tell_all_is_done_again_whole() {
        let tests = [("unit", "a", v1::TestStatus::Failed)];
        let whole = ("unit".to_owned(), Vec::new());
        assert!(again(story_of(3, &[], &tests)).contains(&whole));
        let one = ("unit".to_owned(), vec!["a".to_owned()]);
        assert!(again(story_of(1, &[], &tests)).contains(&one));
    }

    #[test]
    fn a_suite_that_something_is_wrong_with_is_done_again_whole() {
        let tests = [("unit", "a", v1::TestStatus::Failed)];
        for (passed, is_audit) in [(&[][..], false), (&["unit"][..], true)] {
            let mut story = story_of(1, passed, &tests);
            let complained = v1::SuiteComplained {
                job: "unit".to_owned(),
                is_audit,
                ..v1::SuiteComplained::default()
            };
            story.take(v1::RunEvent {
                event: Some(Event::SuiteComplained(complained)),
                ..v1::RunEvent::default()
            });
            assert!(again(story).contains(&("unit".to_owned(), Vec::new())));
        }
    }

    #[test]
    fn nothing_is_left_of_a_run_that_passed() {
        let all = ["make", "unit", "lint", "slow"];
        assert_eq!(again(story(&all, &[])), []);
        assert_eq!(again(story(&["make", "unit", "slow"], &[])).len(), 1);
        assert!(Story::default().failed().is_none());
    }
}
