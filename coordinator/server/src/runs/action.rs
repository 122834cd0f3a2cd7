//! One action of a job: from the cache, or carried out.

use std::time::Duration;

use bytes::Bytes;
use regatta_model::{Digest, FailureClass};
use regatta_scheduler::{ExpectedUnit, FailedAt};
use regatta_wire::{reapi, v1};

use super::ahead::start_workers;
use super::context::{JobContext, JobWork, RunContext, cancelled, of_unit, unknown};
use super::event::{duration_of, provenance};
use super::keys::{action_key, attempt_key};
use super::origin::stamped;
use super::state::JobEnd;
use crate::dispatch::{BatchShape, TaskEvent, TaskHandle, UnitPlan};

/// How long an action is expected to take if nothing is known of it.
const EXPECTED: Duration = Duration::from_secs(1);
/// Live output that a job's events may hold, in bytes; all of it is in the result.
const MAX_LOGGED_OUTPUT_BYTES: usize = 1 << 20;

/// What the keys of actions say of who judges them.
pub(super) const ACTION: &str = "action";

/// What to carry out.
pub(super) struct ActionSpec {
    pub(super) arguments: Vec<String>,
    /// `None` never serves it from the cache, merges it or stores it; nor does anything if it is unknown
    /// what the job runs in.
    pub(super) cache: Option<Lookup>,
    pub(super) stream_output: bool,
    /// What it is to make, relative to the working directory.
    pub(super) output_paths: Vec<String>,
    /// Which attempt of its job it is, from 1.
    pub(super) attempt: u32,
    /// Where the last one has failed.
    pub(super) failed_at: Option<FailedAt>,
    /// What may carry it out in place of a process of its own.
    pub(super) worker: Option<v1::PersistentWorker>,
    /// Whether others wait for it, so that it goes before work that nobody waits for.
    pub(super) is_awaited: bool,
}

/// Whether a known result will do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Lookup {
    Allowed,
    /// Its result is stored all the same.
    Skipped,
}

/// How an action ended.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) outcome: v1::ExecutionOutcome,
    pub(super) cached: bool,
    pub(super) provenance: Option<v1::Provenance>,
}

impl Answer {
    /// Its result; an empty one if it has none.
    pub(super) fn result(&self) -> reapi::ActionResult {
        self.outcome.result.clone().unwrap_or_default()
    }
}

/// Carries an action out, unless its result is known.
pub(super) async fn run_action(job: &JobContext, spec: ActionSpec) -> Result<Answer, JobEnd> {
    let outputs = spec.output_paths;
    let command = reapi::Command {
        output_paths: outputs.clone(),
        ..job.command(spec.arguments)
    };
    let cache = spec.cache.filter(|_| job.surroundings.are_known());
    let key = action_key(job, &command, ACTION, cache.is_none());
    if cache == Some(Lookup::Allowed)
        && let Some(answer) = known(job, &key).await
    {
        return Ok(answer);
    }
    let merge_key = cache.map(|_| key);
    let work = JobWork {
        command,
        units: vec![UnitPlan {
            expected: ExpectedUnit {
                key: Some(attempt_key(job, (&key, ""), spec.attempt)),
                first: spec.is_awaited,
                ..EXPECTED.into()
            },
            extra_arguments: Vec::new(),
            extra_environment: Vec::new(),
        }],
        shape: BatchShape::ExecutionPerUnit,
        batch_overhead: Duration::ZERO,
        merge_key,
        stream_output: spec.stream_output,
        failed_at: spec.failed_at,
        time_limit: None,
        worker: spec.worker,
    };
    let handle = job.submit(work.clone()).await?;
    start_workers(job, &work);
    let answer = tokio::select! {
        () = job.cancel.cancelled() => return Err(cancelled()),
        answer = answer_of(job, handle) => answer?,
    };
    let is_cacheable = job.surroundings.produced(&answer.outcome)
        && judge(&answer.outcome).is_ok()
        && missing_outputs(&outputs, &answer.result()).next().is_none();
    if merge_key.is_some() && is_cacheable {
        let pass = (key, answer.result(), answer.provenance.clone());
        store(job, vec![pass]).await;
    } else if cache == Some(Lookup::Skipped) && has_failed(job, &answer.outcome) {
        distrust(job, vec![key]).await;
    }
    Ok(answer)
}

