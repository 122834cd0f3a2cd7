//! What the ledger is to learn from a test.

use std::time::Duration;

use regatta_ledger::TestObservation;
use regatta_model::{FailureClass, Timestamp};
use regatta_wire::convert::timestamp_to_wire;
use regatta_wire::{reapi, v1};

use super::Test;
use crate::runs::context::JobContext;
use crate::runs::event::duration_of;
use crate::runs::log::now;
use crate::runs::tally::Ending;

/// What a test that was executed teaches; nothing if it was not measured.
pub(super) fn observation(
    job: &JobContext,
    test: &Test,
    ending: Ending,
    duration: Duration,
) -> Option<TestObservation> {
    let is_measured = !matches!(
        ending,
        Ending::Skipped | Ending::Failed(FailureClass::Infra | FailureClass::Cancelled)
    );
    // Many runs of one test would drown what others teach of it.
    (is_measured && test.repetition.is_none()).then(|| TestObservation {
        test: test.id.clone(),
        duration,
        failed: matches!(ending, Ending::Failed(_) | Ending::Quarantined(_)),
        flaky: ending == Ending::Flaky,
        finished_at: now(),
        key: Some(test.key),
        input_root: Some(job.input_root),
    })
}

/// What a cached pass teaches that this very run has left, of which it had told nothing when the coordinator was
/// restarted.
pub(super) fn untold(
    job: &JobContext,
    test: &Test,
    pass: &reapi::ActionResult,
    origin: &str,
) -> Option<TestObservation> {
    let is_resumed = job.run.recorded.last_sequence() > 0;
    let is_own = origin == job.run.run.as_str();
    let outcome = v1::ExecutionOutcome {
        result: Some(pass.clone()),
        ..Default::default()
    };
    (is_resumed && is_own)
        .then(|| observation(job, test, Ending::Passed, duration_of(&outcome)))
        .flatten()
}

/// A pass that says how long it took, which one that a report tells of does not do by itself.
pub(super) fn timed(mut pass: reapi::ActionResult, duration: Duration) -> reapi::ActionResult {
    let metadata = pass.execution_metadata.get_or_insert_default();
    if metadata.execution_completed_timestamp.is_none() {
        let end = now();
        let start = end
            .as_nanos()
            .saturating_sub(duration.as_nanos().try_into().unwrap_or(u64::MAX));
        metadata.execution_start_timestamp = Some(timestamp_to_wire(Timestamp::from_nanos(start)));
        metadata.execution_completed_timestamp = Some(timestamp_to_wire(end));
    }
    pass
}
