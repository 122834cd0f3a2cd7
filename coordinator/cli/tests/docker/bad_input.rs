//! One clear error each, with what to do, the right exit code, and nothing left behind.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::StreamExt as _;
use regatta_wire::v1;
use regatta_wire::v1::fleet_client::FleetClient;
use regatta_wire::v1::fleet_server::{Fleet as FleetRpc, FleetServer};
use rustix::process::Signal;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

use super::RUNTIME;
use super::fleet::Fleet;
use super::program::{Ended, Running, regatta, write};

#[test]
fn a_port_in_use() {
    let fleet = Fleet::coordinator();
    let address = fleet.url().trim_start_matches("grpc://").to_owned();
    let mut second = regatta();
    second.args([
        "coordinator",
        "--listen",
        &address,
        "--http-listen",
        "127.0.0.1:0",
        "--state-dir",
    ]);
    let state = tempfile::tempdir().expect("a directory");
    let ended = Ended::of(second.arg(state.path()));
    ended
        .expect_code(99)
        .expect_complaint(&[&address, "in use"]);
    fleet.stop();
}

#[test]
fn a_coordinator_that_is_not_there() {
    let ended = Ended::of(regatta().args(["--coordinator", "grpc://127.0.0.1:1", "ps"]));
    ended.expect_code(97).expect_complaint(&["127.0.0.1:1"]);
}

#[test]
fn a_glob_that_matches_nothing_a_key_that_does_not_exist_and_a_circle() {
    let fleet = Fleet::coordinator();
    let check = |text: &str, words: &[&str]| {
        let project = tempfile::tempdir().expect("a directory");
        write(project.path(), &[("regatta.toml", text)]);
        let ended = Ended::of(fleet.command().current_dir(project.path()).arg("run"));
        ended.expect_code(96).expect_complaint(words);
    };
    check("[jobs.a]\nrun = 'true'\ninputs = ['src/**']\n", &["src/**"]);
    check(
        "[jobs.a]\nrun = 'true'\nimput = []\n",
        &["regatta.toml:3:1", "imput", "inputs"],
    );
    let circle = "[jobs.a]\nrun = 'true'\nneeds = ['b']\n[jobs.b]\nrun = 'true'\nneeds = ['a']\n";
    check(circle, &["regatta.toml:1:", "a", "b", "needs"]);
    fleet.stop();
}

/// A job that reads a file, in some version.
fn reads_words(project: &Path, version: u32) {
    let text = format!("[jobs.a]\nrun = 'grep these words # {version}'\ninputs = ['words']\n");
    write(project, &[("regatta.toml", &text)]);
}

fn run(fleet: &Fleet, project: &Path) -> Command {
    let mut run = fleet.command();
    run.current_dir(project)
        .args(["--message-format", "json", "run"]);
    run
}

#[test]
fn an_agent_whose_disk_is_full() {
    let mut fleet = Fleet::coordinator();
    let name = fleet.add_agent(&["--minimum-free", "1000000GiB"]);
    let agent = fleet.agent(&name).expect("it is known");
    assert!(agent.to_string().contains("disk full"), "{agent}");
    let doctor = Ended::of(fleet.command().arg("doctor"));
    doctor.expect_code(99);
    for words in ["none takes work", &name, "disk full"] {
        assert!(doctor.stdout.contains(words), "no {words:?} in {doctor:#?}");
    }
    let project = tempfile::tempdir().expect("a directory");
    write(project.path(), &[("words", "some")]);
    reads_words(project.path(), 1);
    let mut waiting = Running::begin(&mut run(&fleet, project.path()));
    waiting.expect_words(&format!("no agent takes work ({name}: disk full"));
    waiting.send(Signal::INT);
    waiting.end().expect_code(130);
    fleet.stop();
}

/// The files below a directory that hold just these bytes.
fn files_with(bytes: &[u8], below: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(below).expect("a directory");
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let path = entry.path();
        match entry.file_type().expect("a type") {
            kind if kind.is_dir() => found.extend(files_with(bytes, &path)),
            kind if kind.is_file() && std::fs::read(&path).is_ok_and(|it| it == bytes) => {
                found.push(path);
            }
            _ => {}
        }
    }
    found
}

