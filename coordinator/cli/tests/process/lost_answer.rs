//! A coordinator that is killed when it has a run, and nobody has been told so.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::fleet::Fleet;
use super::program::{Ended, Running, regatta, wait_until, write};

const TESTS: usize = 20;
/// It is in no request but the one that submits the run.
const JOB: &str = "whose-answer-is-lost";

const PIPELINE: &str = r#"
[jobs.whose-answer-is-lost]
inputs = ["suite.sh"]
[jobs.whose-answer-is-lost.suite]
adapter = "libtest"
run = ["sh", "suite.sh"]
"#;

const SUITE: &str = r#"
for last; do :; done
case "$*" in
*--list*--ignored*|*--ignored*--list*) exit ;;
*--list*) seq 1 20 | sed 's/.*/test-&: test/'; exit ;;
esac
echo "$last" >> DIRECTORY/begun
echo; echo "running 1 test"; echo
echo "test result: ok. 1 passed; 0 failed; 0 ignored"
"#;

/// Passes connections on to a coordinator. Once something was asked for that names [`JOB`], nothing is answered on
/// that connection any more.
#[derive(Debug)]
struct Proxy {
    url: String,
}

impl Proxy {
    fn to(coordinator: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let coordinator = coordinator.to_owned();
        let is_first = Arc::new(AtomicBool::new(true));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A client whose coordinator is gone comes again.
                if let Ok(server) = TcpStream::connect(&coordinator) {
                    pass_on(&client, &server, &is_first);
                }
            }
        });
        let url = format!("grpc://{address}");
        Self { url }
    }
}

fn pass_on(client: &TcpStream, server: &TcpStream, is_first: &Arc<AtomicBool>) {
    let is_muffled = Arc::new(AtomicBool::new(false));
    let (from, to) = (again(client), again(server));
    let (muffle, is_first) = (Arc::clone(&is_muffled), Arc::clone(is_first));
    std::thread::spawn(move || {
        let mut asked = Vec::new();
        copy(&from, &to, |bytes| {
            asked.extend_from_slice(bytes);
            let names_it = asked.windows(JOB.len()).any(|it| it == JOB.as_bytes());
            if names_it && is_first.swap(false, Ordering::SeqCst) {
                muffle.store(true, Ordering::SeqCst);
            }
            let kept = asked.len().saturating_sub(JOB.len());
            asked.drain(..kept);
            true
        });
    });
    let (from, to) = (again(server), again(client));
    std::thread::spawn(move || copy(&from, &to, |_| !is_muffled.load(Ordering::SeqCst)));
}

fn again(stream: &TcpStream) -> TcpStream {
    stream.try_clone().expect("a handle")
}

/// Copies what `passes` until one of the two is gone, then ends both.
fn copy(mut from: &TcpStream, mut to: &TcpStream, mut passes: impl FnMut(&[u8]) -> bool) {
    let mut buffer = [0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if passes(&buffer[..count]) && to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    for stream in [from, to] {
        // The other direction may have done so.
        drop(stream.shutdown(Shutdown::Both));
    }
}

/// All runs that the coordinator knows of.
fn listed(fleet: &Fleet) -> Vec<serde_json::Value> {
    let listed = Ended::of(fleet.command().args(["ps", "--all", "--format", "json"]));
    let lines = listed.expect_code(0).stdout.lines();
    lines
        .map(|line| serde_json::from_str(line).expect(line))
        .collect()
}

#[test]
fn a_coordinator_that_is_killed_before_it_answers_for_a_run_has_it_once() {
    let mut fleet = Fleet::coordinator();
    let address = fleet.url().trim_start_matches("grpc://").to_owned();
    let proxy = Proxy::to(&address);
    // Not below /tmp, of which each job has its own.
    let project = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let directory = project.path().display().to_string();
    let suite = SUITE.replace("DIRECTORY", &directory);
    write(
        project.path(),
        &[("regatta.toml", PIPELINE), ("suite.sh", &suite)],
    );
    let mut run = regatta();
    run.args(["--coordinator", &proxy.url, "--message-format", "json"]);
    let mut running = Running::begin(run.arg("run").current_dir(project.path()));
    wait_until("the run is stored", || listed(&fleet).len() == 1);
    fleet.kill_coordinator();
    running.expect_words("it is submitted again");
    fleet.start_coordinator(&address);
    running.expect_words(r#""type":"run-submitted""#);
    // Nothing has begun before.
    fleet.add_agent(&[]);
    let ended = running.end();
    ended.expect_code(0);
    let runs = listed(&fleet);
    assert_eq!(runs.len(), 1, "{runs:?}");
    assert_eq!(
        runs[0]["run_id"],
        ended.lines("run-submitted")[0]["run_id"],
        "{runs:?}"
    );
    assert_eq!(ended.lines("run-resumed").len(), 1, "{ended:#?}");
    for part in ["planned", "passed"] {
        assert_eq!(ended.finished()["counts"][part], TESTS, "{ended:#?}");
    }
    let begun = std::fs::read_to_string(project.path().join("begun")).expect("tests ran");
    let mut times = BTreeMap::new();
    for test in begun.lines() {
        *times.entry(test).or_insert(0) += 1;
    }
    assert_eq!(times.len(), TESTS, "{begun}");
    assert!(times.values().all(|count| *count == 1), "{times:?}");
    fleet.stop();
}
