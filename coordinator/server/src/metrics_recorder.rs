//! The process's one recorder of metrics.

use std::sync::OnceLock;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

/// Bounds of the buckets of every duration, in seconds: the budget of one action is milliseconds, a test
/// suite takes minutes.
const DURATION_BUCKETS: [f64; 16] = [
    0.000_5, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0,
    1800.0,
];

/// The handle to the recorder. A process has one recorder for its whole life, however many coordinators
/// it starts; `None` if it has one that is not ours.
pub(crate) fn recorder() -> Option<&'static PrometheusHandle> {
    static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    RECORDER.get_or_init(install).as_ref()
}

fn install() -> Option<PrometheusHandle> {
    let installed = PrometheusBuilder::new()
        .set_buckets(&DURATION_BUCKETS)
        .and_then(PrometheusBuilder::install_recorder);
    match installed {
        Ok(handle) => {
            describe();
            Some(handle)
        }
        Err(error) => {
            tracing::warn!(%error, "metrics are recorded elsewhere; /metrics has none");
            None
        }
    }
}

fn describe() {
    use metrics::{describe_counter, describe_gauge, describe_histogram};
    describe_histogram!(
        "regatta_queue_seconds",
        "from the submission of work to its lease"
    );
    describe_histogram!(
        "regatta_lease_to_exec_seconds",
        "from a lease to its command's start"
    );
    describe_histogram!("regatta_exec_seconds", "from a command's start to its end");
    describe_histogram!(
        "regatta_publish_seconds",
        "from an accepted outcome to its publication"
    );
    describe_counter!(
        "regatta_action_cache_hits_total",
        "action results that were served"
    );
    describe_counter!(
        "regatta_action_cache_misses_total",
        "action results that were not there"
    );
    describe_counter!(
        "regatta_grpc_requests_total",
        "calls by method, as they begin"
    );
    describe_counter!(
        "regatta_grpc_refusals_total",
        "calls by method that failed at once"
    );
    describe_gauge!(
        "regatta_slots",
        "slots of connected agents, by whether they are free"
    );
    describe_gauge!("regatta_queued_units", "units of work that wait");
    describe_gauge!("regatta_leased_units", "units of work that are leased");
}
