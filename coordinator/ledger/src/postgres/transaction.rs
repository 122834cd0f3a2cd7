//! One transaction of the session that holds the database: whole or nothing, and once.

use super::failure::CallError;
use super::schema::Holder;
use super::session::{Session, number};
use super::write::{Lessons, Write};
use crate::LedgerError;
use crate::rows::corrupt;

/// Begins a transaction, and tells which it is and who carries it out.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; SELECT txid_current(), pg_backend_pid()";

/// Why a group was not written.
pub(super) enum Failed {
    Refused(LedgerError),
    /// With the session. The transaction that may have been committed, if one may.
    Lost(LedgerError, Option<i64>),
}

impl From<CallError> for Failed {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Lost(error) => Self::Lost(error, None),
            CallError::Refused(error) => Self::Refused(error),
        }
    }
}

/// Writes everything in one transaction, unless the one that was in doubt has already.
pub(super) async fn write_once(
    holder: &Holder,
    writes: &[Write],
    lessons: Lessons,
    in_doubt: Option<i64>,
) -> Result<(), Failed> {
    let session = &holder.session;
    if let Some(transaction) = in_doubt {
        let still_in_doubt = |error: CallError| {
            let error = error.into_ledger_error();
            Failed::Lost(error, in_doubt)
        };
        if was_committed(session, transaction)
            .await
            .map_err(still_in_doubt)?
        {
            return Ok(());
        }
    }
    match prepare(holder, writes, lessons).await {
        Ok(transaction) => commit(session, transaction).await,
        Err(CallError::Refused(error)) => {
            session.batch("ROLLBACK").await?;
            Err(Failed::Refused(error))
        }
        Err(lost) => Err(lost.into()),
    }
}

/// Does everything but commit it. Which transaction it is.
async fn prepare(holder: &Holder, writes: &[Write], lessons: Lessons) -> Result<i64, CallError> {
    let begun = holder.session.batch(BEGIN).await?;
    check_backend(holder, number(&begun, 1)?)?;
    for write in writes {
        write.apply(&holder.session, lessons).await?;
    }
    number(&begun, 0)
}

/// Something between us and the server may pass a session's statements to any server process.
pub(super) fn check_backend(holder: &Holder, backend: i64) -> Result<(), CallError> {
    if backend == holder.backend {
        return Ok(());
    }
    let what = "statements do not reach the session that holds the ledger's lock".to_owned();
    let detail = format!("{what}; connect without a pooler, or with one that pools sessions");
    Err(CallError::Lost(LedgerError::Unavailable { detail }))
}

async fn commit(session: &Session, transaction: i64) -> Result<(), Failed> {
    match session.batch("COMMIT").await {
        Ok(_) => Ok(()),
        Err(CallError::Refused(error)) => Err(Failed::Refused(error)),
        Err(CallError::Lost(error)) => Err(Failed::Lost(error, Some(transaction))),
    }
}

/// What became of a transaction whose session was lost. That session has ended, for this one has its lock.
async fn was_committed(session: &Session, transaction: i64) -> Result<bool, CallError> {
    // A server that has crashed knows nothing of transactions of which nothing was durable: to it, their numbers are
    // yet to come.
    let ask = format!(
        "SELECT CASE WHEN {transaction} >= txid_snapshot_xmax(txid_current_snapshot())
             THEN 'aborted' ELSE txid_status({transaction}) END"
    );
    match session.batch(&ask).await?.concat().as_str() {
        "committed" => Ok(true),
        "aborted" => Ok(false),
        other => Err(corrupt(format!("transaction {transaction} is `{other}`")).into()),
    }
}
