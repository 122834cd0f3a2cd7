//! How little an agent is that does nothing. Alone in its process, since memory is the process's.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up has failed"
)]

#[path = "fleet/cas.rs"]
mod cas;
#[expect(dead_code, reason = "other tests use the rest of it")]
#[path = "fleet/coordinator.rs"]
mod coordinator;

use std::sync::Arc;

use regatta_agent::{Agent, AgentConfig};
use regatta_runtime::{ProcessOptions, ProcessRuntime};
use tokio_util::sync::CancellationToken;

use crate::coordinator::Coordinator;

/// What an idle agent may have resident, in KiB, with the coordinator of this test in the same process.
const LIMIT_KIB: u64 = 40_000_000 / 1024;

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn an_idle_agent_is_small() {
    let directory = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start().await;
    let options = ProcessOptions {
        run_directory: directory.path().join("run"),
        hidden: Vec::new(),
    };
    let runtime = ProcessRuntime::new(options).await.unwrap();
    let uri = format!("http://{}", coordinator.address);
    let mut config = AgentConfig::new(uri, directory.path().join("state"));
    config.minimum_free_bytes = 0;
    let agent = Agent::new(config, Arc::new(runtime)).unwrap();
    let kill = CancellationToken::new();
    let running = tokio::spawn(agent.run(CancellationToken::new(), kill.clone()));
    // By the second heartbeat it has done all that it does at its start.
    let twice = |known: &coordinator::Known| (known.reports.len() > 2).then_some(());
    coordinator.wait_for("heartbeats", twice).await;
    let resident = resident_kib();
    println!("resident: {resident} KiB");
    assert!(resident < LIMIT_KIB, "{resident} KiB are resident");
    kill.cancel();
    running.await.unwrap().unwrap();
}
