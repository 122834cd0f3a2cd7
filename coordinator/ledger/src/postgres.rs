//! A ledger in a PostgreSQL database; tried with version 15.
//!
//! One task writes, through the session that holds the database's lock (`owner`); a few sessions read
//! (`readers`). Everything is in a schema of its own, which is SQLite's in other words (`dialect`).

mod address;
mod dialect;
mod failure;
mod learning;
mod owner;
mod password_file;
mod readers;
mod schema;
mod security;
mod session;
mod tenure;
mod text;
mod transaction;
mod value;
mod write;

use async_trait::async_trait;
use regatta_model::{RunId, TenantId, Timestamp};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

pub use address::{ParseAddressError, PostgresAddress};
pub use password_file::ReadPasswordFileError;
pub use schema::OpenPostgresError;
pub use tenure::{LedgerTenure, SILENCE_LIMIT};

use crate::rows::{self, Columns, bounded, signed};
use crate::statements::{
    FIND_HALF_GONE, FIND_OLD_RUNS, FIND_VERDICTS, IS_COMMIT_FORGOTTEN, IS_RUN_FORGOTTEN,
    READ_EVENTS, READ_HISTORY, READ_KEPT_BLOBS, READ_NUMBER, READ_OVERHEAD, READ_SUITE,
    RESERVED_TOKENS, find_runs,
};
use crate::{
    CoordinatorIdentity, Forgetting, ForgottenSubject, GivenVerdict, Inheritance, KeptBlob, Ledger,
    LedgerError, NamedArtefact, NewRun, OldRun, OldRunsQuery, Place, RunEnd, RunQuery, RunRecord,
    StoredEvent, SuiteKnowledge, SuiteObservation, TestHistory, VerdictQuery,
};
use owner::{Owner, Request};
use readers::Readers;
use tenure::Succession;
use value::Value;
use write::Write;

/// Requests that may wait; a caller beyond it waits until there is room.
const MAX_QUEUED_REQUESTS: usize = 1024;

/// A ledger in a PostgreSQL database, which it has for itself. Dropping it gives the database back once
/// everything queued is done.
#[derive(Debug)]
pub struct PostgresLedger {
    writes: mpsc::Sender<Request>,
    readers: Readers,
    tenure: watch::Receiver<LedgerTenure>,
    term: i64,
}

impl PostgresLedger {
    /// Opens the database for a coordinator, and makes or migrates what is in it if need be. It is kept from
    /// other coordinators for as long as this one lives.
    ///
    /// # Errors
    /// [`OpenPostgresError`] says what to do.
    pub async fn open(
        address: PostgresAddress,
        whose: &CoordinatorIdentity,
        inheritance: Inheritance,
    ) -> Result<Self, OpenPostgresError> {
        let heir = (whose, inheritance);
        Self::open_after(address, heir, Succession::AfterItsEnd).await
    }

    /// The same for a coordinator that stands by: one that has the database and has fallen silent for some
    /// seconds, because it hangs or is cut off, loses it.
    ///
    /// # Errors
    /// [`OpenPostgresError::Locked`] as long as another coordinator has the database.
    pub async fn take_over(
        address: PostgresAddress,
        whose: &CoordinatorIdentity,
        inheritance: Inheritance,
    ) -> Result<Self, OpenPostgresError> {
        let heir = (whose, inheritance);
        Self::open_after(address, heir, Succession::AfterSilence).await
    }

    /// Where the last coordinator that had the database and said where it stores things stores them; nothing if none
    /// has. Whoever has the database keeps it.
    ///
    /// # Errors
    /// [`OpenPostgresError`] says what to do.
    pub async fn last_storage(
        address: &PostgresAddress,
    ) -> Result<Option<String>, OpenPostgresError> {
        schema::last_storage(address).await
    }

    async fn open_after(
        address: PostgresAddress,
        heir: (&CoordinatorIdentity, Inheritance),
        succession: Succession,
    ) -> Result<Self, OpenPostgresError> {
        let (holder, term) = schema::open(&address, heir, succession).await?;
        let (writes, requests) = mpsc::channel(MAX_QUEUED_REQUESTS);
        let (told, tenure) = watch::channel(LedgerTenure::Ours {
            answered: Instant::now(),
        });
        let owner = Owner::new(address.clone(), holder, term, told);
        // It ends when the sender does.
        drop(tokio::spawn(owner.serve(requests)));
        let readers = Readers::new(address);
        Ok(Self {
            writes,
            readers,
            tenure,
            term,
        })
    }

    /// For the how manyeth time the database was taken, by whichever coordinator.
    #[must_use]
    pub const fn term(&self) -> i64 {
        self.term
    }

    /// Whether the database is still this coordinator's.
    #[must_use]
    pub fn tenure(&self) -> watch::Receiver<LedgerTenure> {
        self.tenure.clone()
    }

    async fn write(&self, write: Write) -> Result<(), LedgerError> {
        let (answer, written) = oneshot::channel();
        let request = Request { write, answer };
        let sent = self.writes.send(request).await;
        sent.map_err(|_| LedgerError::Closed)?;
        written.await.map_err(|_| LedgerError::Closed)?
    }
}

/// A number nobody else has.
fn randomness() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().0
}

#[async_trait]
impl Ledger for PostgresLedger {
    async fn start_run(&self, run: NewRun) -> Result<(), LedgerError> {
        self.write(Write::StartRun(run)).await
    }

    async fn append_events(
        &self,
        run: &RunId,
        events: Vec<StoredEvent>,
        end: Option<RunEnd>,
    ) -> Result<(), LedgerError> {
        let run = run.clone();
        self.write(Write::AppendEvents { run, events, end }).await
    }

