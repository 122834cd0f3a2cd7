//! Metrics and health of a process that is no coordinator, such as an agent.

use std::io;
use std::net::SocketAddr;

use axum::Router;
use axum::routing::get;
use tokio_util::sync::CancellationToken;

use crate::http::metrics_page;
use crate::listeners::Bound;
use crate::metrics_recorder::recorder;
use crate::start_error::StartError;

/// A server of `/metrics` and `/healthz` that has bound its address.
#[derive(Debug)]
pub struct MetricsServer(Bound);

impl MetricsServer {
    /// Binds the address, and records the metrics of this process from now on.
    ///
    /// # Errors
    /// [`StartError::NotLoopback`], [`StartError::AddressInUse`] or [`StartError::Listen`].
    pub async fn bind(address: SocketAddr) -> Result<Self, StartError> {
        let bound = Bound::bind(address).await?;
        recorder();
        Ok(Self(bound))
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// Serves until `shutdown` is cancelled.
    ///
    /// # Errors
    /// The server failed by itself, which it does not do on any peer's account.
    pub async fn serve_until(self, shutdown: CancellationToken) -> io::Result<()> {
        let routes = Router::new()
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/metrics", get(|| async { metrics_page() }));
        tokio::select! {
            served = axum::serve(self.0.listener, routes).into_future() => served,
            () = shutdown.cancelled() => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;

    async fn page(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn what_is_recorded_is_shown() {
        let free = "127.0.0.1:0".parse().unwrap();
        let server = MetricsServer::bind(free).await.unwrap();
        let address = server.address();
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(server.serve_until(shutdown.clone()));
        metrics::gauge!("regatta_agent_slots", "state" => "busy").set(3.0);
        let metrics = page(address, "/metrics").await;
        assert!(
            metrics.contains("regatta_agent_slots{state=\"busy\"} 3"),
            "{metrics}"
        );
        assert!(page(address, "/healthz").await.ends_with("ok\n"));
        shutdown.cancel();
        serving.await.unwrap().unwrap();
        let anywhere = MetricsServer::bind("0.0.0.0:0".parse().unwrap()).await;
        assert!(matches!(anywhere, Err(StartError::NotLoopback { .. })));
    }
}
