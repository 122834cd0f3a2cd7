//! How long the ledger takes, and how often it fails, as metrics.

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use regatta_ledger::{
    Forgetting, ForgottenSubject, GivenVerdict, KeptBlob, Ledger, LedgerError, NamedArtefact,
    NewRun, OldRun, OldRunsQuery, Place, RunEnd, RunQuery, RunRecord, StoredEvent, SuiteKnowledge,
    SuiteObservation, TestHistory, VerdictQuery,
};
use regatta_model::{RunId, TenantId, Timestamp};

/// Measures each call of a ledger: `regatta_ledger_seconds` and `regatta_ledger_failures_total`, by call.
#[derive(Debug)]
pub(crate) struct MeasuringLedger {
    measured: Arc<dyn Ledger>,
}

impl MeasuringLedger {
    pub(crate) const fn new(measured: Arc<dyn Ledger>) -> Self {
        Self { measured }
    }
}

/// A call that is given up by its caller is not measured: nobody knows how long it would have taken.
async fn measure<Answer>(
    call: &'static str,
    asked: impl Future<Output = Result<Answer, LedgerError>>,
) -> Result<Answer, LedgerError> {
    let begun = Instant::now();
    let answer = asked.await;
    metrics::histogram!("regatta_ledger_seconds", "call" => call).record(begun.elapsed());
    if answer.is_err() {
        metrics::counter!("regatta_ledger_failures_total", "call" => call).increment(1);
    }
    answer
}

#[async_trait]
impl Ledger for MeasuringLedger {
    async fn start_run(&self, run: NewRun) -> Result<(), LedgerError> {
        measure("start_run", self.measured.start_run(run)).await
    }

    async fn append_events(
        &self,
        run: &RunId,
        events: Vec<StoredEvent>,
        end: Option<RunEnd>,
    ) -> Result<(), LedgerError> {
        let appended = self.measured.append_events(run, events, end);
        measure("append_events", appended).await
    }

    async fn read_events(
        &self,
        run: &RunId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<StoredEvent>, LedgerError> {
        let read = self.measured.read_events(run, after, limit);
        measure("read_events", read).await
    }

    async fn find_runs(&self, query: RunQuery) -> Result<Vec<RunRecord>, LedgerError> {
        measure("find_runs", self.measured.find_runs(query)).await
    }

    async fn find_old_runs(&self, query: OldRunsQuery) -> Result<Vec<OldRun>, LedgerError> {
        measure("find_old_runs", self.measured.find_old_runs(query)).await
    }

    async fn forget(&self, step: Forgetting) -> Result<(), LedgerError> {
        measure("forget", self.measured.forget(step)).await
    }

    async fn find_half_gone(&self, limit: usize) -> Result<Vec<RunId>, LedgerError> {
        measure("find_half_gone", self.measured.find_half_gone(limit)).await
    }

    async fn is_forgotten(&self, subject: ForgottenSubject) -> Result<bool, LedgerError> {
        measure("is_forgotten", self.measured.is_forgotten(subject)).await
    }

    async fn observe_suite(&self, seen: SuiteObservation) -> Result<(), LedgerError> {
        measure("observe_suite", self.measured.observe_suite(seen)).await
    }

    async fn read_suite(
        &self,
        tenant: &TenantId,
        suite: &str,
        place: &Place,
    ) -> Result<SuiteKnowledge, LedgerError> {
        let read = self.measured.read_suite(tenant, suite, place);
        measure("read_suite", read).await
    }

    async fn read_history(
        &self,
        tenant: &TenantId,
        suite: Option<&str>,
    ) -> Result<Vec<TestHistory>, LedgerError> {
        let read = self.measured.read_history(tenant, suite);
        measure("read_history", read).await
    }

    async fn keep_verdict(
        &self,
        given: GivenVerdict,
        artefacts: Vec<NamedArtefact>,
        runs: Vec<RunId>,
    ) -> Result<(), LedgerError> {
        let kept = self.measured.keep_verdict(given, artefacts, runs);
        measure("keep_verdict", kept).await
    }

    async fn find_verdicts(&self, query: VerdictQuery) -> Result<Vec<GivenVerdict>, LedgerError> {
        measure("find_verdicts", self.measured.find_verdicts(query)).await
    }

    async fn read_kept_blobs(
        &self,
        since: Timestamp,
        limit: usize,
    ) -> Result<Vec<KeptBlob>, LedgerError> {
        let read = self.measured.read_kept_blobs(since, limit);
        measure("read_kept_blobs", read).await
    }

    async fn reserve_tokens(&self, last: u64) -> Result<(), LedgerError> {
        measure("reserve_tokens", self.measured.reserve_tokens(last)).await
    }

    async fn reserved_tokens(&self) -> Result<u64, LedgerError> {
        measure("reserved_tokens", self.measured.reserved_tokens()).await
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;
    use regatta_ledger::{MemoryLedger, conformance};

    use super::*;
    use crate::runs::tests::FullLedger;

    /// What the metrics are after something was asked of a ledger.
    fn metrics_of(ledger: Arc<dyn Ledger>, ask: impl AsyncFn(&dyn Ledger)) -> String {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let ledger = MeasuringLedger::new(ledger);
        metrics::with_local_recorder(&recorder, || {
            runtime.expect("a runtime").block_on(ask(&ledger));
        });
        handle.render()
    }

    #[test]
    fn it_is_a_ledger_whose_calls_are_counted_and_timed() {
        let ledger = Arc::new(MemoryLedger::new());
        let page = metrics_of(ledger, async |ledger| conformance::check(ledger).await);
        for call in [
            "append_events",
            "observe_suite",
            "read_suite",
            "reserve_tokens",
        ] {
            let timed = format!("regatta_ledger_seconds_count{{call=\"{call}\"}}");
            assert!(page.contains(&timed), "{call}: {page}");
        }
        assert!(!page.contains("failures"), "{page}");
    }

    #[test]
    fn failures_are_counted() {
        let ledger = Arc::new(FullLedger::for_reservations());
        let page = metrics_of(ledger, async |ledger| {
            for _ in 0..2 {
                ledger.reserve_tokens(1).await.expect_err("it is full");
            }
        });
        let failed = "regatta_ledger_failures_total{call=\"reserve_tokens\"} 2";
        assert!(page.contains(failed), "{page}");
    }
}
