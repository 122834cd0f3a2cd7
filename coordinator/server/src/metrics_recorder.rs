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

const COUNTERS: &[(&str, &str)] = &[
    (
        "regatta_action_cache_hits_total",
        "action results that were served",
    ),
    (
        "regatta_action_cache_misses_total",
        "action results that were not there",
    ),
    (
        "regatta_grpc_requests_total",
        "calls by method, as they begin",
    ),
    (
        "regatta_grpc_refusals_total",
        "calls by method that failed at once",
    ),
    (
        "regatta_leases_granted_total",
        "leases that agents were given",
    ),
    (
        "regatta_leases_ahead_total",
        "leases that only start a persistent worker; nothing else counts them",
    ),
    (
        "regatta_units_answered_total",
        "units of work with an accepted outcome",
    ),
    (
        "regatta_units_retried_total",
        "attempts at units of work that machines lost",
    ),
    (
        "regatta_units_failed_total",
        "units of work without an outcome: cancelled, lost too often, or fit for no agent",
    ),
    (
        "regatta_outcomes_fenced_total",
        "outcomes of leases that were no longer valid",
    ),
    (
        "regatta_agents_lost_total",
        "agents that were not heard of for too long",
    ),
    (
        "regatta_live_output_dropped_bytes_total",
        "live output that its reader could not take in time; results have it all",
    ),
    (
        "regatta_ledger_failures_total",
        "calls of the ledger that failed, by call",
    ),
    (
        "regatta_object_store_requests_total",
        "requests to the directory or bucket, by store and operation",
    ),
    (
        "regatta_object_store_repeats_total",
        "requests to a bucket that failed and were made again",
    ),
    (
        "regatta_object_store_refusals_total",
        "requests to a bucket that were not made because it is away",
    ),
    (
        "regatta_corrupt_reads_total",
        "blobs that came wrong from the directory or bucket: once, or again when they were read once more",
    ),
    (
        "regatta_evicted_total",
        "blobs, action results and assets that were let go, by reason",
    ),
    (
        "regatta_evicted_bytes_total",
        "the bytes of what was let go, by reason",
    ),
    (
        "regatta_verdict_artefacts_unkept_total",
        "artefacts that verdicts keep no longer, for want of room, though their time is not over",
    ),
    ("regatta_runs_finished_total", "runs by verdict"),
    (
        "regatta_tests_finished_total",
        "tests that ended, from the cache or not",
    ),
];

const GAUGES: &[(&str, &str)] = &[
    ("regatta_agents_connected", "agents that are connected"),
    (
        "regatta_slots",
        "slots of connected agents, by whether they are free",
    ),
    (
        "regatta_object_store_away",
        "1 while a bucket does nothing but fail and is left alone, else 0",
    ),
    ("regatta_queued_units", "units of work that wait"),
    (
        "regatta_work_held",
        "1 while nothing new is leased because the store takes nothing, else 0",
    ),
    ("regatta_leased_units", "units of work that are leased"),
    (
        "regatta_operations",
        "executions that can be asked for, by whether they are under way",
    ),
    (
        "regatta_operation_watchers",
        "calls that wait for executions under way",
    ),
    ("regatta_active_runs", "runs that are under way"),
    (
        "regatta_stored_bytes",
        "the bytes of all blobs, action results and assets",
    ),
    (
        "regatta_stored_objects",
        "how many blobs, action results and assets there are",
    ),
    (
        "regatta_tenant_stored_bytes",
        "the bytes of what a tenant uses, and of what verdicts keep for it, by tenant",
    ),
    (
        "regatta_tenant_verdict_bytes",
        "the bytes of what verdicts keep, by the tenant that they were given to",
    ),
    (
        "regatta_unclaimed_stored_bytes",
        "the bytes of what no tenant has used since it was found",
    ),
];

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
        "from a command's end until its result is accepted"
    );
    describe_histogram!(
        "regatta_ledger_seconds",
        "from a call of the ledger to its answer, by call"
    );
    for (name, help) in COUNTERS {
        describe_counter!(*name, *help);
    }
    for (name, help) in GAUGES {
        describe_gauge!(*name, *help);
    }
    describe_agent();
}

/// What an agent records, in the process that it may share with a coordinator.
fn describe_agent() {
    use metrics::{describe_counter, describe_gauge, describe_histogram};
    describe_gauge!("regatta_agent_slots", "slots of the agent, by their state");
    describe_gauge!(
        "regatta_agent_tree_cache_bytes",
        "the size of the input trees laid out"
    );
    describe_gauge!(
        "regatta_agent_blob_cache_bytes",
        "the disk space of the cached blobs of all tenants"
    );
    describe_histogram!(
        "regatta_agent_lease_to_exec_seconds",
        "from a lease to the start of its first command"
    );
    describe_histogram!(
        "regatta_agent_exec_seconds",
        "from a command's start to its end"
    );
    describe_histogram!(
        "regatta_agent_publish_seconds",
        "from a command's end to the storing of its result"
    );
    describe_counter!(
        "regatta_agent_live_chunks_dropped_total",
        "pieces of live output that nobody could take in time"
    );
}
