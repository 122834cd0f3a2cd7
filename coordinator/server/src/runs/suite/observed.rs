//! How long passes took that are cached.

use std::time::Duration;

use regatta_model::Timestamp;
use regatta_wire::convert::timestamp_to_wire;
use regatta_wire::{reapi, v1};

use crate::runs::context::JobContext;
use crate::runs::event::duration_of;
use crate::runs::log::now;

/// How long a cached pass took that this very run has left, of which it had told nothing when the coordinator was
/// restarted.
pub(super) fn untold(
    job: &JobContext,
    pass: &reapi::ActionResult,
    is_own: bool,
) -> Option<Duration> {
    let is_resumed = job.run.recorded.last_sequence() > 0;
    let outcome = v1::ExecutionOutcome {
        result: Some(pass.clone()),
        ..Default::default()
    };
    (is_resumed && is_own).then(|| duration_of(&outcome))
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
