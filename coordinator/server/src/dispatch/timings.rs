//! How long the parts of leased work took, for metrics, as far as agents tell: their clocks may differ from
//! ours by more than the shorter parts take.

use std::time::Duration;

use regatta_model::Timestamp;
use regatta_wire::convert::timestamp_from_wire;
use regatta_wire::v1;

/// Records an execution that was answered `now`. `granted_at` is when it was leased; `None` if others of
/// its lease went before it, since it then waited for those, too.
pub(super) fn record(
    outcome: &v1::ExecutionOutcome,
    granted_at: Option<Timestamp>,
    now: Timestamp,
) {
    let result = outcome.result.as_ref();
    let Some(metadata) = result.and_then(|it| it.execution_metadata.as_ref()) else {
        return;
    };
    let time = |message: &Option<prost_types::Timestamp>| {
        let message = message.as_ref()?;
        timestamp_from_wire(message).ok()
    };
    let started = time(&metadata.execution_start_timestamp);
    let completed = time(&metadata.execution_completed_timestamp);
    span("regatta_lease_to_exec_seconds", granted_at, started);
    span("regatta_exec_seconds", started, completed);
    span("regatta_publish_seconds", completed, Some(now));
}

fn span(name: &'static str, from: Option<Timestamp>, to: Option<Timestamp>) {
    if let (Some(from), Some(to)) = (from, to) {
        let span: Duration = to.since(from);
        metrics::histogram!(name).record(span.as_secs_f64());
    }
}
