//! Tools that Rust does not bring: installed on first use, at a pinned version, under `target`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{process, workspace};

const TYPOS_VERSION: &str = "1.52.0";

/// The spell checker.
pub(crate) fn typos() -> Result<PathBuf> {
    let home = workspace::target()
        .join("tools")
        .join(format!("typos-{TYPOS_VERSION}"));
    let program = home.join("bin/typos");
    if program.is_file() {
        return Ok(program);
    }
    eprintln!("installing typos {TYPOS_VERSION}");
    let mut install = workspace::cargo();
    install.args([
        "install",
        "--quiet",
        "--locked",
        "typos-cli",
        "--version",
        TYPOS_VERSION,
        "--root",
    ]);
    process::run(install.arg(&home)).context("installing the spell checker")?;
    Ok(program)
}

/// Makes sure that Debian packages' programs are there, installing them if this is Debian and root.
pub(crate) fn debian(program: &str, package: &str) -> Result<()> {
    if process::exists(program) {
        return Ok(());
    }
    anyhow::ensure!(
        process::exists("apt-get") && rustix::process::geteuid().is_root(),
        "`{program}` is missing: install Debian's package `{package}`"
    );
    eprintln!("installing Debian's {package}");
    let apt = |arguments: &[&str]| {
        process::output(
            Command::new("apt-get")
                .args(arguments)
                .env("DEBIAN_FRONTEND", "noninteractive"),
        )
    };
    apt(&["update", "--quiet"]).context("refreshing Debian's package lists")?;
    apt(&[
        "install",
        "--quiet",
        "--yes",
        "--no-install-recommends",
        package,
    ])
    .with_context(|| format!("installing Debian's {package}"))?;
    Ok(())
}
