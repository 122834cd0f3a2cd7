//! Tests that failed in one run of a commit and passed in another, with nothing changed (ADR 51).

use std::collections::BTreeMap;

use regatta_model::Digest;
use regatta_wire::v1;
use serde::{Deserialize, Serialize};

use crate::evidence::Evidence;

/// What an execution of a test was one of. Of two that are the same, a pass and a failure say that the test is flaky.
///
/// A key covers all that a test may depend on, its image by the content that agents were known to have; it does not if
/// that was not known, so that the image that it did run in counts as well.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Execution {
    key: Digest,
    /// The content of the image; empty without one.
    image: String,
}

impl Execution {
    /// `None` if a result does not say with which key.
    pub(crate) fn of(result: &v1::TestResult) -> Option<Self> {
        let place = match result.status() == v1::TestStatus::Cached {
            true => result.cached_where.as_ref(),
            false => result.r#where.as_ref(),
        };
        Some(Self {
            key: result.key.as_ref()?.try_into().ok()?,
            image: place.map(|it| it.image_id.clone()).unwrap_or_default(),
        })
    }
}

/// What failed in runs of one commit, at any attempt, and no machine is to blame for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Failures {
    runs: BTreeMap<Execution, String>,
}

impl Failures {
    /// Takes in a run's. Of several in which the same failed, the first to be taken in is named.
    pub fn take(&mut self, run: &str, evidence: &Evidence) {
        for execution in &evidence.failures {
            let runs = self.runs.entry(execution.clone());
            runs.or_insert_with(|| run.to_owned());
        }
    }

    /// The tests of a run that passed in it, and in another have failed.
    pub(crate) fn taken_back_by<'a>(
        &'a self,
        (run, evidence): (&'a str, &'a Evidence),
    ) -> impl Iterator<Item = FlakyAcrossRuns> + 'a {
        let suites = evidence.suites.iter();
        let tests = suites.flat_map(|(job, suite)| suite.tests.iter().map(move |it| (job, it)));
        tests.filter_map(move |(job, (test, ended))| {
            let has_passed = match ended.status {
                v1::TestStatus::Passed | v1::TestStatus::Cached => true,
                // One that is flaky in the run counts in any case.
                v1::TestStatus::Flaky
                | v1::TestStatus::Failed
                | v1::TestStatus::Skipped
                | v1::TestStatus::NotRun
                | v1::TestStatus::Quarantined
                | v1::TestStatus::Unspecified => false,
            };
            let failed_in = self.runs.get(ended.execution.as_ref()?);
            let failed_in = failed_in.filter(|failed_in| has_passed && *failed_in != run)?;
            Some(FlakyAcrossRuns {
                test: format!("{job} {test}"),
                failed_in: failed_in.clone(),
                passed_in: run.to_owned(),
            })
        })
    }
}