/// Whether an outcome shows that a pass with the same key is wrong.
pub(super) fn has_failed(job: &JobContext, outcome: &v1::ExecutionOutcome) -> bool {
    let is_own = matches!(judge(outcome), Err((class, _)) if may_be_retried(class));
    is_own && job.surroundings.produced(outcome)
}

/// The answer of an action whose result is cached.
pub(super) async fn known(job: &JobContext, key: &Digest) -> Option<Answer> {
    let found = job
        .run
        .results
        .get(&job.run.plan.tenant, key)
        .await
        .unwrap_or_else(|error| {
            tracing::warn!(run = %job.run.run, %error, "the action cache cannot be asked");
            None
        })?;
    let outcome = v1::ExecutionOutcome {
        kind: v1::OutcomeKind::Completed.into(),
        result: Some(found.as_ref().clone()),
        ..Default::default()
    };
    Some(Answer {
        outcome,
        cached: true,
        provenance: None,
    })
}

/// A pass: its key, its result, and what produced it.
pub(super) type Pass = (Digest, reapi::ActionResult, Option<v1::Provenance>);

/// Stores passes. What cannot be stored is executed again another time, and no worse.
pub(super) async fn store(job: &JobContext, passes: Vec<Pass>) {
    use futures::StreamExt as _;
    /// How many results are written at once.
    const CONCURRENT_WRITES: usize = 16;
    let (results, tenant) = (&job.run.results, &job.run.plan.tenant);
    futures::stream::iter(passes)
        .for_each_concurrent(CONCURRENT_WRITES, |(key, result, place)| async move {
            let result = stamped(result, &job.run.run, place);
            if let Err(error) = results.put(tenant, &key, result).await {
                tracing::warn!(run = %job.run.run, %key, %error, "a result could not be stored");
            }
        })
        .await;
}

/// Forgets passes that have been shown not to hold.
pub(super) async fn distrust(job: &JobContext, keys: Vec<Digest>) {
    for key in keys {
        forget(&job.run, &key).await;
    }
}

/// Forgets a pass that has been shown not to hold.
pub(super) async fn forget(run: &RunContext, key: &Digest) {
    if let Err(error) = run.results.remove(&run.plan.tenant, key).await {
        tracing::warn!(run = %run.run, %key, %error, "a wrong result could not be forgotten");
    }
}

async fn answer_of(job: &JobContext, mut handle: TaskHandle) -> Result<Answer, JobEnd> {
    let mut logged = 0;
    while let Some(event) = handle.next().await {
        job.run.times.take(&event);
        match event {
            TaskEvent::Granted { .. } => job.count_lease(),
            TaskEvent::Output {
                stream,
                offset,
                data,
                ..
            } => {
                log_output(job, stream, offset, data, &mut logged).await;
            }
            TaskEvent::Retried {
                agent,
                attempt,
                reason,
                ..
            } => {
                job.run
                    .log
                    .append(v1::run_event::Event::InfrastructureRetry(
                        v1::InfrastructureRetry {
                            job: job.name(),
                            test_id: String::new(),
                            agent_id: agent.to_string(),
                            message: reason,
                            next_attempt: attempt.0 + 1,
                        },
                    ));
            }
            TaskEvent::Answered {
                outcome,
                agent,
                slot,
                ..
            } => {
                job.run.times.worked(duration_of(&outcome));
                let provenance = Some(provenance(&agent, slot, &outcome));
                return Ok(Answer {
                    outcome,
                    cached: false,
                    provenance,
                });
            }
            TaskEvent::Returned { .. } => {}
            TaskEvent::Failed { error, .. } => return Err(of_unit(&error)),
            TaskEvent::Finished => break,
        }
    }
    Err(unknown(
        "the scheduler ended the task without an answer; report this".to_owned(),
    ))
}

