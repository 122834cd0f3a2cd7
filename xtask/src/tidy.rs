//! The house rules, checked. Every rule reports all that breaks it, with what to do.

mod house;
mod sources;

use anyhow::{Result, bail};

use crate::{process, tools, workspace};

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

fn commands() -> Result<Vec<(&'static str, std::process::Command)>> {
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
    let mut typos = std::process::Command::new(tools::typos()?);
    typos
        .current_dir(workspace::root())
        .args(["--config", ".config/typos.toml"]);
    Ok(vec![
        ("format", format),
        ("clippy", clippy),
        ("spelling", typos),
    ])
}
