//! A coordinator and agents for one test, and the proof that nothing of them is left.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::program::{Ended, image, regatta, wait_until};

/// A running fleet, stopped and checked for leftovers when dropped.
#[derive(Debug)]
pub(crate) struct Fleet {
    state: TempDir,
    url: String,
    coordinator: Option<Child>,
    agents: Vec<(String, Child)>,
    /// Every agent there ever was.
    names: Vec<String>,
}

static NEXT: AtomicU32 = AtomicU32::new(0);

impl Fleet {
    /// A coordinator alone.
    pub(crate) fn coordinator() -> Self {
        let state = tempfile::Builder::new()
            .prefix("regatta-e2e-")
            .tempdir()
            .expect("a directory");
        let mut fleet = Self {
            state,
            url: String::new(),
            coordinator: None,
            agents: Vec::new(),
            names: Vec::new(),
        };
        fleet.start_coordinator("127.0.0.1:0");
        fleet
    }

    /// A coordinator and so many agents of two slots each.
    pub(crate) fn of(agents: usize) -> Self {
        let mut fleet = Self::coordinator();
        for _ in 0..agents {
            fleet.add_agent(&[]);
        }
        fleet
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn state(&self) -> &Path {
        self.state.path()
    }

    pub(crate) fn start_coordinator(&mut self, listen: &str) {
        let announcement = self.state.path().join("addresses.json");
        drop(std::fs::remove_file(&announcement));
        let mut command = regatta();
        command.args([
            "coordinator",
            "--listen",
            listen,
            "--http-listen",
            "127.0.0.1:0",
        ]);
        command
            .args(["--image", &image(), "--announce"])
            .arg(&announcement);
        command
            .arg("--state-dir")
            .arg(self.state.path().join("coordinator"));
        self.coordinator = Some(start(&mut command, &self.log("coordinator")));
        wait_until("the coordinator listens", || announcement.exists());
        let text = std::fs::read_to_string(&announcement).expect("an announcement");
        let addresses: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        self.url = addresses["grpc"].as_str().expect("an address").to_owned();
    }

    /// Starts an agent and returns its name once it is connected.
    pub(crate) fn add_agent(&mut self, options: &[&str]) -> String {
        let name = format!(
            "e2e-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let mut command = regatta();
        command.args([
            "agent",
            "--coordinator",
            &self.url,
            "--slots",
            "2",
            "--runtime",
            "docker",
        ]);
        command
            .args(["--name", &name, "--state-dir"])
            .arg(self.state.path().join(&name));
        let child = start(command.args(options), &self.log(&name));
        self.agents.push((name.clone(), child));
        self.names.push(name.clone());
        wait_until("the agent is connected", || {
            self.agent(&name).is_some_and(|it| it["state"] != "lost")
        });
        name
    }

    /// What `regatta agents` says of an agent.
    pub(crate) fn agent(&self, name: &str) -> Option<serde_json::Value> {
        let ended = Ended::of(self.command().args(["agents", "--format", "json"]));
        let lines = ended
            .stdout
            .lines()
            .map(|line| serde_json::from_str(line).expect(line));
        lines
            .into_iter()
            .find(|it: &serde_json::Value| it["agent_id"] == name)
    }

    /// `regatta` for this fleet.
    pub(crate) fn command(&self) -> Command {
        let mut command = regatta();
        command.args(["--coordinator", &self.url]);
        command
    }

    pub(crate) fn signal_agent(&mut self, name: &str, signal: Signal) {
        let (_, child) = self
            .agents
            .iter()
            .find(|(it, _)| it == name)
            .expect("an agent");
        send(child, signal);
    }

    /// `kill -9`, and what is left of it is collected.
    pub(crate) fn kill_agent(&mut self, name: &str) {
        self.signal_agent(name, Signal::KILL);
        let index = self
            .agents
            .iter()
            .position(|(it, _)| it == name)
            .expect("an agent");
        self.agents.remove(index).1.wait().expect("it ended");
    }

    pub(crate) fn kill_coordinator(&mut self) {
        let mut child = self.coordinator.take().expect("a coordinator");
        send(&child, Signal::KILL);
        child.wait().expect("it ended");
    }

    /// The containers of this fleet's agents, running or not.
    pub(crate) fn containers(&self) -> Vec<String> {
        let mut list = Command::new("docker");
        list.args([
            "ps",
            "--all",
            "--filter",
            "label=dev.regatta.agent",
            "--format",
            "{{.Labels}}",
        ]);
        let output = Ended::of(&mut list);
        let ours = |line: &&str| {
            let labels: Vec<_> = line
                .split(',')
                .filter_map(|label| label.split_once('='))
                .collect();
            self.names
                .iter()
                .any(|name| labels.iter().any(|(_, value)| value == name))
        };
        output
            .stdout
            .lines()
            .filter(ours)
            .map(str::to_owned)
            .collect()
    }

    fn log(&self, name: &str) -> PathBuf {
        self.state.path().join(format!("{name}.log"))
    }

    fn logs(&self) -> String {
        let entries = std::fs::read_dir(self.state.path())
            .expect("a directory")
            .flatten();
        let logs = entries
            .map(|entry| entry.path())
            .filter(|it| it.extension().is_some_and(|it| it == "log"));
        logs.map(|log| {
            format!(
                "{}:\n{}\n",
                log.display(),
                std::fs::read_to_string(&log).unwrap_or_default()
            )
        })
        .collect()
    }

    /// Stops everything in order and checks that nothing is left: containers, mounts, processes.
    pub(crate) fn stop(mut self) {
        self.end();
        let state = self.state.path().display().to_string();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        assert!(!mounts.contains(&state), "left mounted:\n{mounts}");
        let left = processes_mentioning(&state);
        assert!(left.is_empty(), "left running: {left:?}");
        let containers = self.containers();
        assert!(containers.is_empty(), "left in Docker: {containers:?}");
    }

    fn end(&mut self) {
        for (_, child) in &self.agents {
            send(child, Signal::TERM);
        }
        for (name, mut child) in std::mem::take(&mut self.agents) {
            let status = child.wait().expect("it ends");
            assert!(
                status.success(),
                "{name} ended with {status}\n{}",
                self.logs()
            );
        }
        if let Some(mut child) = self.coordinator.take() {
            send(&child, Signal::TERM);
            let status = child.wait().expect("it ends");
            assert!(
                status.success(),
                "the coordinator ended with {status}\n{}",
                self.logs()
            );
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        for child in self
            .agents
            .iter_mut()
            .map(|(_, child)| child)
            .chain(self.coordinator.as_mut())
        {
            send(child, Signal::KILL);
            drop(child.wait());
        }
    }
}

fn start(command: &mut Command, log: &Path) -> Child {
    let log = std::fs::File::create(log).expect("a log");
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a log"))
        .stderr(log);
    command.spawn().expect("regatta starts")
}

pub(crate) fn send(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .expect("a process id");
    // It may have ended by itself just now.
    kill_process(pid, signal).ok();
}

/// The command lines that hold a text, this process's own aside.
fn processes_mentioning(text: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(text))
        .collect()
}
