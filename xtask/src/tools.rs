//! Tools that Rust does not bring: installed on first use, at a pinned version, under `target`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{process, workspace};

/// A tool that cargo installs.
pub(crate) struct Tool {
    package: &'static str,
    program: &'static str,
    version: &'static str,
    /// What else cargo is told about building it.
    options: &'static [&'static str],
}

/// A tool that PyPI has, built: what takes cargo minutes takes a second.
pub(crate) struct Wheel {
    package: &'static str,
    program: &'static str,
    version: &'static str,
}

/// The spell checker.
pub(crate) const TYPOS: Wheel = Wheel {
    package: "typos",
    program: "typos",
    version: "1.52.0",
};
/// For what runs for a second: to build it takes longer than it will ever work.
const BUILT_FAST: &[&str] = &["--debug", "--config=profile.dev.debug=false"];

/// Finds dependencies that nothing uses.
pub(crate) const MACHETE: Tool = Tool {
    package: "cargo-machete",
    program: "cargo-machete",
    version: "0.9.2",
    options: BUILT_FAST,
};
/// Checks what dependencies are allowed: licences, sources, advisories.
pub(crate) const DENY: Tool = Tool {
    package: "cargo-deny",
    program: "cargo-deny",
    version: "0.20.2",
    options: BUILT_FAST,
};
/// Builds programs for libFuzzer.
pub(crate) const FUZZ: Tool = Tool {
    package: "cargo-fuzz",
    program: "cargo-fuzz",
    version: "0.13.1",
    options: &[],
};

/// Runs Rust's tests, each in a process of its own.
pub(crate) const NEXTEST: Tool = Tool {
    package: "cargo-nextest",
    program: "cargo-nextest",
    version: "0.9.143",
    options: &[],
};

/// An S3 server, which no program of ours is linked with. Built as fast as one can that hashes every byte: it
/// runs for minutes.
pub(crate) const GARAGE: Tool = Tool {
    package: "garage",
    program: "garage",
    version: "2.5.0",
    options: &[
        "--no-default-features",
        "--features=bundled-libs,sqlite",
        "--config=profile.release.opt-level=1",
    ],
};

impl Tool {
    /// The one that is installed on this machine, at whatever version; else as [`Tool::get`] has it.
    pub(crate) fn installed_or_get(&self) -> Result<PathBuf> {
        match process::exists(self.program) {
            true => Ok(self.program.into()),
            false => self.get(),
        }
    }

    /// Where its program is, installed if need be.
    pub(crate) fn get(&self) -> Result<PathBuf> {
        let name = format!("{}-{}", self.program, self.version);
        let home = workspace::target().join("tools").join(&name);
        let program = home.join("bin").join(self.program);
        if program.is_file() {
            return Ok(program);
        }
        eprintln!("installing {name}");
        let mut install = workspace::cargo();
        install.args(["install", "--quiet", "--locked", self.package]);
        install.args(["--version", self.version]).args(self.options);
        process::run(install.arg("--root").arg(&home))
            .with_context(|| format!("installing {name}"))?;
        Ok(program)
    }
}

impl Wheel {
    /// Where its program is, installed if need be.
    pub(crate) fn get(&self) -> Result<PathBuf> {
        let home = environment(self.package, self.version)?;
        Ok(home.join("bin").join(self.program))
    }
}

/// A Python environment of its own for a package from PyPI, made if need be.
pub(crate) fn environment(package: &str, version: &str) -> Result<PathBuf> {
    let name = format!("{package}-{version}");
    let home = workspace::target().join("tools").join(&name);
    // Written last: an installation that was broken off is begun again.
    let marker = home.join("installed");
    if marker.is_file() {
        return Ok(home);
    }
    eprintln!("installing {name} from PyPI");
    process::output(
        Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(&home),
    )
    .with_context(|| format!("making a virtual environment for {name}"))?;
    let mut install = Command::new(home.join("bin/pip"));
    install
        .args(["install", "--quiet"])
        .arg(format!("--only-binary={package}"));
    process::output(install.arg(format!("{package}=={version}")))
        .with_context(|| format!("installing {name} from PyPI"))?;
    std::fs::write(&marker, "").with_context(|| format!("writing {}", marker.display()))?;
    Ok(home)
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
