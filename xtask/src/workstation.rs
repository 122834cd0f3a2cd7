//! A container in which another project's program runs, as on a developer's machine.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::{docker, interrupt};

/// What the container runs. It ends with its standard input, which is closed when we end, however we do.
const IDLE: &str = "echo ready; exec cat";

/// Runs a command and says last when it began and when it ended.
const TIMED: &str =
    r#"before=$EPOCHREALTIME; "$@"; status=$?; echo "$before $EPOCHREALTIME"; exit $status"#;

/// A container; gone when this is dropped.
pub(crate) struct Workstation {
    name: String,
    docker: Child,
}

impl Workstation {
    /// Starts a container of an image, in which `folder` is `/w`, with more options of `docker run`.
    pub(crate) fn start(image: &str, folder: &Path, options: &[&str]) -> Result<Self> {
        let name = format!("regatta-xtask-{}", std::process::id());
        let user = format!(
            "{}:{}",
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw()
        );
        let mut run = Command::new("docker");
        run.args(["run", "--interactive", "--rm", "--init"])
            .args(["--name", &name, "--user", &user])
            .args(["--label", docker::CLIENT_LABEL, "--env", "HOME=/w"])
            .args(["--env", "USER=bench", "--env", "LANG=C.UTF-8"])
            .args(options);
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

    /// A program in a folder below `/w`.
    pub(crate) fn command(&self, folder: &str) -> Command {
        let mut command = Command::new("docker");
        command.args(["exec", "--workdir", &format!("/w/{folder}"), &self.name]);
        command
    }

    /// Runs a program in a folder below `/w`; returns what it printed, and how long it took without what
    /// `docker exec` takes.
    pub(crate) fn timed(&self, folder: &str, words: &[&str]) -> Result<(String, Duration)> {
        let mut command = self.command(folder);
        command.args(["bash", "-c", TIMED, "bash"]).args(words);
        let (status, text, complaint) = interrupt::capture_both(command.stdin(Stdio::null()))?;
        ensure!(
            status.success(),
            "`{}` failed: {status}\n{text}{complaint}",
            words.join(" ")
        );
        let (text, times) = text.trim_end().rsplit_once('\n').unwrap_or(("", &text));
        let (before, after) = times.trim().split_once(' ').context("no times")?;
        let seconds = after.parse::<f64>()? - before.parse::<f64>()?;
        let elapsed = Duration::try_from_secs_f64(seconds).context("the clock was set back")?;
        Ok((text.to_owned(), elapsed))
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