#[test]
fn a_corrupt_blob_in_the_store() {
    let mut fleet = Fleet::coordinator();
    let address = fleet.url().trim_start_matches("grpc://").to_owned();
    let agent = fleet.add_agent(&[]);
    let project = tempfile::tempdir().expect("a directory");
    let (words, lies) = ("these are the words\n", "those are no words\n\n");
    write(project.path(), &[("words", words)]);
    reads_words(project.path(), 1);
    Ended::of(&mut run(&fleet, project.path())).expect_code(0);
    // What the coordinator and the agent keep at hand is not read from the store.
    fleet.kill_coordinator();
    fleet.kill_agent(&agent);
    let stored = files_with(words.as_bytes(), &fleet.state().join("coordinator"));
    assert_eq!(stored.len(), 1, "{stored:?}");
    std::fs::write(&stored[0], lies).expect("it is spoilt");
    fleet.start_coordinator(&address);
    fleet.add_agent(&[]);
    reads_words(project.path(), 2);
    let spoilt = Ended::of(&mut run(&fleet, project.path()));
    let finished = spoilt.expect_code(98).finished();
    assert_eq!(finished["verdict"], "UNKNOWN", "{spoilt:#?}");
    assert!(
        finished["reasons"]
            .to_string()
            .contains("submit the run again"),
        "{spoilt:#?}"
    );
    let again = Ended::of(&mut run(&fleet, project.path()));
    again.expect_code(0);
    fleet.stop();
}

#[test]
fn a_file_that_changes_while_it_is_read() {
    let fleet = Fleet::coordinator();
    let project = tempfile::tempdir().expect("a directory");
    let words = project.path().join("words");
    // Long enough that a busy machine lets the writer in each time it is read.
    let file = std::fs::File::create(&words).expect("a file");
    file.set_len(256 << 20).expect("it is sparse");
    reads_words(project.path(), 1);
    let stop = AtomicBool::new(false);
    let ended = std::thread::scope(|scope| {
        scope.spawn(|| {
            use std::io::Write as _;
            let mut file = std::fs::File::options().append(true).open(&words);
            let file = file.as_mut().expect("it is there");
            while !stop.load(Ordering::Relaxed) {
                file.write_all(b"more").expect("it grows");
                std::thread::park_timeout(std::time::Duration::from_millis(1));
            }
        });
        let ended = Ended::of(&mut run(&fleet, project.path()));
        stop.store(true, Ordering::Relaxed);
        ended
    });
    ended
        .expect_code(99)
        // Whichever sees it first: what digests it or what uploads it.
        .expect_complaint(&["words chang", " while it ", "run again"]);
    assert!(ended.lines("run-submitted").is_empty(), "{ended:#?}");
    fleet.stop();
}

/// Passes an agent's connection on to a coordinator, as if the agent were of another version.
struct OtherVersion(Channel);

#[tonic::async_trait]
impl FleetRpc for OtherVersion {
    type SyncStream = Streaming<v1::DesiredState>;

    async fn sync(
        &self,
        request: Request<Streaming<v1::AgentReport>>,
    ) -> Result<Response<Self::SyncStream>, Status> {
        let reports = request.into_inner().map(|report| v1::AgentReport {
            protocol_version: 99,
            ..report.unwrap_or_default()
        });
        FleetClient::new(self.0.clone()).sync(reports).await
    }

    async fn stream_output(
        &self,
        _: Request<Streaming<v1::OutputChunk>>,
    ) -> Result<Response<v1::StreamOutputResponse>, Status> {
        Err(Status::unimplemented("no output"))
    }

    async fn list_agents(
        &self,
        _: Request<v1::ListAgentsRequest>,
    ) -> Result<Response<v1::ListAgentsResponse>, Status> {
        Err(Status::unimplemented("no list"))
    }

    async fn drain_agent(
        &self,
        _: Request<v1::DrainAgentRequest>,
    ) -> Result<Response<v1::DrainAgentResponse>, Status> {
        Err(Status::unimplemented("no drain"))
    }
}

#[test]
fn an_agent_that_speaks_another_protocol_version() {
    let fleet = Fleet::coordinator();
    let runtime = Runtime::new().expect("a runtime");
    let url = fleet.url().replacen("grpc://", "http://", 1);
    let address = runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let coordinator = Endpoint::from_shared(url).expect("a URL").connect_lazy();
        let server = Server::builder()
            .add_service(FleetServer::new(OtherVersion(coordinator)))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(server);
        address
    });
    let state = tempfile::tempdir().expect("a directory");
    let mut agent = regatta();
    agent.args(["agent", "--runtime", RUNTIME.name(), "--coordinator"]);
    agent.arg(format!("grpc://{address}"));
    let ended = Ended::of(agent.arg("--state-dir").arg(state.path()));
    ended
        .expect_code(99)
        .expect_complaint(&["protocol version 99", "speaks 1", "same release"]);
    fleet.stop();
}
