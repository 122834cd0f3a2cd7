//! One test many times, to see how often it fails.

use regatta_wire::v1;

use crate::history::Rate;
use crate::terminal::visible;

/// Which test, and how often.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Repeat {
    /// Its id, whole.
    pub test: String,
    /// How often.
    pub times: u32,
}

impl Repeat {
    /// The run with this test alone, so often. It is no run of its commit: whoever looks for a rare failure has
    /// not made the commit any worse.
    #[must_use]
    pub fn applied_to(&self, mut spec: v1::RunSpec) -> v1::RunSpec {
        for job in &mut spec.jobs {
            if let Some(v1::job::Kind::Suite(suite)) = &mut job.kind {
                suite.repetition = Some(v1::Repetition {
                    test_id: self.test.clone(),
                    times: self.times,
                });
                suite.filters.clear();
                suite.quarantine.clear();
                job.retries = 0;
            }
        }
        v1::RunSpec {
            commit: String::new(),
            branch: String::new(),
            committed_at: None,
            policy: None,
            description: format!("regatta flake {}", self.test),
            ..spec
        }
    }

    /// How often the test failed, of the runs that have an answer.
    #[must_use]
    pub fn summary(&self, counts: &v1::Counts, lost: u64) -> String {
        let failed = u64::from(counts.failed).saturating_sub(lost);
        let runs = failed + u64::from(counts.passed);
        let rate = Rate::of(failed, runs);
        let percent = |share: f64| format!("{:.1}", 100.0 * share);
        format!(
            "{} failed {failed} of {runs} times: {} % (with 95 % confidence {} to {} %)",
            visible(&self.test),
            percent(rate.share),
            percent(rate.low),
            percent(rate.high)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_becomes_one_test_many_times_and_says_nothing_of_its_commit() {
        let suite = v1::Suite {
            filters: vec!["other".to_owned()],
            quarantine: vec![v1::QuarantinedTest::default()],
            ..v1::Suite::default()
        };
        let jobs = [
            v1::job::Kind::Build(v1::Build::default()),
            v1::job::Kind::Suite(suite),
        ];
        let jobs = jobs.map(|kind| v1::Job {
            kind: Some(kind),
            retries: 3,
            ..v1::Job::default()
        });
        let spec = v1::RunSpec {
            commit: "c".to_owned(),
            jobs: jobs.into(),
            ..v1::RunSpec::default()
        };
        let repeat = Repeat {
            test: "a::b".to_owned(),
            times: 7,
        };
        let spec = repeat.applied_to(spec);
        assert_eq!((spec.commit.as_str(), spec.jobs[0].retries), ("", 3));
        assert_eq!(spec.jobs[1].retries, 0);
        let Some(v1::job::Kind::Suite(suite)) = &spec.jobs[1].kind else {
            panic!("it is a suite")
        };
        assert!(suite.filters.is_empty() && suite.quarantine.is_empty());
        assert_eq!(suite.repetition.as_ref().expect("is set").times, 7);
    }

    #[test]
    fn what_never_failed_may_yet() {
        let repeat = Repeat {
            test: "t".to_owned(),
            times: 100,
        };
        let counts = v1::Counts {
            passed: 100,
            ..v1::Counts::default()
        };
        let words = "t failed 0 of 100 times: 0.0 % (with 95 % confidence 0.0 to 3.7 %)";
        assert_eq!(repeat.summary(&counts, 0), words);
        // What the machines lost is no failure of the test.
        let counts = v1::Counts {
            failed: 5,
            ..counts
        };
        assert_eq!(repeat.summary(&counts, 5), words);
    }
}
