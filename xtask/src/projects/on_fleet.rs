//! A project's tests on a fleet that knows nothing of it.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::SCRATCH;
use super::own::Project;
use crate::fleet::{EXIT_WITH_STDIN, Fleet};
use crate::report::Report;
use crate::scratch::Scratch;
use crate::{interrupt, process};

/// What happened on a fleet.
pub(super) struct OnFleet {
    /// The first run.
    pub(super) cold: Report,
    /// The same once more.
    pub(super) warm: Report,
}

/// Runs all of a project's tests on a new fleet, and once more.
pub(super) fn run(program: &Path, project: &dyn Project, slots: usize) -> Result<OnFleet> {
    let state = Scratch::new(SCRATCH)?;
    let mut fleet = Fleet::start(program, state.path(), Some(project.image()))?;
    fleet.add_agent("agent", slots, "docker")?;
    // The fleet is there when somebody comes with tests, as the own runner is.
    let mut ready = Command::new(program);
    process::output(ready.args(["exec", "--coordinator", fleet.coordinator(), "--", "true"]))?;
    let test = || {
        let mut command = Command::new(program);
        // Where the command remembers what it has seen: nothing yet.
        command.env("XDG_CACHE_HOME", state.path().join("cache"));
        let mut command = project.on_fleet(command);
        command.args(["--coordinator", fleet.coordinator(), EXIT_WITH_STDIN]);
        test(&mut command, &state.path().join("junit.xml"))
    };
    project.forget()?;
    let (cold, warm) = (test()?, test()?);
    fleet.stop();
    Ok(OnFleet { cold, warm })
}

fn test(command: &mut Command, junit: &Path) -> Result<Report> {
    command.args(["--no-fail-fast", "--message-format", "json", "--junit"]);
    command.arg(junit).stdin(Stdio::piped());
    let started = Instant::now();
    let (status, events, complaint) = interrupt::capture_both(command)?;
    let elapsed = started.elapsed();
    let shown = process::show(command);
    let report = Report::read(&events, elapsed)
        .with_context(|| format!("`{shown}` ended with {status}:\n{complaint}"))?;
    report.agrees_with_junit(junit)?;
    ensure!(
        status.success() && report.verdict == "RELEASABLE",
        "`{shown}` ended with {status}, the verdict is {}:\n{complaint}",
        report.verdict
    );
    Ok(report)
}
