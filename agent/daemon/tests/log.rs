//! What an agent writes into its log. Alone in its process, since a process has one log.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up has failed"
)]

#[path = "fleet/cas.rs"]
mod cas;
#[expect(dead_code, reason = "other tests use the rest of it")]
#[path = "fleet/coordinator.rs"]
mod coordinator;

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use prost::Message as _;
use regatta_agent::{Agent, AgentConfig};
use regatta_cas::put_bytes;
use regatta_runtime::fake::{FakeRun, FakeRuntime};
use regatta_wire::{reapi, v1};
use tokio_util::sync::CancellationToken;

use crate::coordinator::Coordinator;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn line_with(&self, text: &str) -> String {
        let log = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let line = log.lines().find(|line| line.contains(text));
        line.unwrap_or_else(|| panic!("no `{text}` in:\n{log}"))
            .to_owned()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_leases_lines_name_its_run_its_task_and_itself() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(tracing::Level::DEBUG)
        .with_writer(move || writer.clone())
        .init();
    let coordinator = Coordinator::start().await;
    let directory = tempfile::tempdir().unwrap();
    let runtime = FakeRuntime::new(directory.path().join("views"), |_| FakeRun::exit(0));
    runtime.add_image("img:1".parse().unwrap(), "sha256:abc");
    let uri = format!("http://{}", coordinator.address);
    let mut config = AgentConfig::new(uri, directory.path().join("state"));
    config.minimum_free_bytes = 0;
    let agent = Agent::new(config, Arc::new(runtime)).unwrap();
    let kill = CancellationToken::new();
    let running = tokio::spawn(agent.run(CancellationToken::new(), kill.clone()));
    let root = reapi::Directory::default().encode_to_vec().into();
    let root = put_bytes(&*coordinator.store, root).await.unwrap();
    let spec = v1::LeaseSpec {
        run_id: "run-seven".to_owned(),
        task_id: 4711,
        image: "img:1".to_owned(),
        command: Some(reapi::Command {
            arguments: vec!["program".to_owned()],
            ..Default::default()
        }),
        input_root: Some(root.into()),
        timeout: Some(prost_types::Duration {
            seconds: 60,
            nanos: 0,
        }),
        executions: vec![v1::Execution::default()],
        ..Default::default()
    };
    coordinator.grant(77, spec);
    coordinator.outcomes(77).await;
    kill.cancel();
    running.await.unwrap().unwrap();
    // The last is written by a task of its own.
    for text in [
        "the lease starts",
        "the lease has ended",
        "a result is stored",
    ] {
        let line = log.line_with(text);
        for part in ["run=run-seven", "task=4711", "lease=77", "slot=0"] {
            assert!(line.contains(part), "no {part} in: {line}");
        }
    }
}
