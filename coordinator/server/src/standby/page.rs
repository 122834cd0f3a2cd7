//! Health and metrics of a coordinator that stands by.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::watch;

use super::Active;
use super::passing_on::connect;
use crate::http::metrics_page;
use crate::storage_probe::ANSWERED_WITHIN;

/// `/healthz`, `/readyz` and `/metrics`.
pub(super) fn routes(active: watch::Receiver<Active>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(|| async { metrics_page() }))
        .with_state(active)
}

/// Ready means: whoever comes is passed on to a coordinator that answers.
async fn ready(State(active): State<watch::Receiver<Active>>) -> Response {
    let now = active.borrow().clone();
    match connect(&now, ANSWERED_WITHIN).await {
        Ok(_) => "standing by, ready\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}
