//! What a release requires.

use std::collections::BTreeSet;

use regatta_model::Digest;
use regatta_wire::v1;
use serde::Serialize;

/// What must be known of a commit before it may be released: a file of the commit says so.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    /// How many tests at most may have failed before they passed; any number if `None`.
    pub max_flaky: Option<u32>,
    /// How many tests at most may have failed in quarantine; any number if `None`.
    pub max_quarantined: Option<u32>,
    /// Jobs that must have passed, with all of their tests.
    pub required_jobs: BTreeSet<String>,
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
    /// order, and `null` for any number.
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

    /// As messages have it.
    #[must_use]
    pub fn to_wire(&self) -> v1::Policy {
        v1::Policy {
            required_jobs: self.required_jobs.iter().cloned().collect(),
            max_flaky: self.max_flaky,
            max_quarantined: self.max_quarantined,
        }
    }
}

impl From<&v1::Policy> for Policy {
    fn from(policy: &v1::Policy) -> Self {
        Self {
            max_flaky: policy.max_flaky,
            max_quarantined: policy.max_quarantined,
            required_jobs: policy.required_jobs.iter().cloned().collect(),
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

    pub(crate) fn policies() -> impl Strategy<Value = Policy> {
        let limit = || prop::option::of(0u32..3);
        let jobs = prop::sample::subsequence(vec!["a", "b", "c"], 0..=3);
        (limit(), limit(), jobs).prop_map(|(max_flaky, max_quarantined, jobs)| Policy {
            max_flaky,
            max_quarantined,
            required_jobs: jobs.into_iter().map(str::to_owned).collect(),
        })
    }

    #[test]
    fn the_digest_is_of_a_text_that_anybody_can_write() {
        let policy = Policy {
            max_flaky: Some(2),
            max_quarantined: None,
            required_jobs: ["b", "a"].map(str::to_owned).into(),
        };
        let text = r#"{"maxFlaky":2,"maxQuarantined":null,"requiredJobs":["a","b"]}"#;
        assert_eq!(policy.digest(), Digest::of(text.as_bytes()));
        assert_eq!(Policy::from(&policy.to_wire()), policy);
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
