//! The house rules, checked. Every rule reports all that breaks it, with what to do.

mod house;
mod sources;

use std::process::Command;

use anyhow::{Result, bail};

use crate::{process, tools, workspace};

/// What is checked of dependencies without any network.
const DENY_CHECKS: &[&str] = &["check", "licenses", "bans", "sources"];

/// A broken rule, as one line for people.
type Complaint = String;

/// Checks everything and fails if anything is amiss.
pub(crate) fn run() -> Result<()> {
    let mut complaints: Vec<Complaint> = Vec::new();
    complaints.extend(house::top_level()?);
    complaints.extend(house::dependencies()?);
    complaints.extend(sources::check()?);
    for (what, command) in commands()? {
        eprintln!("tidy: {what}");
        let mut command = command;
        if let Err(error) = process::run(&mut command) {
            complaints.push(format!("{what}: {error:#}"));
        }
    }
    for complaint in &complaints {
        eprintln!("tidy: {complaint}");
    }
    if !complaints.is_empty() {
        bail!("{} rules are broken", complaints.len());
    }
    eprintln!("tidy: all is well");
    Ok(())
}

fn commands() -> Result<Vec<(&'static str, Command)>> {
    let mut format = workspace::cargo();
    format.args(["fmt", "--all", "--check"]);
    let mut clippy = workspace::cargo();
    clippy.args([
        "clippy",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--all-features",
    ]);
    clippy.args(["--", "--deny", "warnings"]);
    let mut typos = Command::new(tools::TYPOS.get()?);
    typos.args(["--config", ".config/typos.toml"]);
    let mut machete = Command::new(tools::MACHETE.get()?);
    machete.arg("--skip-target-dir");
    let mut commands = vec![
        ("format", format),
        ("clippy", clippy),
        ("spelling", typos),
        ("unused dependencies", machete),
        ("licences, bans and sources", deny(DENY_CHECKS)?),
    ];
    let mut fetch = deny(&["fetch", "db"])?;
    match process::output(&mut fetch) {
        Ok(_) => commands.push(("advisories", deny(&["check", "advisories"])?)),
        Err(error) => eprintln!("tidy: NOT CHECKED: advisories cannot be reached: {error:#}"),
    }
    for (_, command) in &mut commands {
        command.current_dir(workspace::root());
    }
    Ok(commands)
}

fn deny(arguments: &[&str]) -> Result<Command> {
    let mut deny = Command::new(tools::DENY.get()?);
    deny.current_dir(workspace::root());
    deny.args(["--config", ".config/deny.toml", "--log-level", "error"]);
    deny.args(arguments);
    Ok(deny)
}
