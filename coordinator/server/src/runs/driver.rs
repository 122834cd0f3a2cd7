//! Carries a run out: feeds its state with what happens, and does what the state says.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use regatta_ledger::{RunEnd, RunTimes};
use regatta_model::Timestamp;
use regatta_verdict::{Policy, is_required};
use regatta_wire::convert::duration_to_wire;
use regatta_wire::v1::run_event::Event;
use regatta_wire::{reapi, v1};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use super::build::run_build;
use super::conclusion::Conclusion;
use super::context::{JobOutcome, RunContext, unknown};
use super::event;
use super::log::now;
use super::needed::keep;
use super::plan::{JobKind, PlannedInput};
use super::preparation::{inputs_of, prepare};
use super::state::{JobNode, RunInput, RunOutput, RunState};
use super::suite::{audit_hits, end_failed_audits, run_suite};
use super::waiting::tell_of_waiting;

/// Drives one run.
struct RunDriver {
    context: Arc<RunContext>,
    state: RunState,
    cancel: CancellationToken,
    started: Instant,
    /// How long it went on in earlier processes.
    earlier: Duration,
    tasks: JoinSet<JobOutcome>,
    /// The job that each task carries out.
    running: HashMap<Id, usize>,
    stops: HashMap<usize, (CancellationToken, Begun)>,
    results: HashMap<usize, reapi::ActionResult>,
    /// What the coordinator failed at, if it did.
    trouble: Option<String>,
}

/// When a job began.
#[derive(Clone, Copy)]
struct Begun {
    /// How long it went on in earlier processes.
    earlier: Duration,
    now: Instant,
}

impl Begun {
    fn elapsed(&self) -> Duration {
        self.earlier + self.now.elapsed()
    }
}

/// How long ago that was; nothing if it never was.
fn since(time: Option<Timestamp>) -> Duration {
    time.map_or(Duration::ZERO, |time| now().since(time))
}

/// Drives a run to its end. `cancel` ends it early.
pub(super) async fn drive(context: Arc<RunContext>, cancel: CancellationToken) {
    let spec = &context.plan.spec;
    let node = |(job, asked): (&super::plan::PlannedJob, &v1::Job)| JobNode {
        name: job.name.to_string(),
        needs: job.needs.clone(),
        is_suite: matches!(job.kind, JobKind::Suite(_)),
        is_required: is_required(spec, asked),
        told: context.recorded.told_of(job.name.as_str()),
    };
    let jobs = context.plan.jobs.iter().zip(&spec.jobs);
    let nodes = jobs.map(node).collect();
    let told = Arc::clone(&context);
    let mut driver = RunDriver {
        state: RunState::new(nodes, NonZeroU32::new(context.plan.spec.max_failures)),
        context,
        cancel,
        started: Instant::now(),
        earlier: since(told.recorded.begun_at()),
        tasks: JoinSet::new(),
        running: HashMap::new(),
        stops: HashMap::new(),
        results: HashMap::new(),
        trouble: None,
    };
    driver.recall();
    tokio::select! {
        () = driver.run() => {}
        () = tell_of_waiting(&told) => {}
        () = keep(&told) => {}
    }
}

impl RunDriver {
    /// Takes in which jobs ended in earlier processes.
    fn recall(&mut self) {
        for (index, job) in self.context.plan.jobs.iter().enumerate() {
            let ended = self.context.recorded.end_of(job.name.as_str());
            let Some((end, finished)) = ended else {
                continue;
            };
            let result = finished.result.clone();
            result.iter().for_each(|it| self.context.needed.add(it));
            self.results.extend(result.map(|it| (index, it)));
            self.state.recall(index, end);
        }
    }

    async fn run(&mut self) {
        let context = Arc::clone(&self.context);
        let mut cancelled = context.recorded.is_cancelled();
        let mut input = match cancelled {
            // Nothing is started that would be stopped at once.
            true => RunInput::Cancelled,
            false => RunInput::Started,
        };
        loop {
            for output in self.state.step(input) {
                self.context.log.room().await;
                if let RunOutput::Finish(conclusion) = output {
                    let conclusion = self.audited(conclusion).await;
                    self.finish(conclusion);
                    return;
                }
                self.perform(output);
            }
            input = tokio::select! {
                () = self.cancel.cancelled(), if !cancelled => {
                    cancelled = true;
                    RunInput::Cancelled
                }
                failures = self.context.failures.seen() => RunInput::FailuresSeen(failures),
                Some(ended) = self.tasks.join_next_with_id() => self.job_ended(ended),
                else => return,
            };
        }
    }

    fn perform(&mut self, output: RunOutput) {
        match output {
            RunOutput::Start(job) => self.start(job),
            RunOutput::Stop(job) => {
                if let Some((stop, _)) = self.stops.get(&job) {
                    stop.cancel();
                }
            }
            RunOutput::NeverStarted(job, end) => self.tell_end(job, &end.into(), None),
            RunOutput::Finish(_) => {}
        }
    }

    fn start(&mut self, index: usize) {
        let name = self.context.plan.jobs[index].name.to_string();
        let span = tracing::info_span!("job", run = %self.context.run, job = name);
        let started_before = self.context.recorded.started_at(&name);
        if started_before.is_none() {
            let started = v1::JobStarted { job: name };
            self.context.log.append(Event::JobStarted(started));
        }
        let stop = CancellationToken::new();
        let begun = Begun {
            earlier: since(started_before),
            now: Instant::now(),
        };
        self.stops.insert(index, (stop.clone(), begun));
        let results = inputs_of(&self.context, index, |job| self.results.get(&job).cloned());
        let context = Arc::clone(&self.context);
        let task = run_job(context, index, results, stop).instrument(span);
        let handle = self.tasks.spawn(task);
        self.running.insert(handle.id(), index);
    }

