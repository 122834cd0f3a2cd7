//! attrs, in Python: many small tests, and some of Hypothesis that take long.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::own::{Counts, Outcome, Project};
use super::{expect_digest, image};
use crate::workstation::Workstation;
use crate::{process, tools};

pub(super) const NAME: &str = "attrs";
/// The release that Debian's bookworm has, too, for pytest's own use: some tests read an installed package's
/// metadata, and would find those of another release.
const VERSION: &str = "22.2.0";
/// Of its source archive.
const SHA256: &str = "c9227bfc2f01993c03f68db37d1d15c9690188323c067c641f1a35ca58185f99";
/// Two copies, because the own runner leaves files behind, which would be inputs on the fleet.
const OWN: &str = "own";
const ON_FLEET: &str = "fleet";

pub(super) struct Pytest {
    station: Workstation,
    runner: String,
    slots: String,
    image: String,
    /// The sources, for the fleet.
    sources: PathBuf,
}

/// Fetches it from Python's registry.
pub(super) fn prepare(folder: &Path, slots: usize) -> Result<Pytest> {
    let archive = fetched(folder)?;
    let name = format!("{NAME}-{VERSION}");
    for copy in [OWN, ON_FLEET] {
        let copy = folder.join(copy);
        fs::create_dir(&copy)?;
        let mut unpack = Command::new("tar");
        unpack.args(["--extract", "--gzip", "--file"]).arg(&archive);
        process::output(unpack.arg("--directory").arg(&copy))?;
    }
    let image = image::ensure()?;
    let station = Workstation::start(&image, folder, &["--network=none", "--tmpfs=/tmp:exec"])?;
    let mut ask = station.command(OWN);
    ask.args(["python3", "-c", "import xdist; print(xdist.__version__)"]);
    Ok(Pytest {
        runner: format!("pytest-xdist {}", process::output(&mut ask)?),
        station,
        slots: slots.to_string(),
        image,
        sources: folder.join(ON_FLEET).join(name),
    })
}

fn fetched(folder: &Path) -> Result<PathBuf> {
    tools::debian("pip3", "python3-pip")?;
    let wanted = folder.join("requirements.txt");
    fs::write(
        &wanted,
        format!("{NAME}=={VERSION} --hash=sha256:{SHA256}\n"),
    )?;
    let mut download = Command::new("pip3");
    download.args(["download", "--quiet", "--no-deps", "--require-hashes"]);
    download
        .args(["--no-binary", NAME, "--requirement"])
        .arg(&wanted);
    process::output(download.arg("--dest").arg(folder)).context("fetching the source archive")?;
    let archive = folder.join(format!("{NAME}-{VERSION}.tar.gz"));
    expect_digest(&archive, SHA256)?;
    Ok(archive)
}

impl Project for Pytest {
    fn title(&self) -> String {
        format!("{NAME} {VERSION}")
    }

    fn runner(&self) -> &str {
        &self.runner
    }

    fn own(&self) -> Result<Outcome> {
        let words = [
            "env",
            "PYTHONPATH=src",
            "python3",
            "-m",
            "pytest",
            "-n",
            &self.slots,
        ];
        let (said, elapsed) = self
            .station
            .timed(&format!("{OWN}/{NAME}-{VERSION}"), &words)?;
        let summary = said.trim_end().rsplit('\n').next().unwrap_or_default();
        let counts = Counts::of_summary(summary, &["skipped", "xfailed"])?;
        Ok(Outcome { elapsed, counts })
    }

    fn image(&self) -> &str {
        &self.image
    }

    fn on_fleet(&self, mut regatta: Command) -> Command {
        regatta.arg("test").current_dir(&self.sources);
        regatta
    }
}
