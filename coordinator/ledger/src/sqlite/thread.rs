//! The thread that owns the connection, and its group commit.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::{fmt, io, thread};

use rusqlite::{Connection, ErrorCode};
use tokio::sync::{mpsc, oneshot};

use crate::LedgerError;

/// Requests that may wait; a caller beyond it waits until there is room.
const MAX_QUEUED_REQUESTS: usize = 1024;
/// Requests that share a transaction at most.
const MAX_GROUP: usize = 256;

/// Does its part of a transaction, and returns what tells its caller how the whole ended.
/// Without a transaction it does nothing but tell its caller why.
type Request = Box<dyn FnOnce(Result<&Connection, LedgerError>) -> Reply + Send>;
type Reply = Box<dyn FnOnce(Result<(), LedgerError>) + Send>;

/// A handle to the thread. The thread ends when the last handle is dropped and the queue is empty.
pub(super) struct LedgerThread {
    requests: Option<mpsc::Sender<Request>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl fmt::Debug for LedgerThread {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("LedgerThread")
            .finish_non_exhaustive()
    }
}

impl LedgerThread {
    pub(super) fn start(connection: Connection) -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel(MAX_QUEUED_REQUESTS);
        let thread = thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || serve(&connection, receiver))?;
        Ok(Self {
            requests: Some(sender),
            thread: Some(thread),
        })
    }

    /// Queues a query; its answer comes once the transaction that it is part of is durable.
    pub(super) async fn send<Answer: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> Result<Answer, LedgerError> + Send + 'static,
        answer: oneshot::Sender<Result<Answer, LedgerError>>,
    ) -> Result<(), LedgerError> {
        let request: Request = Box::new(move |connection| {
            let result = connection.and_then(|connection| query_alone(connection, query));
            Box::new(move |committed| {
                // A caller that has gone away needs no answer.
                drop(answer.send(committed.and(result)));
            })
        });
        let requests = self.requests.as_ref().ok_or(LedgerError::Closed)?;
        requests
            .send(request)
            .await
            .map_err(|_| LedgerError::Closed)
    }
}

impl Drop for LedgerThread {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the ledger's thread has panicked");
        }
    }
}

/// Carries out a query so that its failure undoes what it did and nothing of its neighbours'.
fn query_alone<Answer>(
    connection: &Connection,
    query: impl FnOnce(&Connection) -> Result<Answer, LedgerError>,
) -> Result<Answer, LedgerError> {
    connection
        .execute_batch("SAVEPOINT request")
        .map_err(unavailable)?;
    let result = catch_unwind(AssertUnwindSafe(|| query(connection))).unwrap_or_else(|_| {
        Err(LedgerError::Corrupt {
            detail: "a query panicked".to_owned(),
        })
    });
    let end = if result.is_ok() {
        "RELEASE request"
    } else {
        "ROLLBACK TO request; RELEASE request"
    };
    connection.execute_batch(end).map_err(unavailable)?;
    result
}

fn serve(connection: &Connection, mut requests: mpsc::Receiver<Request>) {
    let mut group = Vec::with_capacity(MAX_GROUP);
    while requests.blocking_recv_many(&mut group, MAX_GROUP) > 0 {
        let begun = connection
            .execute_batch("BEGIN IMMEDIATE")
            .map_err(unavailable);
        let replies: Vec<Reply> = group
            .drain(..)
            .map(|request| request(begun.clone().map(|()| connection)))
            .collect();
        let committed = begun.and_then(|()| {
            connection.execute_batch("COMMIT").map_err(|error| {
                drop(connection.execute_batch("ROLLBACK"));
                unavailable(error)
            })
        });
        if let Err(error) = &committed {
            tracing::error!(%error, "a transaction of the ledger was lost");
        }
        for reply in replies {
            reply(committed.clone());
        }
    }
}

/// What SQLite's error means to whoever called.
pub(super) fn unavailable(error: rusqlite::Error) -> LedgerError {
    let detail = error.to_string();
    match is_damage(&error) {
        true => LedgerError::Corrupt { detail },
        false => LedgerError::Unavailable { detail },
    }
}

/// Whether what is stored cannot be read, or is not what the schema says.
fn is_damage(error: &rusqlite::Error) -> bool {
    match error {
        rusqlite::Error::SqliteFailure(failure, _) => matches!(
            failure.code,
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase
        ),
        rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::IntegralValueOutOfRange(..) => true,
        // The library's own, of which there may be more.
        _ => false,
    }
}
