//! How little a coordinator is that does nothing. Alone in its process, since memory is the process's.
#![expect(
    clippy::unwrap_used,
    reason = "this is all test code; a panic is how a test fails"
)]

use regatta_server::{Coordinator, CoordinatorConfig};
use tokio_util::sync::CancellationToken;

/// What an idle coordinator may have resident, in KiB (issue 2: 50 MB).
const LIMIT_KIB: u64 = 50_000_000 / 1024;

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn an_idle_coordinator_is_small() {
    let state = tempfile::tempdir().unwrap();
    let mut config = CoordinatorConfig::new(state.path());
    config.listen.set_port(0);
    config.http_listen = Some("127.0.0.1:0".parse().unwrap());
    let coordinator = Coordinator::start(config).await.unwrap();
    let shutdown = CancellationToken::new();
    let address = coordinator.grpc_address();
    let served = tokio::spawn(coordinator.serve_until(shutdown.clone()));
    // It serves once it takes a connection.
    tokio::net::TcpStream::connect(address).await.unwrap();
    let resident = resident_kib();
    println!("resident: {resident} KiB");
    assert!(resident < LIMIT_KIB, "{resident} KiB are resident");
    shutdown.cancel();
    served.await.unwrap().unwrap();
}
