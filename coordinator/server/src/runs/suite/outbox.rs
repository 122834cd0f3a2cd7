//! What is known of a suite's tests and has yet to be told, cached and remembered.

use std::time::Duration;

use regatta_ledger::{SuiteObservation, TestObservation};
use regatta_model::Digest;
use regatta_wire::v1;
use regatta_wire::v1::run_event::Event;

use super::audit::Claim;
use super::{MAX_RESULTS_PER_EVENT, place_of};
use crate::runs::action::{Pass, distrust, store};
use crate::runs::context::JobContext;

/// Why tests are executed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// Nobody knows how they end.
    Answer,
    /// What is known of them is looked into.
    Audit(Claim),
}

/// A result, and what the ledger is to learn from it, with which it becomes durable: so each test is learnt once.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) result: v1::TestResult,
    pub(super) seen: Option<TestObservation>,
}

impl From<v1::TestResult> for Told {
    fn from(result: v1::TestResult) -> Self {
        Self { result, seen: None }
    }
}

/// Gathers what comes of tests, so that it is passed on many at a time.
pub(super) struct Outbox<'a> {
    job: &'a JobContext,
    finished: Vec<Told>,
    passes: Vec<Pass>,
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
    pub(super) fn tell(&mut self, told: impl Into<Told>) {
        self.finished.push(told.into());
    }

    /// Caches a pass with the next flush, before anyone is told of it.
    pub(super) fn cache(&mut self, pass: Pass) {
        self.passes.push(pass);
    }

    /// Forgets a pass with the next flush, before anyone is told of it.
    pub(super) fn distrust(&mut self, key: Digest) {
        self.wrong.push(key);
    }

    /// Lets the ledger learn from a test of which no result is told, once all have ended.
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
        if self.observations.is_empty() && batch_overhead.is_none() {
            return;
        }
        let tests = std::mem::take(&mut self.observations);
        let seen = SuiteObservation {
            batch_overhead,
            ..observation(self.job, tests)
        };
        if let Err(error) = self.job.run.ledger.observe_suite(seen).await {
            tracing::warn!(run = %self.job.run.run, %error, "timings could not be stored");
        }
    }
}

/// Tells watchers results, and has the ledger learn from them.
pub(super) async fn tell(job: &JobContext, told: Vec<Told>) {
    let mut told = told.into_iter().peekable();
    while told.peek().is_some() {
        let (mut results, mut tests) = (Vec::new(), Vec::new());
        for Told { result, seen } in told.by_ref().take(MAX_RESULTS_PER_EVENT) {
            results.push(result);
            tests.extend(seen);
        }
        job.run.log.room().await;
        let event = Event::TestsFinished(v1::TestsFinished { results });
        match tests.is_empty() {
            true => job.run.log.append(event),
            false => {
                let seen = observation(job, tests);
                job.run.log.append_teaching(event, seen);
            }
        }
    }
}

fn observation(job: &JobContext, tests: Vec<TestObservation>) -> SuiteObservation {
    SuiteObservation {
        tenant: job.run.plan.tenant.clone(),
        suite: job.name(),
        place: place_of(job),
        tests,
        batch_overhead: None,
    }
}
