//! Builds the static init (and, for the conformance suite, its testee) that this crate embeds.
//!
//! This is a cargo inside a cargo: it has a target directory of its own, because the outer cargo holds the
//! lock of the other one, and it sees none of the outer one's build environment, because that describes
//! another crate, built differently.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// What a developer or CI may set and the nested build still needs.
const KEPT: [&str; 3] = ["CARGO_HOME", "CARGO_NET_OFFLINE", "CARGO_TERM_COLOR"];

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            // Cargo shows a build script's output only when it fails.
            println!("cargo::error={problem}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let source = PathBuf::from(variable("CARGO_MANIFEST_DIR")?).join("init");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", source.join("src").display());
    println!(
        "cargo::rerun-if-changed={}",
        source.join("Cargo.toml").display()
    );
    let with_testee = env::var_os("CARGO_FEATURE_TESTING").is_some();
    let target = format!("{}-unknown-linux-gnu", variable("CARGO_CFG_TARGET_ARCH")?);
    let directory = PathBuf::from(variable("OUT_DIR")?).join("init");
    let status = nested_cargo(&source, &target, &directory, with_testee)?
        .status()
        .map_err(|error| format!("cargo cannot be started: {error}"))?;
    if !status.success() {
        return Err(format!(
            "the static init could not be built for {target}; it needs that Rust target and a static C \
             library (Debian: libc6-dev, Fedora: glibc-static)"
        ));
    }
    let output = directory.join(target).join("release");
    println!(
        "cargo::rustc-env=REGATTA_INIT={}",
        output.join("regatta-init").display()
    );
    if with_testee {
        let testee = output.join("regatta-init-testee");
        println!("cargo::rustc-env=REGATTA_INIT_TESTEE={}", testee.display());
    }
    Ok(())
}

fn nested_cargo(
    source: &Path,
    target: &str,
    directory: &Path,
    with_testee: bool,
) -> Result<Command, String> {
    let mut cargo = Command::new(variable("CARGO")?);
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let foreign = text.starts_with("CARGO_")
            || text.starts_with("RUSTC")
            || matches!(
                text.as_ref(),
                "RUSTFLAGS" | "RUSTDOCFLAGS" | "CLIPPY_ARGS" | "TARGET" | "HOST"
            )
            || matches!(
                text.as_ref(),
                "PROFILE" | "OPT_LEVEL" | "DEBUG" | "NUM_JOBS" | "OUT_DIR"
            )
            || matches!(text.as_ref(), "MAKEFLAGS" | "MFLAGS");
        if foreign && !KEPT.contains(&text.as_ref()) {
            cargo.env_remove(&name);
        }
    }
    cargo
        .current_dir(source)
        .args([
            "build",
            "--release",
            "--locked",
            "--offline",
            "--quiet",
            "--package",
            "regatta-init",
        ])
        .args(["--bin", "regatta-init", "--target", target, "--target-dir"])
        .arg(directory)
        .env("RUSTC", variable("RUSTC")?)
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "false")
        .env("CARGO_PROFILE_RELEASE_LTO", "true")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "z")
        .env("CARGO_PROFILE_RELEASE_PANIC", "abort")
        .env("CARGO_PROFILE_RELEASE_STRIP", "symbols");
    if with_testee {
        cargo.args(["--bin", "regatta-init-testee", "--features", "testee"]);
    }
    Ok(cargo)
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|_| format!("cargo did not set {name}"))
}
