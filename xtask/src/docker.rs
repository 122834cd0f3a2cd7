//! Asking the Docker daemon.

use std::process::Command;

use crate::process;

/// What to say when no Docker daemon answers.
pub(crate) const NO_DAEMON: &str = "\
no Docker daemon answers.
  - Is it installed and running?   apt-get install docker.io && systemctl start docker
  - May you talk to it?            usermod -aG docker $USER, then log in again
  - Is it elsewhere?               export DOCKER_HOST=unix:///path/to/docker.sock";

/// Why the daemon cannot be used; `None` if it can.
pub(crate) fn trouble() -> Option<String> {
    let mut version = Command::new("docker");
    version.args(["version", "--format", "{{.Server.Version}}"]);
    process::output(&mut version)
        .err()
        .map(|error| format!("{error:#}"))
}

/// The containers that carry Regatta's label, running or not.
pub(crate) fn containers() -> anyhow::Result<Vec<String>> {
    let mut list = Command::new("docker");
    list.args([
        "ps",
        "--all",
        "--quiet",
        "--filter",
        "label=dev.regatta.agent",
    ]);
    Ok(process::output(&mut list)?
        .lines()
        .map(str::to_owned)
        .collect())
}
