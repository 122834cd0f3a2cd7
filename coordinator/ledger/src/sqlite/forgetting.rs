//! The statements about runs that go.

use regatta_model::{RunId, TenantId};
use rusqlite::{Connection, params};

use super::queries::{execute, read_all, read_one};
use crate::rows::{self, bounded, signed};
use crate::statements::{
    DELETE_EVENTS, DELETE_NAMES, FIND_HALF_GONE, FIND_OLD_RUNS, FORGET_RUN, IS_COMMIT_FORGOTTEN,
    IS_RUN_FORGOTTEN, NOTE_NO_EVENTS,
};
use crate::{Forgetting, ForgottenSubject, LedgerError, OldRun, OldRunsQuery};

pub(super) fn find_old_runs(
    connection: &Connection,
    query: &OldRunsQuery,
) -> Result<Vec<OldRun>, LedgerError> {
    let after = query.after.as_ref();
    let values = params![
        signed(query.verdicts_since.as_nanos()),
        signed(query.ended_before.as_nanos()),
        after.map_or(0, |place| signed(place.finished_at.as_nanos())),
        after.map_or("", |place| place.run.as_str()),
        bounded(query.limit),
    ];
    read_all(connection, FIND_OLD_RUNS, values, rows::old_run)
}

pub(super) fn forget(connection: &Connection, step: &Forgetting) -> Result<(), LedgerError> {
    match step {
        Forgetting::Run {
            run,
            ended_before,
            verdicts_since,
            now,
        } => {
            let values = params![
                signed(now.as_nanos()),
                run.as_str(),
                signed(ended_before.as_nanos()),
                signed(verdicts_since.as_nanos()),
            ];
            execute(connection, FORGET_RUN, values)
        }
        Forgetting::Events { run, limit } => {
            let values = params![run.as_str(), bounded(*limit)];
            execute(connection, DELETE_EVENTS, values)?;
            execute(connection, NOTE_NO_EVENTS, [run.as_str()])
        }
        Forgetting::Names {
            forgotten_before,
            limit,
        } => {
            let values = params![signed(forgotten_before.as_nanos()), bounded(*limit)];
            execute(connection, DELETE_NAMES, values)
        }
    }
}

pub(super) fn find_half_gone(
    connection: &Connection,
    limit: usize,
) -> Result<Vec<RunId>, LedgerError> {
    read_all(connection, FIND_HALF_GONE, [bounded(limit)], rows::run)
}

pub(super) fn is_forgotten(
    connection: &Connection,
    subject: &ForgottenSubject,
) -> Result<bool, LedgerError> {
    match subject {
        ForgottenSubject::Run(run) => is_run_forgotten(connection, run),
        ForgottenSubject::Commit(tenant, commit) => {
            let values = params![TenantId::as_str(tenant), commit];
            let found = read_one(connection, IS_COMMIT_FORGOTTEN, values, rows::run)?;
            Ok(found.is_some())
        }
    }
}

pub(super) fn is_run_forgotten(connection: &Connection, run: &RunId) -> Result<bool, LedgerError> {
    let found = read_one(connection, IS_RUN_FORGOTTEN, [run.as_str()], rows::run)?;
    Ok(found.is_some())
}
