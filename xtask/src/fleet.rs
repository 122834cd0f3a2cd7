//! A coordinator and agents, each a process of its own, on free ports of this machine.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::interrupt;

/// How long a process may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(30);
/// Makes `regatta` end once its standard input is closed, which it is when we are killed.
pub(crate) const EXIT_WITH_STDIN: &str = "--exit-with-stdin";

/// A running fleet. Dropping it stops every process in it.
pub(crate) struct Fleet {
    processes: Vec<(String, Child)>,
    program: PathBuf,
    state: PathBuf,
    coordinator: String,
    pages: String,
}

impl Fleet {
    /// Starts a coordinator, and waits until it listens. Its state and logs go below `state`.
    pub(crate) fn start(program: &Path, state: &Path, image: Option<&str>) -> Result<Self> {
        let options: Vec<&str> = image.iter().flat_map(|image| ["--image", image]).collect();
        Self::start_with(program, state, &options)
    }

    /// The same with more options of `regatta coordinator`.
    pub(crate) fn start_with(program: &Path, state: &Path, options: &[&str]) -> Result<Self> {
        let mut fleet = Self {
            processes: Vec::new(),
            program: program.to_owned(),
            state: state.to_owned(),
            coordinator: String::new(),
            pages: String::new(),
        };
        let announcement = state.join("coordinator.addresses");
        let mut command = fleet.command("coordinator", "coordinator")?;
        command
            .args([
                "--listen",
                "127.0.0.1:0",
                "--http-listen",
                "127.0.0.1:0",
                "--announce",
            ])
            .arg(&announcement)
            .args(options);
        fleet.spawn("coordinator", command)?;
        (fleet.coordinator, fleet.pages) = fleet.await_announcement(&announcement)?;
        Ok(fleet)
    }

    /// Where the coordinator listens, as a URL.
    pub(crate) fn coordinator(&self) -> &str {
        &self.coordinator
    }

    /// Where the coordinator's pages for people and machines are, as a URL.
    pub(crate) fn pages(&self) -> &str {
        &self.pages
    }

    /// Starts one more agent.
    pub(crate) fn add_agent(&mut self, name: &str, slots: usize, runtime: &str) -> Result<()> {
        self.add_agent_with(name, slots, runtime, &[])
    }

    /// The same with more options of `regatta agent`. One that was killed comes back with what it had.
    pub(crate) fn add_agent_with(
        &mut self,
        name: &str,
        slots: usize,
        runtime: &str,
        options: &[&str],
    ) -> Result<()> {
        let mut command = self.command(name, "agent")?;
        command.args(["--coordinator", &self.coordinator, "--runtime", runtime]);
        command.args(["--slots", &slots.to_string()]).args(options);
        self.spawn(name, command)
    }

    /// Kills a member, which can do nothing about it.
    pub(crate) fn kill(&mut self, name: &str) {
        let Some(at) = self.processes.iter().position(|(it, _)| it == name) else {
            return;
        };
        let (_, mut child) = self.processes.remove(at);
        signal(&child, Signal::KILL);
        ended_within(&mut child, PATIENCE);
    }

    /// The process id of a member.
    pub(crate) fn pid(&self, name: &str) -> Option<u32> {
        self.processes
            .iter()
            .find(|(it, _)| it == name)
            .map(|(_, child)| child.id())
    }

    /// Stops everything, agents first, and waits until it has ended.
    pub(crate) fn stop(&mut self) {
        while let Some((name, mut child)) = self.processes.pop() {
            signal(&child, Signal::TERM);
            if !ended_within(&mut child, PATIENCE) {
                eprintln!("{name} did not stop within {PATIENCE:?}; killing it");
                signal(&child, Signal::KILL);
                ended_within(&mut child, PATIENCE);
            }
        }
    }

    fn command(&self, name: &str, subcommand: &str) -> Result<Command> {
        let home = self.state.join(name);
        std::fs::create_dir_all(&home)?;
        let mut log = std::fs::OpenOptions::new();
        let log = log.append(true).create(true);
        let log = log.open(self.state.join(format!("{name}.log")))?;
        let mut command = Command::new(&self.program);
        command
            .args([subcommand, EXIT_WITH_STDIN, "--state-dir"])
            .arg(home);
        // A group of its own: Ctrl-C reaches the demo alone, which then stops things in order.
        command
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log);
        Ok(command)
    }

    fn spawn(&mut self, name: &str, mut command: Command) -> Result<()> {
        let child = command
            .spawn()
            .with_context(|| format!("starting the {name}"))?;
        self.processes.push((name.to_owned(), child));
        Ok(())
    }

    fn await_announcement(&mut self, file: &Path) -> Result<(String, String)> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            interrupt::check()?;
            if let Ok(text) = std::fs::read_to_string(file) {
                return announced_urls(&text);
            }
            if let Some((name, status)) = self.first_ended()? {
                let log = std::fs::read_to_string(self.state.join(format!("{name}.log")));
                bail!(
                    "the {name} ended at once ({status}):\n{}",
                    log.unwrap_or_default()
                );
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        bail!("the coordinator did not say where it listens within {PATIENCE:?}")
    }

    fn first_ended(&mut self) -> Result<Option<(String, std::process::ExitStatus)>> {
        for (name, child) in &mut self.processes {
            if let Some(status) = child.try_wait()? {
                return Ok(Some((name.clone(), status)));
            }
        }
        Ok(None)
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Where gRPC and the pages are.
fn announced_urls(text: &str) -> Result<(String, String)> {
    let announced: serde_json::Value =
        serde_json::from_str(text).context("reading the announcement")?;
    let url = |what: &str| {
        let url = announced[what].as_str().map(str::to_owned);
        url.with_context(|| format!("the announcement names no {what} address"))
    };
    Ok((url("grpc")?, url("http")?))
}

/// Sends a signal to a child that has not been waited for.
pub(crate) fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let Some(Err(error)) = pid.map(|pid| kill_process(pid, signal)) {
        eprintln!("signalling process {}: {error}", child.id());
    }
}

/// Waits for a child; false if it is still there afterwards.
fn ended_within(child: &mut Child, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        if !matches!(child.try_wait(), Ok(None)) {
            return true;
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    false
}
