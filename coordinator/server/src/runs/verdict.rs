//! What runs say of their commits.

use regatta_ledger::{RunQuery, RunRecord};
use regatta_model::{RunId, TenantId};
use regatta_verdict::{
    DecisiveRun, EndedRun, Evidence, EvidenceBuilder, Failures, IncompleteRunError, Judgement,
    Policy,
};
use regatta_wire::v1;

use super::event;
use super::registry::{FindRunError, RunRegistry};
use crate::status::with_sources;

/// How many runs of a commit are looked at for the one that speaks for it.
const MAX_RUNS_OF_COMMIT: usize = 10_000;
/// How many of them may each have done what no other did: their plans are in memory together.
const MAX_STANDING_RUNS: usize = 200;

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
    #[error(
        "the runs of commit {commit} are no longer kept: the last of them ended longer ago than runs are kept for \
         (the coordinator's --keep-runs); run its pipeline again, or see what was said of it (--kept)"
    )]
    Forgotten { commit: String },
    #[error(
        "commit {commit} has too many runs, or too many of different jobs, to say which speaks for \
         it; name a run instead"
    )]
    TooManyRuns { commit: String },
}

impl RunRegistry {
    /// What a run alone says, once it has ended.
    pub(super) async fn judgement_of_run(&self, run: &str) -> Result<Judgement, FindVerdictError> {
        let record = self.record(run).await?;
        let run = record.new.run.clone();
        if record.end.is_none() {
            return Err(FindVerdictError::GoesOn { run });
        }
        let evidence = self.evidence(record).await?;
        let policy = Policy::of_run(&evidence.spec);
        Ok(Judgement::of(
            (run.to_string(), evidence),
            Vec::new(),
            policy,
        ))
    }

    /// What the runs say that speak for a commit.
    pub(super) async fn judgement_of_commit(
        &self,
        tenant: TenantId,
        commit: String,
    ) -> Result<Judgement, FindVerdictError> {
        let query = RunQuery {
            tenant: Some(tenant.clone()),
            commit: Some(commit.clone()),
            limit: MAX_RUNS_OF_COMMIT,
            ..RunQuery::default()
        };
        let mut records = self.find_all(query).await?;
        if records.len() == MAX_RUNS_OF_COMMIT {
            return Err(FindVerdictError::TooManyRuns { commit });
        }
        records.retain(|record| record.end.is_some());
        // One that was submitted first and ended last saw more. Times do not say which did: clocks are set.
        records.sort_by_key(|record| std::cmp::Reverse(record.ended));
        let mut decisive = DecisiveRun::default();
        for record in records {
            let spec = self.spec_of(&record.new.run).await?;
            let (Some(spec), Some(end)) = (spec.filter(|spec| !spec.dirty), record.end) else {
                continue;
            };
            let (verdict, counts) = (event::verdict(end.verdict), end.counts);
            let run = EndedRun {
                spec,
                verdict,
                has_failed: counts.failed > 0,
                // One that was stopped did not come to count what it was to try again.
                may_be_flaky: counts.flaky > 0
                    || counts.quarantined > 0
                    || verdict == v1::Verdict::Unknown,
            };
            decisive.add_older(record, run);
            if decisive.standing() > MAX_STANDING_RUNS {
                return Err(FindVerdictError::TooManyRuns { commit });
            }
        }
        let Some(deciding) = decisive.finish() else {
            return Err(self.no_run(tenant, commit).await?);
        };
        let speaker = self.named_evidence(deciding.run).await?;
        let mut others = Vec::new();
        for record in deciding.others {
            others.push(self.named_evidence(record).await?);
        }
        let failures = self.failures(deciding.failed).await?;
        let policy = deciding.policy;
        Ok(Judgement::of_commit(speaker, others, policy, &failures))
    }

    /// What failed in these runs, of which one is read at a time. Of one that contradicts itself nothing is known.
    async fn failures(&self, records: Vec<RunRecord>) -> Result<Failures, FindVerdictError> {
        let mut failures = Failures::default();
        for record in records {
            match self.named_evidence(record).await {
                Ok((run, evidence)) => failures.take(&run, &evidence),
                Err(error @ FindVerdictError::Incomplete { .. }) => {
                    let error = with_sources(&error);
                    tracing::warn!(error, "what failed in a run is not known");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(failures)
    }

    /// Why no run speaks for a commit.
    async fn no_run(
        &self,
        tenant: TenantId,
        commit: String,
    ) -> Result<FindVerdictError, FindVerdictError> {
        match self.is_commit_forgotten(tenant, commit.clone()).await? {
            true => Ok(FindVerdictError::Forgotten { commit }),
            false => Ok(FindVerdictError::NoRun { commit }),
        }
    }

    async fn named_evidence(
        &self,
        record: RunRecord,
    ) -> Result<(String, Evidence), FindVerdictError> {
        let run = record.new.run.to_string();
        Ok((run, self.evidence(record).await?))
    }

    async fn evidence(&self, record: RunRecord) -> Result<Evidence, FindVerdictError> {
        let run = record.new.run;
        let mut evidence = EvidenceBuilder::default();
        let mut last = 0;
        loop {
            let events = self.events_so_far(run.as_str(), last).await?;
            let Some(event) = events.last() else { break };
            last = event.sequence;
            events.iter().for_each(|event| evidence.take(event));
        }
        let evidence = evidence.finish();
        evidence.map_err(|source| FindVerdictError::Incomplete { run, source })
    }
}
