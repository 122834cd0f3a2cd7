//! What is known of a suite's tests and has yet to be told, cached and remembered.

use std::time::Duration;

use regatta_ledger::{SuiteObservation, TestObservation};
use regatta_model::Digest;
use regatta_wire::v1;
use regatta_wire::v1::run_event::Event;

use super::audit::Claim;
use super::{MAX_RESULTS_PER_EVENT, place_of};
use crate::runs::action::{Pass, distrust, store};
use crate::runs::context::{JobContext, RunContext};
use crate::runs::lessons::{is_repetition, lesson, results_of};
use crate::runs::log::now;

/// Why tests are executed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// Nobody knows how they end.
    Answer,
    /// What is known of them is looked into.
    Audit(Claim),
}

/// Gathers what comes of tests, so that it is passed on many at a time.
pub(super) struct Outbox<'a> {
    job: &'a JobContext,
    finished: Vec<v1::TestResult>,
    /// Of cached passes that were executed again and passed.
    agreed: Vec<v1::TestResult>,
    passes: Vec<Pass>,
    wrong: Vec<Digest>,
}

impl<'a> Outbox<'a> {
    pub(super) fn new(job: &'a JobContext) -> Self {
        Self {
            job,
            finished: Vec::new(),
            agreed: Vec::new(),
            passes: Vec::new(),
            wrong: Vec::new(),
        }
    }

    /// Tells watchers a result with the next flush.
    pub(super) fn tell(&mut self, result: v1::TestResult) {
        self.finished.push(result);
    }

    /// Tells with the next flush that a test passed again whose pass is cached.
    pub(super) fn agree(&mut self, result: v1::TestResult) {
        self.agreed.push(result);
    }

    /// Caches a pass with the next flush, before anyone is told of it.
    pub(super) fn cache(&mut self, pass: Pass) {
        self.passes.push(pass);
    }

    /// Forgets a pass with the next flush, before anyone is told of it.
    pub(super) fn distrust(&mut self, key: Digest) {
        self.wrong.push(key);
    }

    /// Flushes if there are as many results as one event holds.
    pub(super) async fn flush_if_full(&mut self) {
        if self.finished.len() + self.agreed.len() >= MAX_RESULTS_PER_EVENT {
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
        let agreed = std::mem::take(&mut self.agreed);
        let executed = |results| Event::HitsExecuted(v1::HitsExecuted { results });
        tell_as(self.job, agreed, executed).await;
    }

    /// Passes on all that is left, and what a batch was seen to cost besides its tests.
    pub(super) async fn close(&mut self, batch_overhead: Option<Duration>) {
        self.flush().await;
        if batch_overhead.is_none() {
            return;
        }
        let seen = SuiteObservation {
            batch_overhead,
            ..observation(&self.job.run, self.job.index, Vec::new())
        };
        if let Err(error) = self.job.run.ledger.observe_suite(seen).await {
            tracing::warn!(run = %self.job.run.run, %error, "timings could not be stored");
        }
    }
}

/// Tells watchers results, and has the ledger learn from them.
pub(super) async fn tell(job: &JobContext, results: Vec<v1::TestResult>) {
    let finished = |results| Event::TestsFinished(v1::TestsFinished { results });
    tell_as(job, results, finished).await;
}

async fn tell_as(
    job: &JobContext,
    results: Vec<v1::TestResult>,
    event: impl Fn(Vec<v1::TestResult>) -> Event,
) {
    let mut results = results.into_iter().peekable();
    while results.peek().is_some() {
        let some = results.by_ref().take(MAX_RESULTS_PER_EVENT).collect();
        job.run.log.room().await;
        append_results(&job.run, job.index, Some(job.input_root), event(some));
    }
}

/// Adds an event that tells results of a job's tests, from which the ledger learns when it becomes durable: so each
/// test is learnt once. `input_root` is what their keys cover, if that is known.
pub(super) fn append_results(
    run: &RunContext,
    job: usize,
    input_root: Option<Digest>,
    event: Event,
) {
    let time = now();
    let name = run.plan.jobs[job].name.as_str();
    let mut specified = run.plan.spec.jobs.iter();
    let teaches = !specified.any(|job| job.name == name && is_repetition(job));
    let results = results_of(&event).iter().filter(|_| teaches);
    let tests = results.filter_map(|result| lesson(result, time));
    let tests = tests.map(|seen| TestObservation { input_root, ..seen });
    let tests: Vec<_> = tests.collect();
    match tests.is_empty() {
        true => run.log.append(event),
        false => {
            let seen = observation(run, job, tests);
            run.log.append_teaching(time, event, seen);
        }
    }
}

fn observation(run: &RunContext, job: usize, tests: Vec<TestObservation>) -> SuiteObservation {
    SuiteObservation {
        tenant: run.plan.tenant.clone(),
        suite: run.plan.jobs[job].name.to_string(),
        place: place_of(&run.plan, job),
        tests,
        batch_overhead: None,
    }
}
