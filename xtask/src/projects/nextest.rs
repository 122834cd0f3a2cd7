//! itertools, in Rust: unit tests, integration tests and properties in a dozen programs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use cargo_metadata::MetadataCommand;

use super::own::{Counts, Outcome, Project};
use crate::{images, interrupt, process, tools};

pub(super) const NAME: &str = "itertools";
const VERSION: &str = "0.14.0";
/// Of its archive. Cargo compares it with what it downloads, and says it in `Cargo.lock`.
const SHA256: &str = "2b192c782037fadd9cfa75548310488aabdbf3d2da73885b31bd0abd03351285";

pub(super) struct Nextest {
    /// The project's own copy of the sources, with `target` in it.
    sources: PathBuf,
    program: PathBuf,
    runner: String,
    slots: usize,
    image: String,
}

/// Fetches it from cargo's registry, and builds its tests.
pub(super) fn prepare(folder: &Path, slots: usize) -> Result<Nextest> {
    let sources = folder.join(NAME);
    let mut copy = Command::new("cp");
    copy.arg("--recursive").arg(fetched(&folder.join("fetch"))?);
    process::output(copy.arg(&sources))?;
    let program = tools::NEXTEST.installed_or_get()?;
    let version = process::output(Command::new(&program).arg("--version"))?;
    let mut words = version.split_whitespace().take(2);
    let project = Nextest {
        sources,
        program,
        runner: format!(
            "{} {}",
            words.next().unwrap_or_default(),
            words.next().unwrap_or_default()
        ),
        slots,
        image: images::ensure(&images::Arguments::default())?,
    };
    process::output(project.nextest().arg("--no-run")).context("building its tests")?;
    Ok(project)
}

/// Where cargo has unpacked the sources, once a package that depends on them was made and locked.
fn fetched(package: &Path) -> Result<PathBuf> {
    fs::create_dir_all(package.join("src"))?;
    fs::write(package.join("src/lib.rs"), "")?;
    let manifest = package.join("Cargo.toml");
    let text = format!(
        "[package]\nname = \"fetch\"\nedition = \"2021\"\n[workspace]\n[dependencies]\n{NAME} = \"={VERSION}\"\n"
    );
    fs::write(&manifest, text)?;
    let metadata = MetadataCommand::new().manifest_path(&manifest).exec()?;
    let lock = fs::read_to_string(package.join("Cargo.lock"))?;
    let of_it = lock
        .split("[[package]]")
        .find(|it| it.contains(&format!("name = \"{NAME}\"")));
    let locked = of_it.is_some_and(|it| it.contains(&format!("checksum = \"{SHA256}\"")));
    ensure!(
        locked,
        "cargo locked another archive than the one that was chosen, with SHA-256 {SHA256}:\n{}",
        of_it.unwrap_or("none")
    );
    let found = metadata.packages.iter().find(|it| it.name.as_str() == NAME);
    let manifest = &found.context("cargo did not fetch it")?.manifest_path;
    Ok(manifest.parent().context("no directory")?.into())
}

impl Nextest {
    /// cargo, or what it starts, in the project.
    fn at_home(&self, mut command: Command) -> Command {
        command
            .current_dir(&self.sources)
            .env("CARGO_TARGET_DIR", self.target());
        command
    }

    fn target(&self) -> PathBuf {
        self.sources.join("target")
    }

    fn nextest(&self) -> Command {
        let mut command = self.at_home(Command::new(&self.program));
        command.args(["nextest", "run", "--locked"]);
        command.args(["--test-threads", &self.slots.to_string()]);
        command
    }
}

impl Project for Nextest {
    fn title(&self) -> String {
        format!("{NAME} {VERSION}")
    }

    fn runner(&self) -> &str {
        &self.runner
    }

    fn own(&self) -> Result<Outcome> {
        let mut command = self.nextest();
        let started = Instant::now();
        let (status, _, said) = interrupt::capture_both(command.arg("--no-fail-fast"))?;
        let elapsed = started.elapsed();
        ensure!(
            status.success(),
            "{} ended with {status}:\n{said}",
            self.runner
        );
        let summary = said
            .lines()
            .find(|line| line.trim_start().starts_with("Summary ["));
        let summary = summary.with_context(|| format!("no summary:\n{said}"))?;
        let counts = Counts::of_summary(summary, &["skipped"])?;
        Ok(Outcome { elapsed, counts })
    }

    fn image(&self) -> &str {
        &self.image
    }

    fn on_fleet(&self, regatta: Command) -> Command {
        let mut command = self.at_home(regatta);
        command.args(["test", "--locked"]);
        command
    }

    fn forget(&self) -> Result<()> {
        let kept = self.target().join("regatta");
        match kept.exists() {
            true => Ok(fs::remove_dir_all(kept)?),
            false => Ok(()),
        }
    }
}
