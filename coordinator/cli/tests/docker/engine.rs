//! A Docker daemon that ends in the middle of a run: one of the test's own, beside the machine's.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::faults::{expect_each_test_once, planned, project};
use super::fleet::{Fleet, mounts, processes_mentioning};
use super::program::{image, send, wait_until};

/// A daemon with its own containers and images. Dropping it ends it.
struct Engine {
    directory: TempDir,
    daemon: Option<Child>,
}

impl Engine {
    /// One that has the image of these tests.
    fn start() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("regatta-engine-")
            .tempdir()
            .expect("a directory");
        let mut engine = Self {
            directory,
            daemon: None,
        };
        engine.begin();
        let mut save = Command::new("docker")
            .args(["save", &image()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("docker is there");
        let saved = save.stdout.take().expect("is piped");
        let loaded = engine.docker().arg("load").stdin(saved).output();
        assert!(loaded.expect("docker is there").status.success());
        assert!(save.wait().expect("it ended").success());
        engine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Where it listens, as `DOCKER_HOST` says it.
    fn host(&self) -> String {
        format!("unix://{}", self.path("socket").display())
    }

    fn docker(&self) -> Command {
        let mut docker = Command::new("docker");
        docker.env("DOCKER_HOST", self.host());
        docker
    }

    /// Starts the daemon, and waits until it answers. One that ends is started again, as whoever looks after a daemon
    /// does: its containerd may need some time to end after a kill.
    fn begin(&mut self) {
        let answers = |engine: &mut Self| {
            let daemon = engine.daemon.as_mut();
            let runs = daemon.is_some_and(|it| it.try_wait().expect("a child").is_none());
            if !runs {
                engine.daemon = Some(engine.spawn());
            }
            let info = engine.docker().arg("info").output();
            info.expect("docker is there").status.success()
        };
        wait_until("the daemon answers", || answers(self));
    }

    fn spawn(&self) -> Child {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.path("log"))
            .expect("a log");
        // Not the machine's own settings, which may name its directories.
        std::fs::write(self.path("daemon.json"), "{}").expect("is written");
        // In a network of its own, for without a bridge a daemon removes the machine's; and with mounts of its own, which
        // end with it. What agents mount, it sees.
        let mut daemon = Command::new("unshare");
        daemon
            .args(["--net", "--mount", "--propagation", "slave"])
            .args(["dockerd", "--bridge=none", "--iptables=false"])
            .arg("--config-file")
            .arg(self.path("daemon.json"))
            .arg("--data-root")
            .arg(self.path("data"))
            .arg("--exec-root")
            .arg(self.path("exec"))
            .arg("--pidfile")
            .arg(self.path("pid"))
            .args(["--host", &self.host()])
            .stdout(Stdio::null())
            .stderr(log);
        daemon.spawn().expect("unshare is there")
    }

    fn end(&mut self, signal: Signal) {
        if let Some(mut daemon) = self.daemon.take() {
            send(&daemon, signal);
            daemon.wait().expect("it ended");
        }
    }

    fn containers(&self) -> String {
        let list = self.docker().args(["ps", "--all", "--quiet"]).output();
        let list = list.expect("docker is there").stdout;
        String::from_utf8(list).expect("ids")
    }

    /// Ends it in order and checks that nothing is left.
    fn stop(mut self) {
        assert_eq!(self.containers(), "", "left in the daemon");
        self.end(Signal::TERM);
        let directory = self.directory.path().display().to_string();
        wait_until("the daemon's processes are gone", || {
            processes_mentioning(&directory).is_empty()
        });
        assert!(!mounts().contains(&directory), "left mounted");
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.path("log")).unwrap_or_default();
            let last: Vec<&str> = log.lines().rev().take(20).collect();
            eprintln!("the daemon said last:\n{last:#?}");
        }
        self.end(Signal::TERM);
        // A daemon that was killed, or never came back, leaves what it has started.
        let directory = self.directory.path().display().to_string();
        for (pid, _) in processes_mentioning(&directory) {
            // It may have ended by itself.
            Pid::from_raw(pid).map(|pid| kill_process(pid, Signal::KILL).ok());
        }
    }
}

/// `SIGTERM` stops its containers; `SIGKILL` leaves them to whoever comes next.
fn a_restart_costs_time_and_nothing_else(signal: Signal) {
    let mut engine = Engine::start();
    let mut fleet = Fleet::coordinator();
    let host = engine.host();
    let agent = fleet.add_agent_in(&[("DOCKER_HOST", &host)], &[]);
    let project = project();
    let planned = planned(&fleet, &project);
    engine.end(signal);
    engine.begin();
    let ended = planned.end();
    ended.expect_code(0);
    expect_each_test_once(&ended);
    let known = fleet.agent(&agent).expect("it is known");
    assert_eq!(known["state"], "ready", "{known}");
    fleet.stop();
    engine.stop();
}

#[test]
fn a_docker_daemon_that_is_restarted_costs_time_and_nothing_else() {
    a_restart_costs_time_and_nothing_else(Signal::TERM);
}

#[test]
fn a_docker_daemon_that_is_killed_costs_time_and_nothing_else() {
    a_restart_costs_time_and_nothing_else(Signal::KILL);
}
