//! What a release requires.

use std::collections::BTreeSet;
use std::fmt;

use regatta_model::Digest;
use regatta_wire::v1;
use serde::{Deserialize, Serialize};

/// What must be known of a commit before it may be released: a file of the commit says so.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    /// How many tests at most may have failed before they passed; any number if `None`.
    pub max_flaky: Option<u32>,
    /// How many tests at most may have failed in quarantine; any number if `None`.
    pub max_quarantined: Option<u32>,
    /// Jobs that must have passed, with all of their tests.
    pub required_jobs: BTreeSet<RequiredJob>,
}

/// A job that must have passed. Another file's job is another one, whatever its name is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(from = "Stated", into = "Stated")]
pub struct RequiredJob {
    /// The file that says what it does, from the commit's root; empty for the commit's own `regatta.toml`.
    pub pipeline: String,
    /// Its name there.
    pub job: String,
}

impl RequiredJob {
    /// One of the commit's own file.
    #[must_use]
    pub const fn own(job: String) -> Self {
        Self {
            pipeline: String::new(),
            job,
        }
    }
}

/// As statements have it: those of the commit's own file by name.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Stated {
    Own(String),
    OfFile { job: String, pipeline: String },
}

impl From<Stated> for RequiredJob {
    fn from(stated: Stated) -> Self {
        match stated {
            Stated::Own(job) => Self::own(job),
            Stated::OfFile { job, pipeline } => Self { pipeline, job },
        }
    }
}

impl From<RequiredJob> for Stated {
    fn from(RequiredJob { pipeline, job }: RequiredJob) -> Self {
        match pipeline.is_empty() {
            true => Self::Own(job),
            false => Self::OfFile { job, pipeline },
        }
    }
}

/// `JOB`, or `JOB of FILE`.
impl fmt::Display for RequiredJob {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pipeline, job } = self;
        match pipeline.is_empty() {
            true => write!(formatter, "{job}"),
            false => write!(formatter, "{job} of {pipeline}"),
        }
    }
}

impl Policy {
    /// All that both require.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.required_jobs.extend(other.required_jobs);
        Self {
            max_flaky: least(self.max_flaky, other.max_flaky),
            max_quarantined: least(self.max_quarantined, other.max_quarantined),
            required_jobs: self.required_jobs,
        }
    }

    /// Of `{"maxFlaky":N,"maxQuarantined":N,"requiredJobs":["A","B"]}`: JSON without spaces, the names in
    /// order, and `null` for any number. Jobs of other files than the commit's own come last, by file and
    /// name, as `{"job":"A","pipeline":"FILE"}`.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(serde_json::json!(self).to_string().as_bytes())
    }

    /// Which limits so many tests exceed, for people.
    pub fn exceeded(&self, flaky: usize, quarantined: usize) -> impl Iterator<Item = String> {
        let limits = [
            (flaky, self.max_flaky, "are flaky", "max_flaky"),
            (
                quarantined,
                self.max_quarantined,
                "failed in quarantine",
                "max_quarantined",
            ),
        ];
        limits.into_iter().filter_map(|(count, most, what, key)| {
            let most =
                most.filter(|most| u32::try_from(count).map_or(true, |count| count > *most))?;
            Some(format!(
                "tests that {what}: {count}, and the policy allows {most} ({key})"
            ))
        })
    }

    /// As messages have it, where a run names the file of all jobs.
    #[must_use]
    pub fn to_wire(&self) -> v1::Policy {
        let jobs = self.required_jobs.iter();
        v1::Policy {
            required_jobs: jobs.map(|required| required.job.clone()).collect(),
            max_flaky: self.max_flaky,
            max_quarantined: self.max_quarantined,
        }
    }

    /// What a run's file requires, and what its commit's own does if that is another, if they say so.
    #[must_use]
    pub fn of_run(spec: &v1::RunSpec) -> Option<Self> {
        let of_file = spec.policy.as_ref().map(Self::own);
        let of_file = of_file.map(|policy| policy.of_pipeline(&spec.pipeline));
        let of_commit = spec.commit_policy.as_ref().map(Self::own);
        match (of_file, of_commit) {
            (Some(of_file), Some(of_commit)) => Some(of_file.and(of_commit)),
            (of_file, of_commit) => of_file.or(of_commit),
        }
    }

    fn own(policy: &v1::Policy) -> Self {
        let jobs = policy.required_jobs.iter().cloned();
        Self {
            max_flaky: policy.max_flaky,
            max_quarantined: policy.max_quarantined,
            required_jobs: jobs.map(RequiredJob::own).collect(),
        }
    }

    /// The same, said by another file of the commit.
    #[must_use]
    pub fn of_pipeline(self, pipeline: &str) -> Self {
        let jobs = self.required_jobs.into_iter();
        let required_jobs = jobs.map(|required| RequiredJob {
            pipeline: pipeline.to_owned(),
            ..required
        });
        Self {
            required_jobs: required_jobs.collect(),
            ..self
        }
    }
}

