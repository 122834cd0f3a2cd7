//! Where things are.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::process;

/// The root of this workspace: where cargo found this chore, which may have been built elsewhere.
pub(crate) fn root() -> PathBuf {
    let xtask = std::env::var_os("CARGO_MANIFEST_DIR");
    let xtask = PathBuf::from(xtask.unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into()));
    xtask.parent().map(PathBuf::from).unwrap_or(xtask)
}

/// Where cargo builds.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The cargo that runs this chore.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    forget_package(command.current_dir(root()));
    command
}

/// Tells a command that starts cargo nothing of the package that cargo runs here: build scripts that look at that,
/// as ring's does, would build anew what a cargo that is started by hand has built, and the other way round.
pub(crate) fn forget_package(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
}

/// Builds the product as its users have it, and returns where the command is.
pub(crate) fn release(targets: &[&str]) -> Result<PathBuf> {
    let mut build = cargo();
    build.args(["build", "--release", "--package", "regatta"]);
    process::run(build.args(targets))?;
    Ok(target().join("release/regatta"))
}

/// The files of the checkout, tracked or not yet, but not the ignored ones; relative to the root.
pub(crate) fn files() -> Result<Vec<PathBuf>> {
    let listing = Command::new("git")
        .args([
            "ls-files",
            "--cached",
            "--others",
            "--exclude-standard",
            "-z",
        ])
        .current_dir(root())
        .output()
        .context("listing the checkout's files with git")?;
    ensure!(listing.status.success(), "git ls-files: {}", listing.status);
    let names = String::from_utf8(listing.stdout).context("a file name that is not UTF-8")?;
    let mut files: Vec<_> = names
        .split_terminator('\0')
        .map(PathBuf::from)
        .filter(|file| root().join(file).symlink_metadata().is_ok())
        .collect();
    files.sort();
    files.dedup();
    Ok(files)
}
