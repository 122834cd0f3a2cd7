//! The statements about verdicts that were given.

use regatta_model::{RunId, TenantId, Timestamp};
use rusqlite::{Connection, params};

use super::forgetting::is_run_forgotten;
use super::queries::{execute, read_all};
use crate::rows::{self, bounded, signed};
use crate::statements::{FIND_VERDICTS, KEEP_VERDICT, NAME_RUN, READ_KEPT_BLOBS};
use crate::{GivenVerdict, KeptBlob, LedgerError, NamedArtefact, VerdictQuery};

pub(super) fn keep_verdict(
    connection: &Connection,
    given: &GivenVerdict,
    artefacts: &[NamedArtefact],
    runs: &[RunId],
) -> Result<(), LedgerError> {
    if is_run_forgotten(connection, &given.run)? {
        return Ok(());
    }
    let (tenant, bundle) = (given.tenant.as_str(), given.bundle.to_string());
    let values = params![
        tenant,
        bundle,
        given.commit,
        given.run.as_str(),
        given.verdict.to_string(),
        given.policy.map(|policy| policy.to_string()),
        given.public_key,
        signed(given.first_given_at.as_nanos()),
        signed(given.last_given_at.as_nanos()),
    ];
    execute(connection, KEEP_VERDICT, values)?;
    let insert = "INSERT INTO verdict_artefacts (tenant, bundle, place, name, digest, is_tree)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (tenant, bundle, place) DO NOTHING";
    for (place, artefact) in artefacts.iter().enumerate() {
        let values = params![
            tenant,
            bundle,
            bounded(place),
            artefact.name,
            artefact.digest.to_string(),
            i64::from(artefact.is_tree),
        ];
        execute(connection, insert, values)?;
    }
    for run in runs.iter().chain([&given.run]) {
        let values = params![tenant, bundle, run.as_str()];
        execute(connection, NAME_RUN, values)?;
    }
    Ok(())
}

pub(super) fn find_verdicts(
    connection: &Connection,
    query: &VerdictQuery,
) -> Result<Vec<GivenVerdict>, LedgerError> {
    let values = params![
        query.tenant.as_ref().map(TenantId::as_str),
        query.commit.as_deref(),
        query.run.as_ref().map(RunId::as_str),
        query.bundle.map(|bundle| bundle.to_string()),
        bounded(query.limit),
    ];
    read_all(connection, FIND_VERDICTS, values, rows::given_verdict)
}

pub(super) fn read_kept_blobs(
    connection: &Connection,
    since: Timestamp,
    limit: usize,
) -> Result<Vec<KeptBlob>, LedgerError> {
    let values = params![signed(since.as_nanos()), bounded(limit)];
    let kept = read_all(connection, READ_KEPT_BLOBS, values, rows::kept_blob)?;
    Ok(kept.into_iter().flatten().collect())
}
