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
use regatta_cas::{BlobStore, StoreError};
use regatta_model::Digest;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::dispatch::Dispatcher;
use crate::listeners::Bound;
use crate::metrics_recorder::recorder;
use crate::operations::Operations;
use crate::retention::Retention;
use crate::runs::RunRegistry;

/// The type of Prometheus' text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the pages are made of.
#[derive(Debug, Clone)]
pub(crate) struct HttpParts {
    /// Whether the coordinator serves.
    pub(crate) serving: watch::Receiver<bool>,
    /// Knows whether there is room for what is new.
    pub(crate) room: Arc<Retention>,
    /// The store that must answer for the coordinator to be ready.
    pub(crate) blobs: Arc<dyn BlobStore>,
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
    match (unready(&parts).await, parts.runs.left_open()) {
        (None, 0) => "ready\n".into_response(),
        (None, runs) => {
            format!("ready; {runs} runs of before the restart are being taken up\n").into_response()
        }
        (Some(reason), _) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response()
        }
    }
}

/// Why the coordinator is not ready.
async fn unready(parts: &HttpParts) -> Option<String> {
    if !*parts.serving.borrow() {
        return Some("stopping".to_owned());
    }
    if let Some(error) = parts.dispatcher.trouble().or_else(|| parts.runs.trouble()) {
        return Some(error.to_string());
    }
    if let Err(error) = parts.room.check_room() {
        return Some(error.to_string());
    }
    if let Some(reason) = lack_of_room(&parts.state_directory) {
        return Some(reason);
    }
    let probed = probe(parts.blobs.as_ref()).await;
    probed.err().map(|error| error.to_string())
}

/// Sees that a store answers, by asking it for a digest that is nobody's: no index can answer for the store.
async fn probe(store: &dyn BlobStore) -> Result<(), StoreError> {
    let nobodys = Digest::new([0; 32], u64::MAX >> 1);
    store.find_missing(&[nobodys]).await.map(drop)
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
        Err(error) => Some(format!("the state directory {directory_shown}: {error}")),
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
