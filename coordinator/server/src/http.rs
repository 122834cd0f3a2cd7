//! Health and metrics over HTTP.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use regatta_cas::BlobStore;
use regatta_model::Digest;
use tokio::sync::watch;

use crate::dispatch::Dispatcher;
use crate::metrics_recorder::recorder;

/// The type of Prometheus' text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the pages are made of.
#[derive(Debug, Clone)]
pub(crate) struct HttpParts {
    /// Whether the coordinator serves.
    pub(crate) serving: watch::Receiver<bool>,
    /// The store that must answer for the coordinator to be ready.
    pub(crate) blobs: Arc<dyn BlobStore>,
    /// Where the gauges come from.
    pub(crate) dispatcher: Arc<Dispatcher>,
}

/// `/healthz`, `/readyz` and `/metrics`.
pub(crate) fn routes(parts: HttpParts) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(render_metrics))
        .with_state(parts)
}

/// Ready means: it takes calls, and its store answers.
async fn ready(State(parts): State<HttpParts>) -> Response {
    if !*parts.serving.borrow() {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n").into_response();
    }
    // A digest that is nobody's: no index can answer for the store.
    let probe = Digest::new([0; 32], u64::MAX >> 1);
    match parts.blobs.find_missing(&[probe]).await {
        Ok(_) => "ready\n".into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
    }
}

async fn render_metrics(State(parts): State<HttpParts>) -> Response {
    let Some(recorder) = recorder() else {
        let message = "this process records its metrics elsewhere\n";
        return (StatusCode::NOT_IMPLEMENTED, message).into_response();
    };
    set_gauges(&parts.dispatcher);
    recorder.run_upkeep();
    ([(header::CONTENT_TYPE, METRICS_TYPE)], recorder.render()).into_response()
}

fn set_gauges(dispatcher: &Dispatcher) {
    let snapshot = dispatcher.snapshot();
    let connected = || snapshot.agents.iter().filter(|agent| agent.connected);
    let slots: u32 = connected().map(|agent| agent.slots).sum();
    let free: u32 = connected().map(|agent| agent.free_slots).sum();
    metrics::gauge!("regatta_slots", "state" => "free").set(f64::from(free));
    metrics::gauge!("regatta_slots", "state" => "busy").set(f64::from(slots.saturating_sub(free)));
    metrics::gauge!("regatta_queued_units").set(count(snapshot.queued_units));
    metrics::gauge!("regatta_leased_units").set(count(snapshot.leased_units));
}

fn count(units: usize) -> f64 {
    u32::try_from(units).map_or(f64::from(u32::MAX), f64::from)
}
