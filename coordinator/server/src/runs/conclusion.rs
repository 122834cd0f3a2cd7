//! What a run comes to. Pure.

use std::collections::BTreeMap;

use regatta_ledger::RunCounts;
use regatta_model::Verdict;
use regatta_verdict::Policy;

use super::suite::Disagreement;
use super::tally::{Ending, corrected};

/// Why a run that a person stopped has no answer.
pub(super) const CANCELLED: &str = "the run was cancelled";
/// Why a run whose jobs have passed has none.
const ALL_SKIPPED: &str = "every test was skipped";
/// What follows once it has been seen that some of it was only cached. An audit makes nothing RELEASABLE.
const SKIPS_DO_NOT_HOLD: &str = ", and cached skips do not hold: run it again";

/// How a run ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Conclusion {
    pub(crate) verdict: Verdict,
    pub(crate) reasons: Vec<String>,
    pub(crate) counts: RunCounts,
    /// What became of each suite, by its job's name.
    pub(crate) suites: BTreeMap<String, SuiteCounts>,
    pub(crate) cancelled: bool,
    /// Whether its own failures stopped it.
    pub(crate) failed_fast: bool,
}

/// What became of a suite.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SuiteCounts {
    pub(crate) counts: RunCounts,
    /// Whether the policy for releases names it.
    pub(crate) is_required: bool,
}

impl Conclusion {
    /// Whether the cached passes that it rests on may be looked into now.
    ///
    /// Not after a run that was stopped, by a person or by its failures: that is to end. Nor after one that the
    /// machines lost tests of, which they would only get more to do of. One that has failed is as good as one that has
    /// passed: where a pipeline is never green nothing else would find a wrong pass, and what is found is one more reason.
    pub(crate) fn may_be_audited(&self) -> bool {
        let was_stopped = self.cancelled || self.failed_fast;
        let is_known = self.verdict != Verdict::Unknown || self.is_merely_silent();
        !was_stopped && self.counts.not_run == 0 && is_known
    }

    /// Whether nothing else is wrong with it than that nothing ran where something has to: which may be due to the
    /// cache, if it has skips.
    fn is_merely_silent(&self) -> bool {
        !self.reasons.is_empty() && self.reasons == self.silences()
    }

    /// What may not pass for an answer though every job has passed: that no test says anything of the commit, or none
    /// of a suite that a release requires.
    pub(super) fn silences(&self) -> Vec<String> {
        let why = |counts: &RunCounts, without_tests: &str| {
            let why = match counts.planned {
                0 => without_tests,
                _ => ALL_SKIPPED,
            };
            has_no_answer(counts).then(|| why.to_owned())
        };
        if !self.suites.is_empty()
            && let Some(why) = why(&self.counts, "no test was selected")
        {
            return vec![why];
        }
        let required = self.suites.iter().filter(|(_, suite)| suite.is_required);
        let silent = required.filter_map(|(name, suite)| {
            let why = why(&suite.counts, "it has no tests")?;
            let said = format!("`{name}`, which the policy requires, has no answer: {why}");
            Some(said)
        });
        silent.collect()
    }

    /// The same if it was not a person who stopped the run: nothing is known that was not known before.
    pub(crate) fn stopped_by(mut self, reason: String) -> Self {
        self.reasons.insert(0, reason);
        self.cancelled = false;
        self.doubted()
    }

    /// The same if a person stopped the run while what it rests on was looked into.
    pub(crate) fn cancelled(mut self) -> Self {
        self.reasons.insert(0, CANCELLED.to_owned());
        self.cancelled = true;
        self.doubted()
    }

    /// The same without an answer to these questions of whoever submitted the run.
    pub(crate) fn without(mut self, unanswered: Vec<String>) -> Self {
        if unanswered.is_empty() {
            return self;
        }
        self.reasons.extend(unanswered);
        self.doubted()
    }

    fn doubted(mut self) -> Self {
        if self.verdict == Verdict::Releasable {
            self.verdict = Verdict::Unknown;
        }
        self
    }
}

impl Conclusion {
    /// The same if more tests are flaky or failed in quarantine than a release may have.
    pub(crate) fn within(mut self, policy: Option<&Policy>) -> Self {
        let counted = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
        let (flaky, quarantined) = (self.counts.flaky, self.counts.quarantined);
        let exceeded = policy.map(|policy| policy.exceeded(counted(flaky), counted(quarantined)));
        let exceeded: Vec<_> = exceeded.into_iter().flatten().collect();
        if !exceeded.is_empty() {
            self.verdict = Verdict::NotReleasable;
            self.reasons.extend(exceeded);
        }
        self
    }
}

impl Conclusion {
    /// The same with what became of cached passes and skips that did not hold.
    pub(crate) fn corrected_by(
        mut self,
        disagreements: &[Disagreement],
        complaints: Vec<String>,
    ) -> Self {
        let silences = if self.is_merely_silent() {
            self.reasons.len()
        } else {
            0
        };
        if !complaints.is_empty() {
            self.verdict = Verdict::NotReleasable;
            self.reasons.extend(complaints);
        }
        for disagreement in disagreements {
            let (claimed, ending) = (disagreement.claim.ending(), disagreement.ending);
            self.counts = corrected(self.counts, claimed, ending);
            if let Some(suite) = self.suites.get_mut(&disagreement.job) {
                suite.counts = corrected(suite.counts, claimed, ending);
            }
            if matches!(ending, Ending::Failed(_)) {
                self.verdict = Verdict::NotReleasable;
                self.reasons.push(disagreement.to_string());
            }
        }
        let left = self.silences();
        for reason in &mut self.reasons[..silences] {
            if !left.contains(reason) {
                reason.push_str(SKIPS_DO_NOT_HOLD);
            }
        }
        if !disagreements.is_empty() && self.reasons.is_empty() && !left.is_empty() {
            self.reasons = left;
            return self.doubted();
        }
        self
    }
}

/// Whether no test says anything of the commit.
const fn has_no_answer(counts: &RunCounts) -> bool {
    counts.planned == counts.skipped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_with_more_flaky_tests_than_a_release_may_have_is_not_releasable() {
        let conclusion = |flaky| Conclusion {
            verdict: Verdict::Releasable,
            reasons: Vec::new(),
            counts: RunCounts {
                planned: flaky,
                flaky,
                ..RunCounts::default()
            },
            suites: BTreeMap::new(),
            cancelled: false,
            failed_fast: false,
        };
        let policy = Policy {
            max_flaky: Some(1),
            ..Policy::default()
        };
        assert_eq!(conclusion(1).within(Some(&policy)), conclusion(1));
        assert_eq!(conclusion(2).within(None), conclusion(2));
        let exceeded = conclusion(2).within(Some(&policy));
        assert_eq!(exceeded.verdict, Verdict::NotReleasable);
        assert_eq!(
            exceeded.reasons,
            ["tests that are flaky: 2, and the policy allows 1 (max_flaky)"]
        );
    }
}
