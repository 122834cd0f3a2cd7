use std::net::SocketAddr;

use regatta_server::{Coordinator, StartError, StateDirectoryError};
use regatta_wire::health::health_client::HealthClient;
use regatta_wire::health::{HealthCheckRequest, HealthListRequest};
use tonic::Code;

use crate::harness::{Running, config};

async fn start_error(change: impl FnOnce(&mut regatta_server::CoordinatorConfig)) -> StartError {
    let state = tempfile::tempdir().unwrap();
    let mut config = config(state.path());
    change(&mut config);
    Coordinator::start(config)
        .await
        .expect_err("must not start")
}

#[tokio::test]
async fn a_port_in_use_is_named_with_what_to_do() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().map(|address| (taken, address)).unwrap();
    let error = start_error(|config| config.listen = taken.1).await;
    assert!(matches!(error, StartError::AddressInUse { address } if address == taken.1));
    assert!(error.to_string().contains(&taken.1.to_string()), "{error}");
    let error = start_error(|config| config.http_listen = Some(taken.1)).await;
    assert!(matches!(error, StartError::AddressInUse { .. }));
}

#[tokio::test]
async fn nothing_but_loopback_is_listened_on() {
    let everywhere: SocketAddr = "0.0.0.0:0".parse().unwrap();
    let error = start_error(|config| config.listen = everywhere).await;
    assert!(matches!(error, StartError::NotLoopback { .. }));
    let everywhere: SocketAddr = "[::]:0".parse().unwrap();
    let error = start_error(|config| config.http_listen = Some(everywhere)).await;
    assert!(matches!(error, StartError::NotLoopback { .. }));
}

#[tokio::test]
async fn a_storage_that_is_none_is_refused() {
    let error = start_error(|config| config.storage = Some("ftp://x".to_owned())).await;
    assert!(matches!(error, StartError::Storage(_)), "{error}");
}

#[tokio::test]
async fn one_coordinator_at_a_time_uses_a_state_directory() {
    let coordinator = Running::start().await;
    let error = Coordinator::start(config(coordinator.state.path()))
        .await
        .expect_err("in use");
    let in_use = StateDirectoryError::InUse {
        path: coordinator.state.path().to_owned(),
    };
    assert_eq!(error.to_string(), in_use.to_string());
    let state = coordinator.stop().await;
    Running::start_in(state, |_| {}).await.stop().await;
}

#[tokio::test]
async fn health_is_told_over_grpc() {
    let coordinator = Running::start().await;
    let mut health = HealthClient::new(coordinator.channel.clone());
    for service in ["", "build.bazel.remote.execution.v2.Execution"] {
        let request = HealthCheckRequest {
            service: service.to_owned(),
        };
        assert_eq!(health.check(request).await.unwrap().into_inner().status, 1);
    }
    let request = HealthCheckRequest {
        service: "unknown".to_owned(),
    };
    assert_eq!(
        health.check(request).await.unwrap_err().code(),
        Code::NotFound
    );
    let all = health
        .list(HealthListRequest {})
        .await
        .unwrap()
        .into_inner()
        .statuses;
    assert!(all.contains_key("google.bytestream.ByteStream"));
    // A watcher hears of the end before the connection ends.
    let watching = health.watch(HealthCheckRequest::default()).await.unwrap();
    let mut states = watching.into_inner();
    assert_eq!(states.message().await.unwrap().unwrap().status, 1);
    let stopped = tokio::spawn(coordinator.stop());
    assert_eq!(states.message().await.unwrap().unwrap().status, 2);
    // Its call would never end by itself, and yet the coordinator stops.
    stopped.await.unwrap();
}

#[tokio::test]
async fn pages_tell_health_and_metrics() {
    let coordinator = Running::start().await;
    coordinator.store("something").await;
    assert_eq!(
        coordinator.http_get("/healthz").await,
        (200, "ok\n".to_owned())
    );
    assert_eq!(
        coordinator.http_get("/readyz").await,
        (200, "ready\n".to_owned())
    );
    let (status, metrics) = coordinator.http_get("/metrics").await;
    assert_eq!(status, 200);
    let method = "build.bazel.remote.execution.v2.ContentAddressableStorage/BatchUpdateBlobs";
    let counter = format!("regatta_grpc_requests_total{{method=\"{method}\"}}");
    assert!(metrics.contains(&counter), "{metrics}");
    assert!(
        metrics.contains("regatta_slots{state=\"free\"}"),
        "{metrics}"
    );
    assert_eq!(coordinator.http_get("/unknown").await.0, 404);
}
