//! A ledger that is slow, fails, says that it failed when it did not, and is where coordinators crash.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use regatta_ledger::{
    Forgetting, ForgottenSubject, GivenVerdict, KeptBlob, Ledger, LedgerError, LedgerTenure,
    MemoryLedger, NamedArtefact, NewRun, OldRun, OldRunsQuery, Place, RunEnd, RunQuery, RunRecord,
    StoredEvent, SuiteKnowledge, SuiteObservation, TestHistory, VerdictQuery,
};
use regatta_model::{PlantedBug, RunId, TenantId, Timestamp};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::weather::{Fate, Weather};

/// For the how manyeth time somebody has the ledger.
#[derive(Clone, Debug)]
pub(crate) struct Term {
    own: u64,
    last: Arc<AtomicU64>,
}

impl Term {
    /// The next one begins: nobody else has the ledger from now on.
    pub(crate) fn begin(last: &Arc<AtomicU64>) -> Self {
        let own = last.fetch_add(1, Ordering::Relaxed) + 1;
        let last = Arc::clone(last);
        Self { own, last }
    }

    /// Whether no other has begun.
    pub(crate) fn lasts(&self) -> bool {
        self.last.load(Ordering::Relaxed) == self.own
    }

    /// Asks the ledger again and again whether it lasts, and tells.
    pub(crate) async fn watch(self, weather: Weather, tell: watch::Sender<LedgerTenure>) {
        loop {
            tokio::time::sleep(HEARTBEAT).await;
            let answered = Instant::now();
            weather.pass().await;
            if weather.fate("a heartbeat") != Fate::Done {
                continue;
            }
            if !self.lasts() {
                tell.send_replace(LedgerTenure::Superseded);
                return;
            }
            tell.send_replace(LedgerTenure::Ours { answered });
        }
    }
}

/// How often the ledger is asked at least.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// A ledger in any weather. What it has said to be durable is.
#[derive(Debug)]
pub(crate) struct WeatheredLedger {
    pub(crate) below: Arc<MemoryLedger>,
    /// In which term it is asked.
    pub(crate) term: Term,
    pub(crate) weather: Weather,
}

impl WeatheredLedger {
    /// Does a write as the weather allows.
    async fn write<Writing>(&self, what: &str, writing: Writing) -> Result<(), LedgerError>
    where
        Writing: Future<Output = Result<(), LedgerError>> + Send,
    {
        self.weather.pass().await;
        if !self.term.lasts() && !PlantedBug::LedgerFenceSkipped.is_planted() {
            return Err(LedgerError::Superseded);
        }
        match self.weather.fate_of_write(what) {
            Fate::Done => {
                writing.await?;
                self.weather.tell(&format!("ledger: {what}"));
                // The answer is on its way.
                self.weather.pass().await;
                Ok(())
            }
            Fate::Failed => Err(unavailable()),
            Fate::DoneAndFailed => {
                writing.await?;
                Err(unavailable())
            }
            Fate::Crashed { done } => {
                if done {
                    writing.await?;
                }
                self.weather.crash(what, done).await;
                Err(LedgerError::Closed)
            }
        }
    }

    async fn read(&self, what: &str) -> Result<(), LedgerError> {
        self.weather.pass().await;
        match self.weather.fate(what) {
            Fate::Done => Ok(()),
            Fate::Failed | Fate::DoneAndFailed | Fate::Crashed { .. } => Err(unavailable()),
        }
    }
}

/// A run's id, as far as it takes to tell it from others.
fn brief(run: &RunId) -> String {
    run.as_str().chars().take(6).collect()
}

fn unavailable() -> LedgerError {
    LedgerError::Unavailable {
        detail: "bad weather".to_owned(),
    }
}

#[async_trait]
impl Ledger for WeatheredLedger {
    async fn start_run(&self, run: NewRun) -> Result<(), LedgerError> {
        let what = format!("run {} begins", brief(&run.run));
        self.write(&what, self.below.start_run(run)).await
    }

    async fn append_events(
        &self,
        run: &RunId,
        events: Vec<StoredEvent>,
        end: Option<RunEnd>,
    ) -> Result<(), LedgerError> {
        let (first, last) = (events.first(), events.last());
        let what = format!(
            "events {} to {}{} of run {}",
            first.map_or(0, |event| event.sequence),
            last.map_or(0, |event| event.sequence),
            if end.is_some() { " and the end" } else { "" },
            brief(run)
        );
        let appending = self.below.append_events(run, events, end);
        self.write(&what, appending).await
    }

    async fn read_events(
        &self,
        run: &RunId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<StoredEvent>, LedgerError> {
        self.read("reading events").await?;
        self.below.read_events(run, after, limit).await
    }

    async fn find_runs(&self, query: RunQuery) -> Result<Vec<RunRecord>, LedgerError> {
        self.read("finding runs").await?;
        self.below.find_runs(query).await
    }

    async fn find_old_runs(&self, query: OldRunsQuery) -> Result<Vec<OldRun>, LedgerError> {
        self.read("finding old runs").await?;
        self.below.find_old_runs(query).await
    }

    async fn forget(&self, step: Forgetting) -> Result<(), LedgerError> {
        self.write("a step of forgetting", self.below.forget(step))
            .await
    }

    async fn find_half_gone(&self, limit: usize) -> Result<Vec<RunId>, LedgerError> {
        self.read("finding runs that are half gone").await?;
        self.below.find_half_gone(limit).await
    }

    async fn is_forgotten(&self, subject: ForgottenSubject) -> Result<bool, LedgerError> {
        self.read("asking whether something was forgotten").await?;
        self.below.is_forgotten(subject).await
    }

    async fn observe_suite(&self, seen: SuiteObservation) -> Result<(), LedgerError> {
        let observing = self.below.observe_suite(seen);
        self.write("what a suite taught", observing).await
    }

    async fn read_suite(
        &self,
        tenant: &TenantId,
        suite: &str,
        place: &Place,
    ) -> Result<SuiteKnowledge, LedgerError> {
        self.read("reading of a suite").await?;
        self.below.read_suite(tenant, suite, place).await
    }

    async fn read_history(
        &self,
        tenant: &TenantId,
        suite: Option<&str>,
    ) -> Result<Vec<TestHistory>, LedgerError> {
        self.read("reading history").await?;
        self.below.read_history(tenant, suite).await
    }

    async fn keep_verdict(
        &self,
        given: GivenVerdict,
        artefacts: Vec<NamedArtefact>,
        runs: Vec<RunId>,
    ) -> Result<(), LedgerError> {
        let what = format!("a verdict of run {}", brief(&given.run));
        let keeping = self.below.keep_verdict(given, artefacts, runs);
        self.write(&what, keeping).await
    }

    async fn find_verdicts(&self, query: VerdictQuery) -> Result<Vec<GivenVerdict>, LedgerError> {
        self.read("finding verdicts").await?;
        self.below.find_verdicts(query).await
    }

    async fn read_kept_blobs(
        &self,
        since: Timestamp,
        limit: usize,
    ) -> Result<Vec<KeptBlob>, LedgerError> {
        self.read("reading what verdicts keep").await?;
        self.below.read_kept_blobs(since, limit).await
    }

    async fn reserve_tokens(&self, last: u64) -> Result<(), LedgerError> {
        let what = format!("tokens up to {last}");
        self.write(&what, self.below.reserve_tokens(last)).await
    }

    async fn reserved_tokens(&self) -> Result<u64, LedgerError> {
        self.read("reading of tokens").await?;
        self.below.reserved_tokens().await
    }
}
