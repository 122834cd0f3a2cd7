//! A ledger in one SQLite file.
//!
//! One thread owns the connection. Requests reach it through a bounded queue; those that are waiting
//! when it looks are carried out in one transaction, which is what makes durability cheap.

mod forgetting;
mod history;
mod ownership;
mod queries;
mod schema;
#[cfg(test)]
mod tests;
mod thread;
mod verdicts;

use std::path::Path;

use async_trait::async_trait;
use regatta_model::{RunId, TenantId, Timestamp};
use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::{
    CoordinatorIdentity, Forgetting, ForgottenSubject, GivenVerdict, Inheritance, KeptBlob, Ledger,
    LedgerError, NamedArtefact, NewRun, OldRun, OldRunsQuery, Place, RunEnd, RunQuery, RunRecord,
    StoredEvent, SuiteKnowledge, SuiteObservation, TestHistory, VerdictQuery,
};
pub(crate) use schema::MIGRATIONS;
pub use schema::OpenLedgerError;
use thread::LedgerThread;

/// A ledger in an SQLite database. Dropping it ends its thread once everything queued is done.
#[derive(Debug)]
pub struct SqliteLedger {
    thread: LedgerThread,
}

impl SqliteLedger {
    /// Opens the database, making or migrating it if need be. This blocks on the disk.
    ///
    /// # Errors
    /// [`OpenLedgerError`] says what to do.
    pub fn open(path: &Path) -> Result<Self, OpenLedgerError> {
        Self::start(schema::open(path)?)
    }

    /// The same for a coordinator, which the database remembers.
    ///
    /// # Errors
    /// [`OpenLedgerError::Foreign`] if there are runs of one with another storage or another key, unless that is meant.
    pub fn open_for(
        path: &Path,
        whose: &CoordinatorIdentity,
        inheritance: Inheritance,
    ) -> Result<Self, OpenLedgerError> {
        let connection = schema::open(path)?;
        ownership::take(&connection, path, whose, inheritance)?;
        Self::start(connection)
    }

    /// Where the last coordinator that had the file and said where it stores things stores them; nothing if none has, or
    /// there is no file.
    ///
    /// # Errors
    /// [`OpenLedgerError`] says what to do.
    pub fn last_storage(path: &Path) -> Result<Option<String>, OpenLedgerError> {
        match path.exists() {
            true => ownership::last_storage(&schema::open(path)?, path),
            false => Ok(None),
        }
    }

    fn start(connection: Connection) -> Result<Self, OpenLedgerError> {
        let thread = LedgerThread::start(connection).map_err(|error| OpenLedgerError::Thread {
            detail: error.to_string(),
        })?;
        Ok(Self { thread })
    }

    async fn ask<Answer: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> Result<Answer, LedgerError> + Send + 'static,
    ) -> Result<Answer, LedgerError> {
        let (sender, receiver) = oneshot::channel();
        self.thread.send(query, sender).await?;
        receiver.await.map_err(|_| LedgerError::Closed)?
    }
}

#[async_trait]
impl Ledger for SqliteLedger {
    async fn start_run(&self, run: NewRun) -> Result<(), LedgerError> {
        self.ask(move |connection| queries::start_run(connection, &run))
            .await
    }

    async fn append_events(
        &self,
        run: &RunId,
        events: Vec<StoredEvent>,
        end: Option<RunEnd>,
    ) -> Result<(), LedgerError> {
        let run = run.clone();
        self.ask(move |connection| queries::append_events(connection, &run, &events, end))
            .await
    }

    async fn read_events(
        &self,
        run: &RunId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<StoredEvent>, LedgerError> {
        let run = run.clone();
        self.ask(move |connection| queries::read_events(connection, &run, after, limit))
            .await
    }

    async fn find_runs(&self, query: RunQuery) -> Result<Vec<RunRecord>, LedgerError> {
        self.ask(move |connection| queries::find_runs(connection, &query))
            .await
    }

    async fn find_old_runs(&self, query: OldRunsQuery) -> Result<Vec<OldRun>, LedgerError> {
        self.ask(move |connection| forgetting::find_old_runs(connection, &query))
            .await
    }

    async fn forget(&self, step: Forgetting) -> Result<(), LedgerError> {
        self.ask(move |connection| forgetting::forget(connection, &step))
            .await
    }

    async fn find_half_gone(&self, limit: usize) -> Result<Vec<RunId>, LedgerError> {
        self.ask(move |connection| forgetting::find_half_gone(connection, limit))
            .await
    }

    async fn is_forgotten(&self, subject: ForgottenSubject) -> Result<bool, LedgerError> {
        self.ask(move |connection| forgetting::is_forgotten(connection, &subject))
            .await
    }

    async fn observe_suite(&self, seen: SuiteObservation) -> Result<(), LedgerError> {
        self.ask(move |connection| history::observe_suite(connection, &seen))
            .await
    }

    async fn read_suite(
        &self,
        tenant: &TenantId,
        suite: &str,
        place: &Place,
    ) -> Result<SuiteKnowledge, LedgerError> {
        let (tenant, suite, place) = (tenant.clone(), suite.to_owned(), place.clone());
        self.ask(move |connection| history::read_suite(connection, &tenant, &suite, &place))
            .await
    }

    async fn read_history(
        &self,
        tenant: &TenantId,
        suite: Option<&str>,
    ) -> Result<Vec<TestHistory>, LedgerError> {
        let (tenant, suite) = (tenant.clone(), suite.map(ToOwned::to_owned));
        self.ask(move |connection| history::read_history(connection, &tenant, suite.as_deref()))
            .await
    }

    async fn keep_verdict(
        &self,
        given: GivenVerdict,
        artefacts: Vec<NamedArtefact>,
        runs: Vec<RunId>,
    ) -> Result<(), LedgerError> {
        self.ask(move |connection| verdicts::keep_verdict(connection, &given, &artefacts, &runs))
            .await
    }

    async fn find_verdicts(&self, query: VerdictQuery) -> Result<Vec<GivenVerdict>, LedgerError> {
        self.ask(move |connection| verdicts::find_verdicts(connection, &query))
            .await
    }

    async fn read_kept_blobs(
        &self,
        since: Timestamp,
        limit: usize,
    ) -> Result<Vec<KeptBlob>, LedgerError> {
        self.ask(move |connection| verdicts::read_kept_blobs(connection, since, limit))
            .await
    }

    async fn reserve_tokens(&self, last: u64) -> Result<(), LedgerError> {
        self.ask(move |connection| queries::reserve_tokens(connection, last))
            .await
    }

    async fn reserved_tokens(&self) -> Result<u64, LedgerError> {
        self.ask(queries::reserved_tokens).await
    }
}
