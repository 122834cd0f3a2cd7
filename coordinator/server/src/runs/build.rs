//! A build job: one action, tried again if its job says so.

use regatta_ledger::RunCounts;
use regatta_model::FailureClass;
use regatta_wire::v1::run_event::Event;
use regatta_wire::{reapi, v1};
use tokio::time::Instant;

use super::action::{
    ACTION, ActionSpec, Answer, Lookup, judge, known, may_be_retried, missing_outputs, run_action,
};
use super::context::{JobContext, JobOutcome, failed};
use super::event;
use super::keys::action_key;
use super::origin::origin_of;
use super::output::tail_to_show;
use super::plan::JobKind;
use super::state::{JobEnd, JobStatus};
use super::tried::Tried;

/// How much of a failed build's error output its message repeats, in bytes.
const MESSAGE_OUTPUT_BYTES: u64 = 2048;

/// Carries a build out.
pub(super) async fn run_build(
    job: &JobContext,
    arguments: &[String],
    do_not_cache: bool,
) -> JobOutcome {
    let lookup = if job.run.plan.spec.skip_cache_lookup {
        Lookup::Skipped
    } else {
        Lookup::Allowed
    };
    let Tried {
        mut attempts,
        mut failed_at,
    } = job.run.recorded.tried(&job.name());
    loop {
        attempts += 1;
        let begun = Instant::now();
        let spec = ActionSpec {
            arguments: arguments.to_vec(),
            cache: (!do_not_cache).then_some(lookup),
            stream_output: true,
            output_paths: job.job().template.output_paths.clone(),
            attempt: attempts,
            failed_at: failed_at.take(),
            worker: None,
            is_awaited: job.is_awaited(),
        };
        let outcome = match run_action(job, spec).await {
            Ok(answer) => outcome_of(job, answer, attempts).await,
            Err(end) => {
                return JobOutcome {
                    attempts: attempts - 1,
                    ..end.into()
                };
            }
        };
        if !outcome.end.class.is_some_and(may_be_retried) || attempts > job.job().retries {
            return outcome;
        }
        let attempt = event::job_finished(job.name(), &outcome, Some(begun.elapsed()));
        let retried = v1::BuildRetried {
            attempt: Some(attempt),
            next_attempt: attempts + 1,
        };
        job.run.log.append(Event::BuildRetried(retried));
        failed_at = outcome.provenance.as_ref().and_then(event::place_of);
    }
}

/// The result of a build, if it is cached: nothing runs. It is looked for even if the run itself would not: what a build
/// made before tells what needs it.
pub(super) async fn known_result(job: &JobContext) -> Option<reapi::ActionResult> {
    let JobKind::Build {
        arguments,
        do_not_cache: false,
    } = &job.job().kind
    else {
        return None;
    };
    let key = action_key(job, &job.command(arguments.clone()), ACTION, false);
    let answer = match job.surroundings.are_known() {
        true => known(job, &key).await?,
        false => return None,
    };
    Some(answer.result())
}

async fn outcome_of(job: &JobContext, answer: Answer, attempts: u32) -> JobOutcome {
    let result = answer.result();
    let end = match judge(&answer.outcome) {
        Ok(()) => passed(job, &result),
        Err((class, message)) => failed(class, explain(job, &result, message).await),
    };
    JobOutcome {
        end,
        origin: match answer.cached {
            true => origin_of(&result),
            false => v1::ResultOrigin::default(),
        },
        result: Some(result),
        cached: answer.cached,
        provenance: answer.provenance,
        attempts: if answer.cached && attempts == 1 {
            0
        } else {
            attempts
        },
    }
}

/// A build that exited with 0 has passed only if it made what it declared.
fn passed(job: &JobContext, result: &reapi::ActionResult) -> JobEnd {
    let missing: Vec<_> = missing_outputs(&job.job().template.output_paths, result).collect();
    if missing.is_empty() {
        return JobEnd {
            status: JobStatus::Passed,
            class: None,
            message: String::new(),
            counts: RunCounts::default(),
        };
    }
    let message = format!(
        "it exited with code 0 but did not make {}",
        missing.join(", ")
    );
    failed(FailureClass::Test, message)
}

async fn explain(job: &JobContext, result: &reapi::ActionResult, message: String) -> String {
    let blobs = job.run.blobs.as_ref();
    let digest = result.stderr_digest.as_ref();
    let output = tail_to_show(blobs, &result.stderr_raw, digest, MESSAGE_OUTPUT_BYTES).await;
    let output = String::from_utf8_lossy(&output);
    if output.trim().is_empty() {
        message
    } else {
        format!("{message}\n{}", output.trim_end())
    }
}
