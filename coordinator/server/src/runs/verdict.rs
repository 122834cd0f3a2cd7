//! What runs say of their commits.

use regatta_ledger::{RunQuery, RunRecord};
use regatta_model::{RunId, TenantId};
use regatta_verdict::{Evidence, EvidenceBuilder, IncompleteRunError};
use regatta_wire::v1::run_event::Event;

use super::registry::{FindRunError, RunRegistry};

/// How many runs of a commit are looked at for one that says something of it.
const MAX_RUNS_OF_COMMIT: usize = 1000;

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub(super) enum FindVerdictError {
    #[error(transparent)]
    Run(#[from] FindRunError),
    #[error("run {run} goes on; wait for its end")]
    GoesOn { run: RunId },
    #[error("run {run} says nothing of its commit")]
    Incomplete {
        run: RunId,
        source: IncompleteRunError,
    },
    #[error(
        "no run of commit {commit} has ended in which all files were as they are in it; \
         run its pipeline with nothing changed"
    )]
    NoRun { commit: String },
}

impl RunRegistry {
    /// What a run says, once it has ended.
    pub(super) async fn evidence_of_run(
        &self,
        run: &str,
    ) -> Result<(RunId, Evidence), FindVerdictError> {
        let record = self.record(run).await?;
        match record.end {
            Some(_) => self.evidence(record).await,
            None => Err(FindVerdictError::GoesOn {
                run: record.new.run,
            }),
        }
    }

    /// What the newest run says that ended and that had the files of the commit.
    pub(super) async fn evidence_of_commit(
        &self,
        tenant: TenantId,
        commit: String,
    ) -> Result<(RunId, Evidence), FindVerdictError> {
        let query = RunQuery {
            tenant: Some(tenant),
            commit: Some(commit.clone()),
            limit: MAX_RUNS_OF_COMMIT,
            ..RunQuery::default()
        };
        let records = self.find_all(query).await?;
        for record in records.into_iter().filter(|record| record.end.is_some()) {
            if !self.is_dirty(&record).await? {
                return self.evidence(record).await;
            }
        }
        Err(FindVerdictError::NoRun { commit })
    }

    /// Whether a run's files differed from its commit, which its first event says.
    async fn is_dirty(&self, record: &RunRecord) -> Result<bool, FindVerdictError> {
        let events = self.events_so_far(record.new.run.as_str(), 0).await?;
        let first = events.into_iter().find_map(|event| match event.event {
            Some(Event::RunStarted(started)) => started.spec,
            _ => None,
        });
        Ok(first.is_none_or(|spec| spec.dirty))
    }

    async fn evidence(&self, record: RunRecord) -> Result<(RunId, Evidence), FindVerdictError> {
        let run = record.new.run;
        let mut evidence = EvidenceBuilder::default();
        let mut last = 0;
        loop {
            let events = self.events_so_far(run.as_str(), last).await?;
            let Some(event) = events.last() else { break };
            last = event.sequence;
            events.iter().for_each(|event| evidence.take(event));
        }
        match evidence.finish() {
            Ok(evidence) => Ok((run, evidence)),
            Err(source) => Err(FindVerdictError::Incomplete { run, source }),
        }
    }
}
