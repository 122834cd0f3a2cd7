//! The demo as a person plays it: interrupted, with an agent killed in the middle, and to its end.
//! `cargo xtask test` turns this on (feature `demo-tests`).

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::TempDir;

/// How long the demo may take: on a new machine, it builds the whole product.
const PATIENCE: Duration = Duration::from_secs(1800);
/// How long what was killed may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);
/// What the demo's directories, and so the command lines of all that it starts, are known by.
const STATE_PREFIX: &str = "regatta-demo-";

/// A demo under way, in a temporary directory and a process group of its own.
struct Demo {
    child: Child,
    place: TempDir,
    /// The containers that were there before.
    others: Vec<String>,
}

impl Demo {
    fn start() -> Self {
        let others = containers();
        let place = tempfile::tempdir().expect("a directory");
        let log = File::create(place.path().join("log")).expect("a log");
        let mut demo = Command::new(env!("CARGO_BIN_EXE_xtask"));
        let child = demo
            .arg("demo")
            .env("TMPDIR", place.path())
            .process_group(0)
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn();
        Self {
            child: child.expect("it starts"),
            place,
            others,
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.place.path().join("log")).expect("a log")
    }

    /// Waits until something is there; fails if the demo ends before.
    fn wait_for<T>(&mut self, what: &str, mut look: impl FnMut(&Self) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            let ended = self.child.try_wait().expect("it can be waited for");
            let goes_on = ended.is_none() && Instant::now() < deadline;
            assert!(goes_on, "{what}: not seen ({ended:?}):\n{}", self.log());
            std::thread::park_timeout(POLL);
        }
    }

    /// The directory that holds the fleet's state.
    fn state(&self) -> Option<PathBuf> {
        let entries = std::fs::read_dir(self.place.path()).expect("a directory");
        let mut states = entries.flatten().map(|entry| entry.path());
        states.find(|path| path.to_string_lossy().contains(STATE_PREFIX))
    }

    /// How many tests have ended so far.
    fn tests_finished(&self) -> Option<u64> {
        let announced = self.state()?.join("coordinator.addresses");
        let announced = std::fs::read_to_string(announced).ok()?;
        let addresses: serde_json::Value = serde_json::from_str(&announced).ok()?;
        let address = addresses["http"].as_str()?.trim_start_matches("http://");
        let mut stream = TcpStream::connect(address).ok()?;
        let request = "GET /metrics HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).ok()?;
        let mut page = String::new();
        stream.read_to_string(&mut page).ok()?;
        let mut lines = page.lines();
        let count = lines.find_map(|line| line.strip_prefix("regatta_tests_finished_total "))?;
        count.parse().ok()
    }

    fn end(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "it does not end:\n{}",
                self.log()
            );
            std::thread::park_timeout(POLL);
        }
    }

    /// Waits until nothing that the demo started or made is left, but its log.
    fn expect_nothing_left(&self) {
        let place = self.place.path().to_str().expect("text");
        let deadline = Instant::now() + GONE_WITHIN;
        loop {
            let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
            let states = self.state().into_iter();
            let left = [
                states.map(|it| it.display().to_string()).collect(),
                processes_mentioning(place),
                lines_with(&mounts, place),
                containers()
                    .into_iter()
                    .filter(|it| !self.others.contains(it))
                    .collect(),
            ]
            .concat();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "left: {left:#?}\n{}", self.log());
            std::thread::park_timeout(POLL);
        }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // It has ended, unless the test fails.
        if matches!(self.child.try_wait(), Ok(None)) {
            interrupt(&self.child);
            drop(self.child.wait());
        }
    }
}

/// What a terminal does at Ctrl-C.
fn interrupt(child: &Child) {
    kill_process_group(Pid::from_child(child), Signal::INT).expect("it runs");
}

fn lines_with(text: &str, words: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| line.contains(words));
    lines.map(str::to_owned).collect()
}

fn command_line(pid: &Path) -> String {
    let bytes = std::fs::read(pid.join("cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

/// The processes whose command line holds a text: their directories in `/proc`.
fn process_directories(words: &[&str]) -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/proc").expect("processes").flatten();
    let directories = entries.map(|entry| entry.path());
    let holds = |pid: &PathBuf| {
        let line = command_line(pid);
        words.iter().all(|words| line.contains(words))
    };
    directories.filter(holds).collect()
}

fn processes_mentioning(words: &str) -> Vec<String> {
    let found = process_directories(&[words]);
    found.iter().map(|pid| command_line(pid)).collect()
}

/// The containers of agents, running or not.
fn containers() -> Vec<String> {
    let mut list = Command::new("docker");
    list.args(["ps", "--all", "--quiet", "--no-trunc"]);
    list.args(["--filter", "label=dev.regatta.agent"]);
    let listed = list.output().expect("docker starts");
    assert!(listed.status.success(), "{listed:?}");
    let text = String::from_utf8_lossy(&listed.stdout);
    text.lines().map(str::to_owned).collect()
}

fn interrupt_during(what: &str, is_so: impl Fn(&Demo) -> bool) {
    let mut demo = Demo::start();
    demo.wait_for(what, |demo| is_so(demo).then_some(()));
    interrupt(&demo.child);
    let status = demo.end();
    assert!(!status.success(), "{}", demo.log());
    assert!(demo.log().contains("interrupted"), "{}", demo.log());
    demo.expect_nothing_left();
}

/// One after the other, since they share the scratch copy of the workspace.
#[test]
fn the_demo_bears_interruptions_and_the_death_of_an_agent() {
    interrupt_during("the build", |demo| {
        !processes_mentioning("rustc").is_empty() && demo.state().is_some()
    });
    interrupt_during("tests", |demo| demo.tests_finished() > Some(50));

    let mut demo = Demo::start();
    demo.wait_for("tests", |demo| {
        demo.tests_finished().filter(|count| *count > 100)
    });
    let place = demo.place.path().to_str().expect("text").to_owned();
    let doomed = process_directories(&[&place, " agent ", "agent-2"]);
    for pid in &doomed {
        let pid = pid.file_name().and_then(|name| name.to_str()?.parse().ok());
        let pid = pid.and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, Signal::KILL).expect("it runs");
    }
    assert_eq!(doomed.len(), 1, "{doomed:?}");
    let status = demo.end();
    let log = demo.log();
    assert!(status.success(), "{status}:\n{log}");
    assert_eq!(log.matches(": RELEASABLE in ").count(), 3, "{log}");
    assert!(
        log.contains("again: RELEASABLE") && log.contains(": 0 tests executed"),
        "{log}"
    );
    demo.expect_nothing_left();
}
