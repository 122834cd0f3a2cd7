//! The sessions that read: a few, made when they are needed.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use regatta_model::Backoff;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout_at};

use super::address::PostgresAddress;
use super::failure::{CallError, unavailable};
use super::owner::{RECONNECT_PATIENCE, RECONNECT_PAUSES};
use super::session::Session;
use super::value::Value;
use crate::LedgerError;
use crate::rows::Columns;

/// How many read at a time; others wait.
const MAX_SESSIONS: usize = 4;

pub(super) struct Readers {
    address: PostgresAddress,
    turns: Semaphore,
    idle: Mutex<Vec<Session>>,
}

impl fmt::Debug for Readers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Readers").finish_non_exhaustive()
    }
}

impl Readers {
    pub(super) fn new(address: PostgresAddress) -> Self {
        Self {
            address,
            turns: Semaphore::new(MAX_SESSIONS),
            idle: Mutex::default(),
        }
    }

    /// Every row of a statement's answer. A statement that only reads may be asked again, and is, while the
    /// database is away for a moment.
    pub(super) async fn read_all<Answer>(
        &self,
        statement: &str,
        values: &[Value<'_>],
        decode: fn(&dyn Columns) -> Result<Answer, LedgerError>,
    ) -> Result<Vec<Answer>, LedgerError> {
        let deadline = Instant::now() + RECONNECT_PATIENCE;
        let turn = timeout_at(deadline, self.turns.acquire()).await;
        let busy = || {
            let what = format!("{MAX_SESSIONS} readers are busy");
            unavailable(self.address.place(), &what, "try again")
        };
        let _turn = turn.map_err(|_| busy())?.map_err(|_| LedgerError::Closed)?;
        let (first, longest) = RECONNECT_PAUSES;
        let mut backoff = Backoff::new(first, longest);
        loop {
            match self.read_once(statement, values, decode).await {
                Ok(rows) => return Ok(rows),
                Err(CallError::Lost(_)) if Instant::now() < deadline => {
                    sleep(backoff.delay(super::randomness())).await;
                }
                Err(error) => return Err(error.into_ledger_error()),
            }
        }
    }

    async fn read_once<Answer>(
        &self,
        statement: &str,
        values: &[Value<'_>],
        decode: fn(&dyn Columns) -> Result<Answer, LedgerError>,
    ) -> Result<Vec<Answer>, CallError> {
        let session = match self.idle_session() {
            Some(session) => session,
            None => Session::ready(&self.address).await?,
        };
        let read = session.read_all(statement, values, decode).await;
        if !matches!(read, Err(CallError::Lost(_))) {
            self.idle().push(session);
        }
        read
    }

    /// One that still lives; those that have ended are dropped.
    fn idle_session(&self) -> Option<Session> {
        let mut idle = self.idle();
        idle.retain(|session| !session.has_ended());
        idle.pop()
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Session>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
