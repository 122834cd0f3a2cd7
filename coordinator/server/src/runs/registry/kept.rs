//! Which runs are kept, and what is told of them.

use regatta_ledger::{ForgottenSubject, Ledger, RunQuery, RunRecord};
use regatta_model::{RunId, TenantId};
use regatta_wire::v1;

use super::{FindRunError, RunRegistry};
use crate::runs::log::read_stored;

impl RunRegistry {
    /// Whether runs of a tenant's commit were there, and are kept no longer.
    pub(in crate::runs) async fn is_commit_forgotten(
        &self,
        tenant: TenantId,
        commit: String,
    ) -> Result<bool, FindRunError> {
        let subject = ForgottenSubject::Commit(tenant, commit);
        Ok(self.ledger().is_forgotten(subject).await?)
    }
}

/// What is known of a run besides its events.
pub(super) async fn find(ledger: &dyn Ledger, run: &RunId) -> Result<RunRecord, FindRunError> {
    let query = RunQuery {
        run: Some(run.clone()),
        limit: 1,
        ..RunQuery::default()
    };
    let found = ledger.find_runs(query).await?;
    if let Some(record) = found.into_iter().next() {
        return Ok(record);
    }
    match is_forgotten(ledger, run).await? {
        true => Err(FindRunError::Forgotten { run: run.clone() }),
        false => Err(FindRunError::Unknown {
            run: run.to_string(),
        }),
    }
}

async fn is_forgotten(ledger: &dyn Ledger, run: &RunId) -> Result<bool, FindRunError> {
    let subject = ForgottenSubject::Run(run.clone());
    Ok(ledger.is_forgotten(subject).await?)
}

/// Events of a run that has ended. None means that there are no more, not that it was forgotten meanwhile.
pub(super) async fn read_kept(
    ledger: &dyn Ledger,
    run: &RunId,
    after: u64,
) -> Result<Vec<v1::RunEvent>, FindRunError> {
    let events = read_stored(ledger, run, after).await?;
    if events.is_empty() {
        find(ledger, run).await?;
    } else if is_forgotten(ledger, run).await? {
        return Err(FindRunError::Forgotten { run: run.clone() });
    }
    Ok(events)
}