/// A test that failed in one run and passed in another, with the same key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FlakyAcrossRuns {
    /// `job test`, as it is called where it passed.
    pub test: String,
    /// The id of the run that it failed in, at one attempt at least.
    pub failed_in: String,
    /// The id of the run that it passed in, which speaks for the commit.
    pub passed_in: String,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use regatta_wire::v1::run_event::Event;
    use v1::FailureClass::{Cancelled, Infra, Oom, Test, Timeout};
    use v1::TestStatus::{Cached, Failed, Flaky, NotRun, Passed, Quarantined, Skipped};
    use v1::Verdict::{NotReleasable, Releasable};

    use super::*;
    use crate::evidence::tests::{gathered, run};
    use crate::{Judgement, Policy, sign_bundle, verify_bundle};

    /// How a test ended, and of which of two keys and images it was an execution.
    type Ended = (v1::TestStatus, v1::FailureClass, bool, bool);

    const NAMES: [&str; 3] = ["a", "b", "c"];

    fn changed(result: &mut v1::TestResult, (status, class, key, image): Ended) {
        result.status = status.into();
        result.failure_class = class.into();
        let key = format!("{} {key}", result.test_id);
        result.key = Some(Digest::of(key.as_bytes()).into());
        let place = Some(v1::Provenance {
            image_id: format!("sha256:{image}"),
            ..v1::Provenance::default()
        });
        if status == Cached {
            (result.cached_where, result.r#where) = (place, None);
        } else {
            result.r#where = place;
        }
    }

    fn ended(tests: &[Ended], verdict: v1::Verdict) -> Evidence {
        let counted = NAMES.iter().zip(tests);
        let counted = counted.map(|(name, (status, class, ..))| match class {
            Infra => (*name, NotRun),
            _ => (*name, *status),
        });
        let mut events = run(&counted.collect::<Vec<_>>(), verdict);
        for event in &mut events {
            if let Some(Event::TestsFinished(finished)) = &mut event.event {
                let results = finished.results.iter_mut().zip(tests);
                results.for_each(|(result, ended)| changed(result, *ended));
            }
        }
        gathered(&events).expect("is complete")
    }

    fn judged(speaker: Evidence, before: &[Evidence], max_flaky: Option<u32>) -> Judgement {
        let mut failures = Failures::default();
        for (index, run) in before.iter().enumerate() {
            failures.take(&format!("before {index}"), run);
        }
        let policy = Policy {
            max_flaky,
            ..Policy::default()
        };
        let speaker = ("now".to_owned(), speaker);
        Judgement::of_commit(speaker, Vec::new(), Some(policy), &failures)
    }

    fn test(statuses: Vec<v1::TestStatus>) -> impl Strategy<Value = Ended> {
        let classes = prop::sample::select(vec![Test, Timeout, Oom, Infra, Cancelled]);
        let drawn = (prop::sample::select(statuses), classes);
        (drawn, any::<bool>(), any::<bool>()).prop_map(|((status, class), key, image)| {
            let class = match status {
                Failed => class,
                Quarantined => Test,
                _ => v1::FailureClass::Unspecified,
            };
            (status, class, key, image)
        })
    }

    fn tests(statuses: Vec<v1::TestStatus>) -> impl Strategy<Value = Vec<Ended>> {
        prop::collection::vec(test(statuses), NAMES.len())
    }

    #[test]
    fn a_failure_that_a_later_run_takes_back_is_counted_and_named() {
        let of = |status| {
            ended(
                &[(status, v1::FailureClass::Unspecified, true, true)],
                Releasable,
            )
        };
        let failed = ended(&[(Failed, Test, true, true)], NotReleasable);
        let good = judged(of(Passed), std::slice::from_ref(&failed), Some(1));
        assert_eq!((good.verdict(), good.reasons()), (Releasable, &[][..]));
        let named = FlakyAcrossRuns {
            test: "check a".to_owned(),
            failed_in: "before 0".to_owned(),
            passed_in: "now".to_owned(),
        };
        assert_eq!(good.flaky_across_runs(), &BTreeSet::from([named]));
        let key = crate::SigningKey::generate().expect("random numbers");
        let said = verify_bundle(&sign_bundle(&good, &key), &key.public()).expect("is good");
        assert_eq!(said.verdict.flaky_tests, ["check a"]);
        assert_eq!(said.verdict.flaky_across_runs.len(), 1);

        let bad = judged(of(Cached), &[failed], Some(0));
        assert_eq!(bad.verdict(), NotReleasable);
        let words = "tests that are flaky: 1, and the policy allows 0 (max_flaky)";
        assert_eq!(bad.reasons(), [words]);
    }

    #[test]
    fn an_attempt_that_failed_before_its_run_was_stopped_counts() {
        let mut failed = v1::TestResult {
            job: "check".to_owned(),
            test_id: "a".to_owned(),
            ..v1::TestResult::default()
        };
        changed(&mut failed, (Failed, Test, true, true));
        let retried = Event::TestRetried(v1::TestRetried {
            result: Some(failed),
            next_attempt: 2,
        });
        let mut events = run(&[("a", NotRun)], v1::Verdict::Unknown);
        events.insert(
            1,
            v1::RunEvent {
                event: Some(retried),
                ..v1::RunEvent::default()
            },
        );
        let stopped = gathered(&events).expect("is complete");
        let now = ended(
            &[(Passed, v1::FailureClass::Unspecified, true, true)],
            Releasable,
        );
        let judged = judged(now, &[stopped], Some(0));
        assert_eq!(judged.verdict(), NotReleasable);
    }

    proptest! {
        /// Whatever ran before, and how often.
        #[test]
        fn what_failed_and_passed_with_one_key_in_one_image_is_flaky_and_nothing_else(
            now in tests(vec![Passed, Cached, Flaky, Skipped]),
            before in prop::collection::vec(
                tests(vec![Passed, Failed, Flaky, Skipped, Quarantined]), 0..4
            ),
            max_flaky in 0u32..3,
        ) {
            let has_failed = |(status, class, ..): &Ended| match status {
                Failed => !matches!(class, Infra | Cancelled),
                status => matches!(status, Flaky | Quarantined),
            };
            let failed = |test: usize, key: bool, image: bool| {
                let mut runs = before.iter().map(|run| run[test]);
                runs.any(|it| has_failed(&it) && (it.2, it.3) == (key, image))
            };
            let expected = now.iter().enumerate().filter(|(test, (status, _, key, image))| {
                match status {
                    Flaky => true,
                    status => *status != Skipped && failed(*test, *key, *image),
                }
            });
            let expected: BTreeSet<_> =
                expected.map(|(test, _)| format!("check {}", NAMES[test])).collect();
            let runs: Vec<_> = before.iter().map(|run| ended(run, NotReleasable)).collect();
            let judged = judged(ended(&now, Releasable), &runs, Some(max_flaky));
            prop_assert_eq!(judged.flaky_tests(), expected.clone());
            let is_good = expected.len() <= usize::try_from(max_flaky).expect("is small");
            prop_assert_eq!(judged.verdict() == Releasable, is_good);
        }
    }
}
