//! Running other programs. Ctrl-C reaches them, and makes whoever waits for them fail.

use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::interrupt;

/// Runs a command with this terminal and fails if it fails, or if Ctrl-C is pressed.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = interrupt::status(command)?;
    if !status.success() {
        bail!("`{}` failed: {status}", show(command));
    }
    Ok(())
}

/// Runs a command and returns what it printed, or fails with what it complained of.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let (status, text, complaint) = interrupt::capture_both(command.stdin(Stdio::null()))?;
    if !status.success() {
        bail!("`{}` failed: {status}: {}", show(command), complaint.trim());
    }
    Ok(text.trim().to_owned())
}

/// Whether a program of this name can be started.
pub(crate) fn exists(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// A command as one would type it.
pub(crate) fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}
