//! LevelDB, in C++: thirty programs with GoogleTest, from a millisecond to many seconds a test.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::own::{Counts, Outcome, Project};
use super::{expect_digest, image};
use crate::process;
use crate::workstation::Workstation;

pub(super) const NAME: &str = "leveldb";
const VERSION: &str = "1.23-4";
/// Of Debian's description of the source package, which has the digests of its archives; `dpkg-source`
/// compares them.
const SHA256: &str = "1eae53db8925a1d96f43673eb94c7a4f6b25b6edf283753b29fe80c1068f8173";
/// The one program that does without GoogleTest.
const OTHER: &str = "c_test";
/// What both sides have in their environment.
const ENVIRONMENT: [(&str, &str); 2] = [
    // One program runs benchmarks before its tests, whatever it is told to do. No benchmark is called so.
    ("BENCHMARK_FILTER", "none"),
    // This test passes only after others in the same process: alone, it fails in GoogleTest's hands, too.
    ("GTEST_FILTER", "-DBTest.HiddenValuesAreRemoved"),
];
/// Where each program leaves its report for the own runner's counts.
const REPORTS: &str = "reports";

pub(super) struct GoogleTest {
    station: Workstation,
    runner: String,
    slots: String,
    image: String,
    folder: PathBuf,
}

/// Takes it from the image, and builds its tests in a container of that.
pub(super) fn prepare(folder: &Path, slots: usize) -> Result<GoogleTest> {
    let image = image::ensure()?;
    // The fleet's tests have their temporary files in memory, too.
    let station = Workstation::start(&image, folder, &["--network=none", "--tmpfs=/tmp:exec"])?;
    let slots = slots.to_string();
    let run = |words: &[&str]| process::output(station.command("").args(words));
    let description = format!("{NAME}_{VERSION}.dsc");
    run(&["sh", "-c", &format!("cp {}/{NAME}_* .", image::SOURCES)])?;
    expect_digest(&folder.join(&description), SHA256)?;
    run(&[
        "dpkg-source",
        "--no-check",
        "--extract",
        &description,
        "source",
    ])?;
    let options = [
        "-DCMAKE_BUILD_TYPE=Release",
        "-DLEVELDB_BUILD_BENCHMARKS=OFF",
    ];
    run(&[&["cmake", "-S", "source", "-B", "build"], &options[..]].concat())?;
    run(&["cmake", "--build", "build", "--parallel", &slots]).context("building its tests")?;
    let version = run(&["ctest", "--version"])?;
    let version = version
        .lines()
        .next()
        .unwrap_or_default()
        .replace("version ", "");
    fs::write(folder.join("regatta.toml"), pipeline(&programs(folder)?)?)?;
    Ok(GoogleTest {
        runner: version,
        station,
        slots,
        image,
        folder: folder.to_owned(),
    })
}

/// The programs with tests.
fn programs(folder: &Path) -> Result<Vec<String>> {
    let mut programs = Vec::new();
    for entry in fs::read_dir(folder.join("build"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with("_test") && name != OTHER {
            programs.push(name);
        }
    }
    programs.sort();
    ensure!(!programs.is_empty(), "the build made no test programs");
    Ok(programs)
}

/// A suite for each program.
fn pipeline(programs: &[String]) -> Result<String> {
    let mut text = "[defaults.env]\n".to_owned();
    for (name, value) in ENVIRONMENT {
        writeln!(text, "{name} = \"{value}\"")?;
    }
    for program in programs {
        write!(
            text,
            "\n[jobs.{program}]\ninputs = [\"build/{program}\"]\n\
             suite = {{ adapter = \"googletest\", run = [\"build/{program}\"] }}\n"
        )?;
    }
    Ok(text)
}

impl Project for GoogleTest {
    fn title(&self) -> String {
        format!("{NAME} {VERSION}")
    }

    fn runner(&self) -> &str {
        &self.runner
    }

    fn own(&self) -> Result<Outcome> {
        let reports = self.folder.join(REPORTS);
        if reports.exists() {
            fs::remove_dir_all(&reports)?;
        }
        let exclude = format!("^{OTHER}$");
        let mut settings = vec![format!("GTEST_OUTPUT=xml:/w/{REPORTS}/")];
        settings.extend(ENVIRONMENT.map(|(name, value)| format!("{name}={value}")));
        let mut words = vec!["env"];
        words.extend(settings.iter().map(String::as_str));
        words.extend(["ctest", "--test-dir", "build", "--parallel", &self.slots]);
        words.extend(["--exclude-regex", &exclude]);
        let (_, elapsed) = self.station.timed("", &words)?;
        let counts = counts(&reports)?;
        Ok(Outcome { elapsed, counts })
    }

    fn image(&self) -> &str {
        &self.image
    }

    fn on_fleet(&self, mut regatta: Command) -> Command {
        regatta.arg("run").current_dir(&self.folder);
        regatta
    }
}

/// Adds up GoogleTest's reports.
fn counts(reports: &Path) -> Result<Counts> {
    let mut counts = Counts::default();
    for entry in fs::read_dir(reports)? {
        let report = fs::read_to_string(entry?.path())?;
        for case in report.split("<testcase ").skip(1) {
            let is = |what: &str| case.contains(&format!("result=\"{what}\""));
            if is("skipped") || is("suppressed") {
                counts.skipped += 1;
            } else if is("completed") {
                counts.passed += 1;
            }
        }
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_added_up() {
        let folder = tempfile::tempdir().unwrap();
        let case = |result: &str| format!("<testcase name=\"A\" result=\"{result}\" />\n");
        let write = |name: &str, text: String| fs::write(folder.path().join(name), text).unwrap();
        write("a.xml", case("completed") + &case("skipped"));
        write(
            "b.xml",
            case("completed") + &case("suppressed") + &case("completed"),
        );
        let (passed, skipped) = (3, 2);
        assert_eq!(counts(folder.path()).unwrap(), Counts { passed, skipped });
    }
}
