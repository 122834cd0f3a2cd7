//! Who has a database, for those that stand by for it.
//!
//! A coordinator has its database for as long as the session lives that holds the lock. That session is used every
//! few seconds, even if there is nothing to write: one that falls silent belongs to a process that hangs or a
//! machine that is cut off, and a coordinator that stands by may end it. What its coordinator still wants to
//! write then fails: it finds that there has been another term.

use std::sync::LazyLock;
use std::time::Duration;

use tokio::time::Instant;

use super::failure::CallError;
use super::session::Session;
use crate::CoordinatorIdentity;
use crate::rows;
use crate::statements::READ_TERM;

/// The advisory lock that a coordinator holds on its database: `regatta`, in ASCII.
pub(super) const LOCK: i64 = i64::from_be_bytes(*b"regatta\0");
/// How often the session that holds the lock is used at least.
pub(super) const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(2);
/// How long the server may take to answer that.
pub(super) const HEARTBEAT_LIMIT: Duration = Duration::from_secs(4);
/// How long it may be silent before a coordinator that stands by ends it.
pub const SILENCE_LIMIT: Duration = Duration::from_secs(6);

/// The rest of a statement about the session that holds the lock, which is `activity`. Those of other users show
/// nothing of themselves.
pub(super) static LOCK_HOLDER: LazyLock<String> = LazyLock::new(|| {
    format!(
        "FROM pg_locks AS locks JOIN pg_stat_activity AS activity USING (pid)
         WHERE locks.locktype = 'advisory' AND locks.granted AND locks.objsubid = 1
            AND locks.classid::BIGINT << 32 | locks.objid::BIGINT = {LOCK}
            AND activity.datname = current_database()"
    )
});

/// After what a database that another coordinator has may be another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Succession {
    /// After that one has given it back, or its session has ended by itself.
    AfterItsEnd,
    /// After it has been silent for too long.
    AfterSilence,
}

/// Whether this coordinator still has its database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LedgerTenure {
    /// It had when the database answered last. It is told about once a second while it answers.
    Ours {
        /// When it was asked what it answered.
        answered: Instant,
    },
    /// The session that had it has ended: from a second later on another coordinator may have it. Whether one has is not
    /// known until there is a session again.
    Lost {
        /// When the database was asked what it answered last.
        answered: Instant,
    },
    /// Another coordinator has it, or has had it.
    Superseded,
}

/// Whose the database is, or was last; nothing if that is not known.
pub(super) async fn last_incumbent(session: &Session) -> Option<CoordinatorIdentity> {
    // A coordinator of an earlier release has left nothing, not even the table.
    let read = session.read_one(READ_TERM, &[], rows::identity).await;
    read.ok().flatten()
}

/// Whether any session holds the lock.
pub(super) async fn is_held(session: &Session) -> Result<bool, CallError> {
    let select = format!("SELECT activity.pid {}", *LOCK_HOLDER);
    Ok(!session.batch(&select).await?.is_empty())
}

/// Ends the session that has the lock if it has not been used for too long, by the server's clock. One that waits for
/// the server is not silent; one of an earlier release has no reason to be heard, and stays. Whether one was ended, which
/// gives the lock back in a moment.
pub(super) async fn end_if_silent(session: &Session) -> bool {
    if last_incumbent(session).await.is_none() {
        return false;
    }
    let end = format!(
        "SELECT pg_terminate_backend(activity.pid) {} AND activity.state LIKE 'idle%'
            AND clock_timestamp() - activity.state_change > interval '{} milliseconds'",
        *LOCK_HOLDER,
        SILENCE_LIMIT.as_millis()
    );
    match session.batch(&end).await {
        Ok(ended) if ended.concat() == "t" => {
            tracing::warn!(
                silent_for = ?SILENCE_LIMIT,
                "the coordinator that has the ledger has fallen silent; its session was ended"
            );
            true
        }
        Ok(_) => false,
        Err(error) => {
            tracing::warn!(
                error = %error.into_ledger_error(),
                "the coordinator that has the ledger has fallen silent, and its session cannot be ended: let both \
                 have the same user"
            );
            false
        }
    }
}
