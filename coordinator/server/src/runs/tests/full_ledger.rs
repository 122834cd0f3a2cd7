//! A ledger whose disk is full, until it is not.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use regatta_ledger::{
    Forgetting, ForgottenSubject, GivenVerdict, KeptBlob, Ledger, LedgerError, MemoryLedger,
    NamedArtefact, NewRun, OldRun, OldRunsQuery, Place, RunEnd, RunQuery, RunRecord, StoredEvent,
    SuiteKnowledge, SuiteObservation, TestHistory, VerdictQuery,
};
use regatta_model::{RunId, TenantId, Timestamp};
use tokio::sync::watch;

/// Refuses reservations and verdicts, and events unless it is told to take those, while there is no room. It begins
/// without.
#[derive(Debug, Default)]
pub(crate) struct FullLedger {
    pub(crate) memory: MemoryLedger,
    takes_events: bool,
    has_room: AtomicBool,
    /// What becomes of the next writes of runs and their events, if there is room for them.
    answers: Mutex<VecDeque<Answer>>,
    /// Whether whoever reads events waits.
    holds_reads: watch::Sender<bool>,
    readers: AtomicUsize,
}

/// What becomes of a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    Done,
    Failed,
    /// It is said to have failed.
    DoneAndFailed,
}

impl FullLedger {
    pub(crate) fn for_reservations() -> Self {
        Self {
            takes_events: true,
            ..Self::default()
        }
    }

    /// One that answers writes of runs and their events like this, in the order in which they come.
    pub(crate) fn answering(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self {
            answers: Mutex::new(answers.into_iter().collect()),
            ..Self::for_reservations()
        }
    }

    pub(crate) fn make_room(&self) {
        self.has_room.store(true, Ordering::SeqCst);
    }

    pub(crate) fn fill(&self) {
        self.has_room.store(false, Ordering::SeqCst);
    }

    pub(crate) fn hold_reads(&self, hold: bool) {
        self.holds_reads.send_replace(hold);
    }

    /// How many wait for events.
    pub(crate) fn readers(&self) -> usize {
        self.readers.load(Ordering::SeqCst)
    }

    async fn write(
        &self,
        writing: impl Future<Output = Result<(), LedgerError>> + Send,
    ) -> Result<(), LedgerError> {
        let answer = self.answers.lock().expect("nobody panicked").pop_front();
        if answer != Some(Answer::Failed) {
            writing.await?;
        }
        match answer {
            None | Some(Answer::Done) => Ok(()),
            Some(Answer::Failed | Answer::DoneAndFailed) => Err(LedgerError::Unavailable {
                detail: "as the test has it".to_owned(),
            }),
        }
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
        self.write(self.memory.start_run(run)).await
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
        // What begins at the same time gets ahead of it.
        tokio::task::yield_now().await;
        self.write(self.memory.append_events(run, events, end))
            .await
    }

    async fn read_events(
        &self,
        run: &RunId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<StoredEvent>, LedgerError> {
        self.readers.fetch_add(1, Ordering::SeqCst);
        let mut holds = self.holds_reads.subscribe();
        let may_read = holds.wait_for(|holds| !holds).await.map(drop);
        self.readers.fetch_sub(1, Ordering::SeqCst);
        may_read.expect("the sender lives as long");
        self.memory.read_events(run, after, limit).await
    }

    async fn find_runs(&self, query: RunQuery) -> Result<Vec<RunRecord>, LedgerError> {
        self.memory.find_runs(query).await
    }

    async fn find_old_runs(&self, query: OldRunsQuery) -> Result<Vec<OldRun>, LedgerError> {
        self.memory.find_old_runs(query).await
    }

    async fn forget(&self, step: Forgetting) -> Result<(), LedgerError> {
        self.memory.forget(step).await
    }

    async fn find_half_gone(&self, limit: usize) -> Result<Vec<RunId>, LedgerError> {
        self.memory.find_half_gone(limit).await
    }

    async fn is_forgotten(&self, subject: ForgottenSubject) -> Result<bool, LedgerError> {
        self.memory.is_forgotten(subject).await
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

    async fn keep_verdict(
        &self,
        given: GivenVerdict,
        artefacts: Vec<NamedArtefact>,
        runs: Vec<RunId>,
    ) -> Result<(), LedgerError> {
        self.room()?;
        self.memory.keep_verdict(given, artefacts, runs).await
    }

    async fn find_verdicts(&self, query: VerdictQuery) -> Result<Vec<GivenVerdict>, LedgerError> {
        self.memory.find_verdicts(query).await
    }

    async fn read_kept_blobs(
        &self,
        since: Timestamp,
        limit: usize,
    ) -> Result<Vec<KeptBlob>, LedgerError> {
        self.memory.read_kept_blobs(since, limit).await
    }

    async fn reserve_tokens(&self, last: u64) -> Result<(), LedgerError> {
        self.room()?;
        self.memory.reserve_tokens(last).await
    }

    async fn reserved_tokens(&self) -> Result<u64, LedgerError> {
        self.memory.reserved_tokens().await
    }
}
