//! Asking the Docker daemon.

use std::collections::BTreeMap;
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

/// The label of the containers of Regatta's agents; its value is the agent.
pub(crate) const AGENT_LABEL: &str = "dev.regatta.agent";
/// The label of the containers that tests run other projects' clients in.
pub(crate) const CLIENT_LABEL: &str = "dev.regatta.client";

/// The containers that carry a label, running or not, with its values.
pub(crate) fn containers(label: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let mut list = Command::new("docker");
    list.args(["ps", "--all"]);
    list.args(["--filter", &format!("label={label}")]);
    list.args([
        "--format",
        &format!("{{{{.ID}}}} {{{{.Label \"{label}\"}}}}"),
    ]);
    let listed = process::output(&mut list)?;
    Ok(listed
        .lines()
        .map(|line| line.split_once(' ').unwrap_or((line, "")))
        .map(|(id, value)| (id.to_owned(), value.to_owned()))
        .collect())
}