/// The limit that both keep, where `None` is no limit.
fn least(one: Option<u32>, other: Option<u32>) -> Option<u32> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// Whether a run's own file requires this job of it, and it was asked for all of it.
#[must_use]
pub fn is_required(spec: &v1::RunSpec, job: &v1::Job) -> bool {
    let mut required = spec.policy.iter().flat_map(|it| &it.required_jobs);
    required.any(|name| *name == job.name) && is_whole(spec, job)
}

/// Whether all tests of a job were wanted, of those that its project means.
pub(crate) fn is_whole(spec: &v1::RunSpec, job: &v1::Job) -> bool {
    match &job.kind {
        Some(v1::job::Kind::Suite(suite)) => {
            !spec.chosen_tests && suite.only_tests.is_empty() && suite.repetition.is_none()
        }
        Some(v1::job::Kind::Build(_)) | None => true,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn own(job: &str) -> RequiredJob {
        RequiredJob::own(job.to_owned())
    }

    pub(crate) fn policies() -> impl Strategy<Value = Policy> {
        let limit = || prop::option::of(0u32..3);
        let jobs = prop::sample::subsequence(vec!["a", "b", "c"], 0..=3);
        (limit(), limit(), jobs).prop_map(|(max_flaky, max_quarantined, jobs)| Policy {
            max_flaky,
            max_quarantined,
            required_jobs: jobs.into_iter().map(own).collect(),
        })
    }

    #[test]
    fn the_digest_is_of_a_text_that_anybody_can_write() {
        let policy = Policy {
            max_flaky: Some(2),
            max_quarantined: None,
            required_jobs: ["b", "a"].map(own).into(),
        };
        let text = r#"{"maxFlaky":2,"maxQuarantined":null,"requiredJobs":["a","b"]}"#;
        assert_eq!(policy.digest(), Digest::of(text.as_bytes()));
        let spec = v1::RunSpec {
            policy: Some(policy.to_wire()),
            pipeline: "sub/regatta.toml".to_owned(),
            ..v1::RunSpec::default()
        };
        let elsewhere = Policy::of_run(&spec).expect("it has one");
        assert_eq!(elsewhere, policy.clone().of_pipeline("sub/regatta.toml"));
        let text = r#"{"maxFlaky":2,"maxQuarantined":null,"requiredJobs":["a","b",{"job":"a","pipeline":"sub/regatta.toml"},{"job":"b","pipeline":"sub/regatta.toml"}]}"#;
        let with_own = v1::RunSpec {
            commit_policy: spec.policy.clone(),
            ..spec
        };
        let both = elsewhere.and(policy);
        assert_eq!(Policy::of_run(&with_own), Some(both.clone()));
        assert_eq!(both.digest(), Digest::of(text.as_bytes()));
        let read: BTreeSet<RequiredJob> =
            serde_json::from_value(serde_json::json!(both.required_jobs)).expect("it is read");
        assert_eq!(read, both.required_jobs);
    }

    #[test]
    fn a_limit_may_be_reached_and_not_exceeded() {
        let policy = Policy {
            max_flaky: Some(1),
            max_quarantined: Some(0),
            ..Policy::default()
        };
        assert_eq!(policy.exceeded(1, 0).count(), 0);
        let both: Vec<_> = policy.exceeded(2, 1).collect();
        assert_eq!(
            both,
            [
                "tests that are flaky: 2, and the policy allows 1 (max_flaky)",
                "tests that failed in quarantine: 1, and the policy allows 0 (max_quarantined)"
            ]
        );
        assert_eq!(Policy::default().exceeded(9, 9).count(), 0);
    }

    proptest! {
        #[test]
        fn several_policies_are_one_in_any_order(
            one in policies(), two in policies(), three in policies(), flaky in 0usize..4
        ) {
            let both = one.clone().and(two.clone());
            prop_assert_eq!(&both, &two.clone().and(one.clone()));
            prop_assert_eq!(&one.clone().and(one.clone()), &one);
            let all = both.clone().and(three.clone());
            prop_assert_eq!(&all, &one.clone().and(two.clone().and(three)));
            let exceeds = |policy: &Policy| policy.exceeded(flaky, flaky).count() > 0;
            prop_assert_eq!(exceeds(&both), exceeds(&one) || exceeds(&two));
            prop_assert_eq!(one == two, one.digest() == two.digest());
        }
    }
}