    fn job_ended(&mut self, ended: Result<(Id, JobOutcome), JoinError>) -> RunInput {
        let (id, mut outcome) = match ended {
            Ok(ended) => ended,
            Err(error) => {
                let text = format!("the coordinator failed: {error}; report this");
                (error.id(), unknown(text).into())
            }
        };
        let Some(job) = self.running.remove(&id) else {
            return RunInput::Started;
        };
        let name = self.context.plan.jobs[job].name.as_str();
        outcome.end = self.context.recorded.completed(name, outcome.end);
        let started = self.stops.remove(&job).map(|(_, started)| started);
        self.tell_end(job, &outcome, started);
        if let Some(result) = outcome.result {
            self.context.needed.add(&result);
            self.results.insert(job, result);
        }
        RunInput::JobEnded(job, outcome.end)
    }

    fn tell_end(&self, job: usize, outcome: &JobOutcome, started: Option<Begun>) {
        let name = self.context.plan.jobs[job].name.to_string();
        let status = outcome.end.status;
        tracing::info!(run = %self.context.run, job = name, ?status, "a job has ended");
        let duration = started.map(|started| started.elapsed());
        let finished = event::job_finished(name, outcome, duration);
        self.context.log.append(Event::JobFinished(finished));
    }

    /// What a run comes to once some of the cached passes that it rests on have been looked into.
    async fn audited(&mut self, mut conclusion: Conclusion) -> Conclusion {
        let context = Arc::clone(&self.context);
        // What was found before a restart stays found, whatever has stopped the run since.
        end_failed_audits(&context).await;
        if conclusion.may_be_audited() {
            self.trouble = audit(&context, &self.cancel).await;
            if self.cancel.is_cancelled() {
                conclusion = conclusion.cancelled();
            }
            conclusion = conclusion.without(lost_audits(&context));
            conclusion = conclusion.without(context.audit.unanswered());
        }
        let audit = &context.audit;
        conclusion.corrected_by(&audit.disagreements(), audit.complaints())
    }

    fn finish(&mut self, mut conclusion: Conclusion) {
        if let Some(reason) = self.trouble.take() {
            conclusion = conclusion.stopped_by(reason);
        }
        let context = &self.context;
        let policy = Policy::of_run(&context.plan.spec);
        let conclusion = conclusion.within(policy.as_ref());
        tracing::info!(
            run = %context.run, verdict = %conclusion.verdict, reasons = ?conclusion.reasons,
            "a run has ended"
        );
        metrics::counter!("regatta_runs_finished_total", "verdict" => conclusion.verdict.to_string())
            .increment(1);
        let end = RunEnd {
            finished_at: now(),
            verdict: conclusion.verdict,
            counts: conclusion.counts,
            times: context.recorded.begun_at().is_none().then(|| RunTimes {
                took: Some(self.started.elapsed()),
                ..context.times.sum()
            }),
        };
        let event = Event::RunFinished(v1::RunFinished {
            verdict: event::verdict(conclusion.verdict).into(),
            reasons: conclusion.reasons,
            counts: Some(event::counts(&conclusion.counts)),
            duration: Some(duration_to_wire(self.earlier + self.started.elapsed())),
            leases: context.leases.load(Ordering::Relaxed),
            cancelled: conclusion.cancelled,
            times: end.times.map(event::times),
            never_began: false,
        });
        context.log.finish(event, end);
    }
}

/// Looks into cached passes; tells what kept it from it, if anything did.
async fn audit(context: &Arc<RunContext>, cancel: &CancellationToken) -> Option<String> {
    // A task of its own, so that whatever becomes of it the run ends.
    let audit = tokio::spawn(audit_hits(Arc::clone(context), cancel.clone()));
    let failed = AbortOnDropHandle::new(audit).await.err();
    failed.map(|error| format!("cached passes could not be looked into: {error}; report this"))
}

/// Of which suites nothing that is cached is looked into though that was asked for, for people: they ended before a
/// restart.
fn lost_audits(run: &RunContext) -> Vec<String> {
    let is_lost = |name: &str| {
        let mut hits = run.recorded.hits.unaudited(name);
        run.recorded.end_of(name).is_some() && hits.any(|key| run.audit.is_wanted(&run.run, key))
    };
    let names = run.plan.jobs.iter().map(|job| job.name.as_str());
    let lost = names.filter(|name| is_lost(name)).map(|name| {
        format!(
            "what is cached of `{name}` was to be looked into, and the coordinator was restarted before that was done: \
             run it again"
        )
    });
    lost.collect()
}

async fn run_job(
    run: Arc<RunContext>,
    index: usize,
    results: Vec<(PlannedInput, reapi::ActionResult)>,
    cancel: CancellationToken,
) -> JobOutcome {
    let job = match prepare(Arc::clone(&run), index, &results, cancel).await {
        Ok(job) => job,
        Err(end) => return end.into(),
    };
    let work = async {
        match &run.plan.jobs[index].kind {
            JobKind::Build {
                arguments,
                do_not_cache,
            } => run_build(&job, arguments, *do_not_cache).await,
            JobKind::Suite(suite) => run_suite(&job, suite).await,
        }
    };
    tokio::select! {
        outcome = work => outcome,
        () = run.trees.keep(job.input_root) => unknown("its inputs are not kept".to_owned()).into(),
    }
}
