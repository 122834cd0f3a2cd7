//! A ledger whose disk is full, until it is not.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use regatta_ledger::{
    Ledger, LedgerError, MemoryLedger, NewRun, Place, RunEnd, RunQuery, RunRecord, StoredEvent,
    SuiteKnowledge, SuiteObservation, TestHistory,
};
use regatta_model::{RunId, TenantId};

/// Refuses reservations, and events unless it is told to take those, while there is no room. It begins
/// without.
#[derive(Debug, Default)]
pub(crate) struct FullLedger {
    pub(crate) memory: MemoryLedger,
    takes_events: bool,
    has_room: AtomicBool,
}

impl FullLedger {
    pub(crate) fn for_reservations() -> Self {
        Self {
            takes_events: true,
            ..Self::default()
        }
    }

    pub(crate) fn make_room(&self) {
        self.has_room.store(true, Ordering::SeqCst);
    }

    fn room(&self) -> Result<(), LedgerError> {
        if self.has_room.load(Ordering::SeqCst) {
            return Ok(());
        }
        Err(LedgerError::Unavailable {
            detail: "database or disk is full".to_owned(),
        })
    }
}

#[async_trait]
impl Ledger for FullLedger {
    async fn start_run(&self, run: NewRun) -> Result<(), LedgerError> {
        self.memory.start_run(run).await
    }

    async fn append_events(
        &self,
        run: &RunId,
        events: Vec<StoredEvent>,
        end: Option<RunEnd>,
    ) -> Result<(), LedgerError> {
        if !self.takes_events {
            self.room()?;
        }
        self.memory.append_events(run, events, end).await
    }

    async fn read_events(
        &self,
        run: &RunId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<StoredEvent>, LedgerError> {
        self.memory.read_events(run, after, limit).await
    }

    async fn find_runs(&self, query: RunQuery) -> Result<Vec<RunRecord>, LedgerError> {
        self.memory.find_runs(query).await
    }

    async fn observe_suite(&self, seen: SuiteObservation) -> Result<(), LedgerError> {
        self.memory.observe_suite(seen).await
    }

    async fn read_suite(
        &self,
        tenant: &TenantId,
        suite: &str,
        place: &Place,
    ) -> Result<SuiteKnowledge, LedgerError> {
        self.memory.read_suite(tenant, suite, place).await
    }

    async fn read_history(
        &self,
        tenant: &TenantId,
        suite: Option<&str>,
    ) -> Result<Vec<TestHistory>, LedgerError> {
        self.memory.read_history(tenant, suite).await
    }

    async fn reserve_tokens(&self, last: u64) -> Result<(), LedgerError> {
        self.room()?;
        self.memory.reserve_tokens(last).await
    }

    async fn reserved_tokens(&self) -> Result<u64, LedgerError> {
        self.memory.reserved_tokens().await
    }
}
