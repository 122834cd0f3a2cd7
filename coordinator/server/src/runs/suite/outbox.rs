//! What is known of a suite's tests and has yet to be told, cached and remembered.

use std::time::Duration;

use regatta_ledger::{SuiteObservation, TestObservation};
use regatta_model::Digest;
use regatta_wire::{reapi, v1};

use super::{MAX_RESULTS_PER_EVENT, place_of, tell};
use crate::runs::action::{distrust, store};
use crate::runs::context::JobContext;

/// Why tests are executed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// Nobody knows how they end.
    Answer,
    /// They are known to pass, which is looked into.
    Audit,
}

/// Gathers what comes of tests, so that it is passed on many at a time.
pub(super) struct Outbox<'a> {
    job: &'a JobContext,
    finished: Vec<v1::TestResult>,
    passes: Vec<(Digest, reapi::ActionResult)>,
    wrong: Vec<Digest>,
    observations: Vec<TestObservation>,
}

impl<'a> Outbox<'a> {
    pub(super) fn new(job: &'a JobContext) -> Self {
        Self {
            job,
            finished: Vec::new(),
            passes: Vec::new(),
            wrong: Vec::new(),
            observations: Vec::new(),
        }
    }

    /// Tells watchers a result with the next flush.
    pub(super) fn tell(&mut self, result: v1::TestResult) {
        self.finished.push(result);
    }

    /// Caches a pass with the next flush, before anyone is told of it.
    pub(super) fn cache(&mut self, key: Digest, pass: reapi::ActionResult) {
        self.passes.push((key, pass));
    }

    /// Forgets a pass with the next flush, before anyone is told of it.
    pub(super) fn distrust(&mut self, key: Digest) {
        self.wrong.push(key);
    }

    /// Lets the ledger learn from a test once all of them have ended.
    pub(super) fn remember(&mut self, observation: TestObservation) {
        self.observations.push(observation);
    }

    /// Flushes if there are as many results as one event holds.
    pub(super) async fn flush_if_full(&mut self) {
        if self.finished.len() >= MAX_RESULTS_PER_EVENT {
            self.flush().await;
        }
    }

    /// Caches and tells what there is.
    pub(super) async fn flush(&mut self) {
        let passes = std::mem::take(&mut self.passes);
        if !passes.is_empty() {
            store(self.job, passes).await;
        }
        distrust(self.job, std::mem::take(&mut self.wrong)).await;
        let finished = std::mem::take(&mut self.finished);
        metrics::counter!("regatta_tests_finished_total").increment(finished.len() as u64);
        tell(self.job, finished).await;
    }

    /// Passes on all that is left, and what a batch was seen to cost besides its tests.
    pub(super) async fn close(&mut self, batch_overhead: Option<Duration>) {
        self.flush().await;
        if self.observations.is_empty() {
            return;
        }
        let seen = SuiteObservation {
            tenant: self.job.run.plan.tenant.clone(),
            suite: self.job.name(),
            place: place_of(self.job),
            tests: std::mem::take(&mut self.observations),
            batch_overhead,
        };
        if let Err(error) = self.job.run.ledger.observe_suite(seen).await {
            tracing::warn!(run = %self.job.run.run, %error, "timings could not be stored");
        }
    }
}
