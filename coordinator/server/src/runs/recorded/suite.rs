//! What is recorded of a suite.

use std::collections::BTreeMap;

use regatta_ledger::RunCounts;
use regatta_model::{Digest, FailureClass, PlantedBug};
use regatta_wire::v1;

use super::unexplained::UnexplainedBatches;
use crate::runs::event::test_ending_of;
use crate::runs::state::{JobEnd, JobStatus};
use crate::runs::tally::{Ending, Tally, one, plus};
use crate::runs::tried::Tried;

/// What is recorded of a suite.
#[derive(Debug, Default)]
pub(in crate::runs) struct RecordedSuite {
    pub(super) planned: Option<u32>,
    pub(super) plan: Option<Digest>,
    pub(super) endings: BTreeMap<String, Ending>,
    /// The attempts of tests that are to be tried again.
    tried: BTreeMap<String, Tried>,
    pub(super) complaints: Vec<String>,
    pub(super) unexplained: UnexplainedBatches,
    /// Tests whose cached pass did not hold, with how they ended instead.
    pub(super) audited: BTreeMap<String, Ending>,
    /// Tests that failed when their cached pass was looked into, and were to be tried again.
    pub(super) failed_audits: BTreeMap<String, v1::TestResult>,
    pub(super) audit_complaints: Vec<String>,
    pub(super) has_executed: bool,
}

/// A suite whose recorded tests are not those that it has.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(in crate::runs) enum ReplayError {
    /// One that ended is gone.
    #[error(
        "`{test}` ended before the coordinator was restarted, and is not among the suite's tests now"
    )]
    Stranger { test: String },
    /// There are others.
    #[error(
        "the suite had {planned} tests before the coordinator was restarted, and has {found} now"
    )]
    OtherTests { planned: u32, found: usize },
}

impl RecordedSuite {
    pub(super) fn take(&mut self, result: &v1::TestResult) {
        let (name, ending) = (result.test_id.clone(), test_ending_of(result));
        if result.is_audit {
            self.failed_audits.remove(&name);
            self.audited.insert(name, ending);
            return;
        }
        self.has_executed |= result.attempts > 0;
        self.unexplained.ended(&name, ending);
        self.endings.insert(name, ending);
    }

    pub(super) fn take_retry(&mut self, failed: v1::TestResult, next_attempt: u32) {
        self.has_executed = true;
        let known = self.endings.get(&failed.test_id);
        if matches!(known, Some(Ending::Cached | Ending::Skipped)) {
            self.failed_audits.insert(failed.test_id.clone(), failed);
            return;
        }
        self.unexplained.failed(&failed.test_id);
        let tried = Tried::before(next_attempt, failed.r#where.as_ref());
        self.tried.insert(failed.test_id, tried);
    }

    /// Whether its tests have been told of.
    pub(in crate::runs) const fn is_planned(&self) -> bool {
        self.planned.is_some()
    }

    /// The blob that has its tests, if it was stored.
    pub(in crate::runs) const fn plan(&self) -> Option<Digest> {
        self.plan
    }

    pub(in crate::runs) fn complaints(&self) -> &[String] {
        &self.complaints
    }

    /// The batches of which nobody knows yet who ended their runner.
    pub(in crate::runs) const fn unexplained(&self) -> &UnexplainedBatches {
        &self.unexplained
    }

    /// The attempts of a test that have been answered without that being its end.
    pub(in crate::runs) fn tried(&self, test: &str) -> Tried {
        self.tried.get(test).cloned().unwrap_or_default()
    }

    /// Records how these tests ended, by their places.
    ///
    /// # Errors
    /// [`ReplayError`]: they are not those that were planned.
    pub(in crate::runs) fn replay(
        &self,
        names: &[String],
        tally: &mut Tally,
    ) -> Result<(), ReplayError> {
        if PlantedBug::HistoryForgotten.is_planted() {
            return Ok(());
        }
        let mut left: BTreeMap<&str, Ending> = self
            .endings
            .iter()
            .map(|(name, ending)| (name.as_str(), *ending))
            .collect();
        for (index, name) in names.iter().enumerate() {
            if let Some(ending) = left.remove(name.as_str()) {
                tally.record(index, ending);
            }
        }
        if let Some(test) = left.into_keys().next() {
            let test = test.to_owned();
            return Err(ReplayError::Stranger { test });
        }
        let found = names.len();
        match self.planned {
            Some(planned) if usize::try_from(planned) != Ok(found) => {
                Err(ReplayError::OtherTests { planned, found })
            }
            Some(_) | None => Ok(()),
        }
    }

    pub(super) fn completed(&self, mut end: JobEnd) -> JobEnd {
        end.counts = self.counts();
        let mut endings = self.endings.values();
        let has_failed = endings.any(|it| it.is_own_failure());
        if has_failed || !self.complaints.is_empty() {
            end.status = JobStatus::Failed;
            end.class = Some(FailureClass::Test);
        }
        end
    }

    pub(super) fn counts(&self) -> RunCounts {
        let mut told = RunCounts::default();
        for (name, ending) in &self.endings {
            // An audit's result takes the place of a cached pass.
            let ending = self.audited.get(name).unwrap_or(ending);
            told = plus(told, one(*ending));
        }
        let planned = self.planned.unwrap_or(0).max(told.planned);
        RunCounts {
            not_run: told.not_run + (planned - told.planned),
            planned,
            ..told
        }
    }
}