    async fn read_events(
        &self,
        run: &RunId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<StoredEvent>, LedgerError> {
        let values = [
            Value::text(run.as_str()),
            Value::number(bounded(after)),
            Value::number(bounded(limit)),
        ];
        self.readers
            .read_all(READ_EVENTS, &values, rows::event)
            .await
    }

    async fn find_runs(&self, query: RunQuery) -> Result<Vec<RunRecord>, LedgerError> {
        let values = [
            Value::optional_text(query.run.as_ref().map(RunId::as_str)),
            Value::optional_text(query.tenant.as_ref().map(TenantId::as_str)),
            Value::number(query.active_only.into()),
            Value::optional_text(query.commit.as_deref()),
            Value::number(bounded(query.limit)),
        ];
        self.readers
            .read_all(find_runs(&query), &values, rows::run_record)
            .await
    }

    async fn find_old_runs(&self, query: OldRunsQuery) -> Result<Vec<OldRun>, LedgerError> {
        let after = query.after.as_ref();
        let values = [
            Value::number(signed(query.verdicts_since.as_nanos())),
            Value::number(signed(query.ended_before.as_nanos())),
            Value::number(after.map_or(0, |place| signed(place.finished_at.as_nanos()))),
            Value::text(after.map_or("", |place| place.run.as_str())),
            Value::number(bounded(query.limit)),
        ];
        let readers = &self.readers;
        readers
            .read_all(FIND_OLD_RUNS, &values, rows::old_run)
            .await
    }

    async fn forget(&self, step: Forgetting) -> Result<(), LedgerError> {
        self.write(Write::Forget(step)).await
    }

    async fn find_half_gone(&self, limit: usize) -> Result<Vec<RunId>, LedgerError> {
        let values = [Value::number(bounded(limit))];
        let readers = &self.readers;
        readers.read_all(FIND_HALF_GONE, &values, rows::run).await
    }

    async fn is_forgotten(&self, subject: ForgottenSubject) -> Result<bool, LedgerError> {
        let (statement, values) = match &subject {
            ForgottenSubject::Run(run) => (IS_RUN_FORGOTTEN, vec![Value::text(run.as_str())]),
            ForgottenSubject::Commit(tenant, commit) => {
                let values = vec![Value::text(tenant.as_str()), Value::text(commit)];
                (IS_COMMIT_FORGOTTEN, values)
            }
        };
        let found = self.readers.read_all(statement, &values, rows::run).await?;
        Ok(!found.is_empty())
    }

    async fn observe_suite(&self, seen: SuiteObservation) -> Result<(), LedgerError> {
        self.write(Write::ObserveSuite(seen)).await
    }

    async fn read_suite(
        &self,
        tenant: &TenantId,
        suite: &str,
        place: &Place,
    ) -> Result<SuiteKnowledge, LedgerError> {
        let values = [
            Value::text(&place.image),
            Value::text(&place.branch),
            Value::text(tenant.as_str()),
            Value::text(suite),
        ];
        let tests = self.readers.read_all(READ_SUITE, &values, rows::known_test);
        let tests = tests.await?;
        let overhead = |row: &dyn Columns| rows::duration(row, 0);
        let overheads = self.readers.read_all(READ_OVERHEAD, &values[2..], overhead);
        let batch_overhead = overheads.await?.into_iter().next();
        Ok(SuiteKnowledge {
            tests,
            batch_overhead,
        })
    }

    async fn read_history(
        &self,
        tenant: &TenantId,
        suite: Option<&str>,
    ) -> Result<Vec<TestHistory>, LedgerError> {
        let values = [Value::text(tenant.as_str()), Value::optional_text(suite)];
        self.readers
            .read_all(READ_HISTORY, &values, rows::test_history)
            .await
    }

    async fn keep_verdict(
        &self,
        given: GivenVerdict,
        artefacts: Vec<NamedArtefact>,
        runs: Vec<RunId>,
    ) -> Result<(), LedgerError> {
        let write = Write::KeepVerdict {
            given,
            artefacts,
            runs,
        };
        self.write(write).await
    }

    async fn find_verdicts(&self, query: VerdictQuery) -> Result<Vec<GivenVerdict>, LedgerError> {
        let bundle = query.bundle.map(|bundle| bundle.to_string());
        let values = [
            Value::optional_text(query.tenant.as_ref().map(TenantId::as_str)),
            Value::optional_text(query.commit.as_deref()),
            Value::optional_text(query.run.as_ref().map(RunId::as_str)),
            Value::optional_text(bundle.as_deref()),
            Value::number(bounded(query.limit)),
        ];
        self.readers
            .read_all(FIND_VERDICTS, &values, rows::given_verdict)
            .await
    }

    async fn read_kept_blobs(
        &self,
        since: Timestamp,
        limit: usize,
    ) -> Result<Vec<KeptBlob>, LedgerError> {
        let values = [
            Value::number(signed(since.as_nanos())),
            Value::number(bounded(limit)),
        ];
        let readers = &self.readers;
        let kept = readers.read_all(READ_KEPT_BLOBS, &values, rows::kept_blob);
        Ok(kept.await?.into_iter().flatten().collect())
    }

    async fn reserve_tokens(&self, last: u64) -> Result<(), LedgerError> {
        self.write(Write::ReserveTokens(last)).await
    }

    async fn reserved_tokens(&self) -> Result<u64, LedgerError> {
        let number = |row: &dyn Columns| row.number(0);
        let values = [Value::text(RESERVED_TOKENS)];
        let stored = self.readers.read_all(READ_NUMBER, &values, number).await?;
        Ok(stored.first().copied().map_or(0, rows::unsigned))
    }
}
