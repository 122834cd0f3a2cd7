//! A container in which Bazel runs, as on a developer's machine.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::docker;

/// What lets Bazel's sandbox make its namespaces and mount its own `/proc`: Docker's profiles forbid both.
const SANDBOX_OPTIONS: &[&str] = &["seccomp=unconfined", "systempaths=unconfined"];
/// What the container runs. It ends with its standard input, which is closed when we end, however we do.
const IDLE: &str = "echo ready; exec cat";

/// A container on the host's network, so that the coordinator's loopback address is its own as well. It
/// is gone when this is dropped.
pub(super) struct Workstation {
    name: String,
    docker: Child,
}

impl Workstation {
    /// Starts a container of an image, in which `folder` is `/w`.
    pub(super) fn start(image: &str, folder: &Path) -> Result<Self> {
        let name = format!("regatta-bench-{}", std::process::id());
        let user = format!(
            "{}:{}",
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw()
        );
        let mut run = Command::new("docker");
        run.args(["run", "--interactive", "--rm", "--init"])
            .args(["--network", "host", "--name", &name, "--user", &user])
            .args(["--label", docker::CLIENT_LABEL, "--env", "HOME=/w"])
            .args(["--env", "USER=bench", "--env", "LANG=C.UTF-8"]);
        for option in SANDBOX_OPTIONS {
            run.args(["--security-opt", option]);
        }
        run.arg("--volume").arg(format!("{}:/w", folder.display()));
        run.args([image, "sh", "-c", IDLE]);
        // A group of its own: Ctrl-C reaches the command that runs in the container, and then us.
        run.process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let docker = run.spawn().context("starting `docker run`")?;
        let mut station = Self { name, docker };
        let output = station.docker.stdout.take().context("no output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        ensure!(line == "ready\n", "the container of {image} does not start");
        Ok(station)
    }

    /// A program in the folder `/w/ws`.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new("docker");
        command.args(["exec", "--workdir", "/w/ws", &self.name]);
        command
    }
}

impl Drop for Workstation {
    fn drop(&mut self) {
        drop(self.docker.stdin.take());
        let mut remove = Command::new("docker");
        remove.args(["rm", "--force", &self.name]);
        // Not by way of `process`: this is for after Ctrl-C, too.
        let removed = remove.stdin(Stdio::null()).output();
        if let Err(error) = removed.and_then(|_| self.docker.wait()) {
            eprintln!("removing {}: {error}", self.name);
        }
    }
}
