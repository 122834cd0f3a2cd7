//! Who has a database, for those that stand by for it.
//!
//! A coordinator has its database for as long as the session lives that holds the lock. That session is used every
//! few seconds, even if there is nothing to write: one that falls silent belongs to a process that hangs or a
//! machine that is cut off, and a coordinator that stands by may end it. What its coordinator still wants to
//! write then fails: it finds that there has been another term.

use std::time::Duration;

use tokio::time::Instant;

use super::failure::CallError;
use super::schema::LOCK;
use super::session::Session;
use crate::rows::Columns;
use crate::statements::READ_TERM;

/// How often the session that holds the lock is used at least.
pub(super) const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(2);
/// How long the server may take to answer that.
pub(super) const HEARTBEAT_LIMIT: Duration = Duration::from_secs(4);
/// How long it may be silent before a coordinator that stands by ends it.
const SILENCE_LIMIT: Duration = Duration::from_secs(6);

/// A coordinator, as others know it that stand by for its database.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CoordinatorIdentity {
    /// Where it serves gRPC: `http://host:port`. Empty if nobody is to know.
    pub url: String,
    /// Which key it signs verdicts with. Agents' leases are taken over by whoever has the same.
    pub verdict_key: String,
}

/// Until when another coordinator has the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tenure {
    /// Until it gives it back, or its session ends by itself.
    UntilItEnds,
    /// Until it has been silent for too long.
    UntilSilent,
}

/// Whether this coordinator still has its database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LedgerTenure {
    /// It has.
    Held,
    /// The session was lost at this time. It is taken again, if nobody else has had it then.
    Lost(Instant),
    /// Another coordinator has it, or has had it.
    Superseded,
}

/// Whose the database is, or was last; nothing if that is not known.
pub(super) async fn read_holder(session: &Session) -> Option<CoordinatorIdentity> {
    let decode = |row: &dyn Columns| {
        Ok(CoordinatorIdentity {
            url: row.text(0)?,
            verdict_key: row.text(1)?,
        })
    };
    // A coordinator of an earlier release has left nothing, not even the table.
    let read = session.read_one(READ_TERM, &[], decode).await;
    read.ok().flatten()
}

/// Ends the session that has the lock if it has not been used for too long, by the server's clock. One that waits for
/// the server is not silent. Sessions of another user cannot be seen, and stay.
pub(super) async fn end_silent_holder(session: &Session) -> Result<(), CallError> {
    let end = format!(
        "SELECT pg_terminate_backend(activity.pid)
         FROM pg_locks AS locks JOIN pg_stat_activity AS activity USING (pid)
         WHERE locks.locktype = 'advisory' AND locks.granted
            AND locks.classid::BIGINT << 32 | locks.objid::BIGINT = {LOCK}
            AND activity.datname = current_database() AND activity.state LIKE 'idle%'
            AND clock_timestamp() - activity.state_change > interval '{} milliseconds'",
        SILENCE_LIMIT.as_millis()
    );
    if session.batch(&end).await?.concat() == "t" {
        tracing::warn!(
            silent_for = ?SILENCE_LIMIT,
            "the coordinator that has the ledger has fallen silent; its session was ended"
        );
    }
    Ok(())
}
