//! Health and metrics over HTTP.

use std::future::IntoFuture as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use regatta_ledger::LedgerTenure;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::dispatch::Dispatcher;
use crate::ledger::{SURE_FOR, is_ours_for};
use crate::listeners::Bound;
use crate::metrics_recorder::recorder;
use crate::operations::Operations;
use crate::retention::Retention;
use crate::runs::RunRegistry;
use crate::storage_probe::StorageProbe;

/// The type of Prometheus' text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the pages are made of.
#[derive(Debug, Clone)]
pub(crate) struct HttpParts {
    /// Whether the coordinator serves.
    pub(crate) serving: watch::Receiver<bool>,
    /// Knows whether there is room for what is new.
    pub(crate) room: Arc<Retention>,
    /// Whether the storage answers, which it must for the coordinator to be ready.
    pub(crate) storage: Arc<StorageProbe>,
    /// Whether the ledger answers, where another coordinator could have it.
    pub(crate) tenure: Option<watch::Receiver<LedgerTenure>>,
    /// Where the gauges come from; it must be able to lease.
    pub(crate) dispatcher: Arc<Dispatcher>,
    /// The runs, whose events must find room.
    pub(crate) runs: Arc<RunRegistry>,
    /// The operations, which are counted.
    pub(crate) operations: Arc<Operations>,
    /// Where the ledger and uploads are, which need room.
    pub(crate) state_directory: PathBuf,
}

/// How much room the state directory must have for the coordinator to be ready, in bytes.
const MINIMUM_FREE_BYTES: u64 = 4 << 20;

/// `/healthz`, `/readyz` and `/metrics`.
pub(crate) fn routes(parts: HttpParts) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(render_metrics))
        .with_state(parts)
}

/// Serves pages, if anywhere, until `close` is cancelled.
pub(crate) async fn serve(
    bound: Option<Bound>,
    routes: Router,
    close: CancellationToken,
) -> io::Result<()> {
    let Some(Bound { listener, .. }) = bound else {
        return Ok(());
    };
    // Pages take no time, so that whatever is still under way then is a connection that only waits.
    let serve = axum::serve(listener, routes).into_future();
    tokio::select! {
        served = serve => served,
        () = close.cancelled() => Ok(()),
    }
}

/// Ready means: it takes calls, its store answers, and what it must remember finds room. Runs of an earlier process may
/// still be taken up then.
async fn ready(State(parts): State<HttpParts>) -> Response {
    let lacks = unready(&parts).await;
    if !lacks.is_empty() {
        let page = lacks.join("\n") + "\n";
        return (StatusCode::SERVICE_UNAVAILABLE, page).into_response();
    }
    match parts.runs.left_open() {
        0 => "ready\n".into_response(),
        runs => {
            format!("ready; {runs} runs of before the restart are being taken up\n").into_response()
        }
    }
}

/// Why the coordinator is not ready, one line for each thing that is not. It is known without waiting but for the
/// storage, which has a moment to answer.
async fn unready(parts: &HttpParts) -> Vec<String> {
    if !*parts.serving.borrow() {
        return vec!["stopping".to_owned()];
    }
    let ledger = parts.dispatcher.trouble().or_else(|| parts.runs.trouble());
    let ledger = ledger.map(|error| error.to_string());
    let ledger = ledger.or_else(|| silence_of_the_ledger(parts.tenure.as_ref()));
    let room = parts.room.check_room().err();
    let storage = match &room {
        Some(full) => Some(full.to_string()),
        None => parts
            .storage
            .answers()
            .await
            .err()
            .map(|why| why.to_string()),
    };
    let lacks = [
        ledger.map(|why| format!("ledger: {why}")),
        storage.map(|why| format!("storage: {why}")),
        lack_of_room(&parts.state_directory).map(|why| format!("state directory: {why}")),
    ];
    lacks.into_iter().flatten().collect()
}

/// What is wrong with a ledger that is asked whose it is every two seconds.
fn silence_of_the_ledger(tenure: Option<&watch::Receiver<LedgerTenure>>) -> Option<String> {
    match *tenure?.borrow() {
        LedgerTenure::Superseded => Some("another coordinator has it".to_owned()),
        LedgerTenure::Lost { answered } => {
            let lost_for = answered.elapsed().as_secs();
            Some(format!(
                "its connection has ended, {lost_for} s after it answered last; see whether the database can be reached"
            ))
        }
        told @ LedgerTenure::Ours { answered } => (!is_ours_for(told, SURE_FOR)).then(|| {
            let silent_for = answered.elapsed().as_secs();
            format!(
                "it has not answered for {silent_for} s; see whether the database can be reached"
            )
        }),
    }
}

fn lack_of_room(directory: &Path) -> Option<String> {
    let directory_shown = directory.display();
    match rustix::fs::statvfs(directory) {
        Ok(stat) => {
            let free = stat.f_bavail.saturating_mul(stat.f_frsize);
            (free < MINIMUM_FREE_BYTES).then(|| {
                format!("only {free} bytes are free in {directory_shown}; make room there")
            })
        }
        Err(error) => Some(format!("{directory_shown}: {error}")),
    }
}

async fn render_metrics(State(parts): State<HttpParts>) -> Response {
    set_gauges(&parts);
    metrics_page()
}

/// Everything that this process records.
pub(crate) fn metrics_page() -> Response {
    let Some(recorder) = recorder() else {
        let message = "this process records its metrics elsewhere\n";
        return (StatusCode::NOT_IMPLEMENTED, message).into_response();
    };
    recorder.run_upkeep();
    ([(header::CONTENT_TYPE, METRICS_TYPE)], recorder.render()).into_response()
}

fn set_gauges(parts: &HttpParts) {
    let snapshot = parts.dispatcher.snapshot();
    let connected = || snapshot.agents.iter().filter(|agent| agent.connected);
    let slots: u32 = connected().map(|agent| agent.slots).sum();
    let free: u32 = connected().map(|agent| agent.free_slots).sum();
    metrics::gauge!("regatta_slots", "state" => "free").set(f64::from(free));
    metrics::gauge!("regatta_slots", "state" => "busy").set(f64::from(slots.saturating_sub(free)));
    metrics::gauge!("regatta_queued_units").set(count(snapshot.queued_units));
    let held = if snapshot.held.is_some() { 1.0 } else { 0.0 };
    metrics::gauge!("regatta_work_held").set(held);
    metrics::gauge!("regatta_leased_units").set(count(snapshot.leased_units));
    let operations = parts.operations.counts();
    metrics::gauge!("regatta_operations", "state" => "active").set(count(operations.active));
    metrics::gauge!("regatta_operations", "state" => "ended").set(count(operations.ended));
    metrics::gauge!("regatta_operation_watchers").set(count(operations.watchers));
    metrics::gauge!("regatta_active_runs").set(count(parts.runs.active()));
}

fn count(things: usize) -> f64 {
    u32::try_from(things).map_or(f64::from(u32::MAX), f64::from)
}