async fn log_output(
    job: &JobContext,
    stream: v1::OutputStream,
    offset: u64,
    data: Bytes,
    logged: &mut usize,
) {
    *logged += data.len();
    if *logged > MAX_LOGGED_OUTPUT_BYTES {
        return;
    }
    job.run.log.room().await;
    job.run
        .log
        .append(v1::run_event::Event::JobOutput(v1::JobOutput {
            job: job.name(),
            test_id: String::new(),
            stream: stream.into(),
            offset,
            data,
        }));
}

/// Whether another attempt could end otherwise: the command failed, not a machine.
pub(super) const fn may_be_retried(class: FailureClass) -> bool {
    match class {
        FailureClass::Test | FailureClass::Timeout | FailureClass::Oom => true,
        FailureClass::Infra | FailureClass::Cancelled => false,
    }
}

/// Those of the declared outputs that a result does not have.
///
/// An output that the input root held already counts as made, even if the command left it alone: REAPI
/// says what is at an output's path after the command, not who put it there, and commands may update
/// their inputs in place.
pub(super) fn missing_outputs<'a>(
    declared: &'a [String],
    result: &'a reapi::ActionResult,
) -> impl Iterator<Item = &'a str> {
    let made = |path: &str| {
        result.output_files.iter().any(|it| it.path == path)
            || result.output_directories.iter().any(|it| it.path == path)
            || result.output_symlinks.iter().any(|it| it.path == path)
    };
    declared
        .iter()
        .map(String::as_str)
        .filter(move |path| !made(path))
}

/// Whether an action passed; why not, for people, if it did not.
pub(super) fn judge(outcome: &v1::ExecutionOutcome) -> Result<(), (FailureClass, String)> {
    let message = |or: &str| {
        if outcome.message.is_empty() {
            or.to_owned()
        } else {
            outcome.message.clone()
        }
    };
    match outcome.kind() {
        v1::OutcomeKind::Completed => match outcome.result.as_ref().map_or(0, |it| it.exit_code) {
            0 => Ok(()),
            code => Err((
                FailureClass::Test,
                message(&format!("exited with code {code}")),
            )),
        },
        v1::OutcomeKind::TimedOut => Err((FailureClass::Timeout, message("ran out of time"))),
        v1::OutcomeKind::OutOfMemory => Err((FailureClass::Oom, message("ran out of memory"))),
        v1::OutcomeKind::Rejected if !outcome.missing_blobs.is_empty() => {
            let count = outcome.missing_blobs.len();
            let text = message(&format!("{count} blobs have gone from the store"));
            let advice = "submit the run again: what the store lacks is then uploaded, or made anew; `regatta cas verify` \
                          tells what else is wrong";
            Err((FailureClass::Infra, format!("{text}; {advice}")))
        }
        // It ran, and left outputs that no machine can use.
        v1::OutcomeKind::Rejected if outcome.result.is_some() => Err((
            FailureClass::Test,
            message("left outputs that cannot be used"),
        )),
        // Nothing ran, so that nothing is known of the code: an image that cannot be had, say.
        v1::OutcomeKind::Rejected | v1::OutcomeKind::ImageAbsent => {
            Err((FailureClass::Infra, message("cannot be carried out")))
        }
        v1::OutcomeKind::Infrastructure
        | v1::OutcomeKind::RegistryUnreachable
        | v1::OutcomeKind::StoreExhausted
        | v1::OutcomeKind::Unspecified => Err((FailureClass::Infra, message("the machine failed"))),
        v1::OutcomeKind::Cancelled => Err((FailureClass::Cancelled, message("was stopped"))),
    }
}
