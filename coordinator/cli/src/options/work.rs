//! Options of the commands that have something run.

use std::fmt;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use regatta_model::{ImageReference, Isolation};

use crate::cargo::build::Selection;
use crate::config::parse_duration;
use crate::repeat::Repeat;
use crate::watch::StatusLevel;

/// What is shown and written of a run.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Reports")]
pub struct ReportArguments {
    /// Which results to show as they happen; each level shows those before it, too
    #[arg(long, value_enum, default_value_t, value_name = "LEVEL")]
    pub status_level: StatusLevel,
    /// Show the output of jobs and tests as it appears, not only if they fail
    #[arg(long)]
    pub live_output: bool,
    /// Run everything, though its result is known
    #[arg(long)]
    pub no_cache: bool,
    /// How many of a hundred cached passes and skips to run all the same once all else has passed, to see whether they
    /// hold [default: the coordinator's share, in runs that execute anything]
    #[arg(long, value_name = "PERCENT", conflicts_with = "no_cache", value_parser = parse_percent)]
    pub audit_hits: Option<f64>,
    /// Never begin tests a second time while the first is under way, however late it is
    #[arg(long)]
    pub no_duplicates: bool,
    /// One test many times instead of every test once: `regatta flake`
    #[arg(skip)]
    pub repeat: Option<Repeat>,
}

/// Reads a share in percent.
pub(crate) fn parse_percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).parse::<f64>();
    number
        .ok()
        .filter(|percent| (0.0..=100.0).contains(percent))
        .ok_or_else(|| "write a number from 0 to 100".to_owned())
}

/// When a run stops before its end.
#[derive(Clone, Copy, Debug, Args)]
pub struct StopArguments {
    /// Stop at the first failure [default of `regatta test`]
    #[arg(long, conflicts_with_all = ["no_fail_fast", "max_failures"])]
    pub fail_fast: bool,
    /// Run everything, whatever fails [default of `regatta run`]
    #[arg(long, conflicts_with = "max_failures")]
    pub no_fail_fast: bool,
    /// Stop at so many failures
    #[arg(long, value_name = "COUNT")]
    pub max_failures: Option<NonZeroU32>,
}

impl StopArguments {
    /// How many failures stop the run; 0 if none do. `default` is meant if nothing was said.
    #[must_use]
    pub fn max_failures_or(self, default: u32) -> u32 {
        match (self.fail_fast, self.no_fail_fast, self.max_failures) {
            (true, _, _) => 1,
            (_, true, _) => 0,
            (_, _, Some(most)) => most.get(),
            (false, false, None) => default,
        }
    }
}

/// How every test or command runs.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "How to run")]
pub struct JobOptions {
    /// The image to run in; by default the agents' own choice
    #[arg(long, env = "REGATTA_IMAGE")]
    pub image: Option<ImageReference>,
    /// How long it may run (each test, for suites), such as 90s or 10m
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    pub timeout: Option<Duration>,
    /// Let it reach the network
    #[arg(long)]
    pub network: bool,
    /// Who may share its container: `run` for this run's work alone, `fresh` for nobody
    #[arg(long, default_value = "run", value_name = "SCOPE")]
    pub isolation: Isolation,
}

/// What kind of project is tested.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum ProjectKind {
    /// A Cargo workspace.
    Cargo,
    /// A Python project, by pytest.
    Python,
    /// A Go module.
    Go,
    /// A CMake project, by CTest.
    Cmake,
    /// A package that names Jest.
    Jest,
}

impl fmt::Display for ProjectKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Cargo => "cargo",
            Self::Python => "python",
            Self::Go => "go",
            Self::Cmake => "cmake",
            Self::Jest => "jest",
        })
    }
}

/// Options of `regatta test`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Examples:\n  regatta test\n  regatta test --workspace --no-fail-fast\n  regatta test -p my-crate parser::\n  regatta test -p ./internal/... TestParse\n  regatta test --image my/python tests/unit\n  regatta test --image debian:stable-slim --retries 1 --junit junit.xml"
)]
pub struct TestOptions {
    /// Run only tests whose names contain any of these
    #[arg(value_name = "FILTER")]
    pub filters: Vec<String>,
    /// What kind of project to test; by default, what is here
    #[arg(long, value_enum, value_name = "KIND")]
    pub project: Option<ProjectKind>,
    /// Test what `cargo nextest archive` has packed into this file, in a checkout of its workspace; builds nothing
    #[arg(long, value_name = "FILE", conflicts_with = "project")]
    pub archive: Option<PathBuf>,
    /// What to build.
    #[command(flatten)]
    pub selection: Selection,
    /// How to run it.
    #[command(flatten)]
    pub job: JobOptions,
    /// Run the tests marked #[ignore], too
    #[arg(long)]
    pub include_ignored: bool,
    /// How many more times a failed test is tried; a pass after a failure is flaky
    #[arg(long, default_value_t = 0, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(0..=20))]
    pub retries: u32,
    /// Say how the tests would be split and how long they would take, instead of running them
    #[arg(long)]
    pub plan: bool,
    /// When to stop.
    #[command(flatten)]
    pub stop: StopArguments,
    /// Where to write JUnit XML [default: regatta/junit.xml in cargo's target directory]
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// What to show.
    #[command(flatten)]
    pub report: ReportArguments,
}

/// Options of `regatta run`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Examples:\n  regatta run\n  regatta run test lint\n  regatta run --file ci/regatta.toml --junit junit.xml"
)]
pub struct RunOptions {
    /// The jobs to run, with all that they need; every job if none is named
    #[arg(value_name = "JOB")]
    pub jobs: Vec<String>,
    /// The configuration; by default .config/regatta.toml or regatta.toml here or above
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Name the jobs instead of running them
    #[arg(long)]
    pub list: bool,
    /// Say how the tests would be split and how long they would take, instead of running them
    #[arg(long, conflicts_with = "list")]
    pub plan: bool,
    /// When to stop.
    #[command(flatten)]
    pub stop: StopArguments,
    /// Where to write JUnit XML [default in GitHub Actions and GitLab CI: regatta-junit.xml]
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// What to show.
    #[command(flatten)]
    pub report: ReportArguments,
}

/// Options of `regatta flake`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Examples:\n  regatta flake parser::reads_dates\n  regatta flake tests/test_web.py::test_login --times 1000 --max-failures 1\n\n\
    The files are those that are here, so that a fix is proven before it is committed. Nothing is taken from\n\
    the cache, and nothing is said of the commit."
)]
pub struct FlakeOptions {
    /// The test, by its whole id, as results name it
    #[arg(value_name = "TEST")]
    pub test_id: String,
    /// How often to run it
    #[arg(long, default_value_t = 100, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub times: u32,
    /// The configuration with its suite; by default .config/regatta.toml or regatta.toml here or above, and
    /// without one what `regatta test` would run
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Look for it in this job of the configuration (may be repeated)
    #[arg(long = "job", value_name = "JOB")]
    pub jobs: Vec<String>,
    /// What to build, without a configuration.
    #[command(flatten)]
    pub selection: Selection,
    /// How to run it, without a configuration.
    #[command(flatten)]
    pub job: JobOptions,
    /// When to stop.
    #[command(flatten)]
    pub stop: StopArguments,
    /// Where to write JUnit XML
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// What to show.
    #[command(flatten)]
    pub report: ReportArguments,
}

/// Options of `regatta rerun`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Examples:\n  regatta rerun RUN\n  regatta rerun --failed RUN\n\n\
    The files are those that the run had, whatever is here now. A commit's verdict takes back a failure once\n\
    all of the failed run was done again: after `--failed`, run everything, which finds the rest cached. It stops\n\
    as the run did, unless you say when."
)]
pub struct RerunOptions {
    /// The run, as `regatta ps` shows it, or the beginning of its id
    pub run: String,
    /// Only the tests and the jobs that did not pass, with the jobs that they need
    #[arg(long)]
    pub failed: bool,
    /// When to stop.
    #[command(flatten)]
    pub stop: StopArguments,
    /// Where to write JUnit XML [default in GitHub Actions and GitLab CI: regatta-junit.xml]
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// What to show.
    #[command(flatten)]
    pub report: ReportArguments,
}

/// Options of `regatta exec`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Examples:\n  regatta exec -- uname -a\n  regatta exec --image debian:stable-slim --input . --output out --download . -- make\n\n\
    The exit code is the command's; 124 if it ran too long, 137 if it ran out of memory, 100 if it made\n\
    no such output, 96 to 99 if it could not be run at all."
)]
pub struct ExecOptions {
    /// How to run it.
    #[command(flatten)]
    pub job: JobOptions,
    /// A directory that the command sees as its working directory; what git ignores is left out
    #[arg(long, value_name = "DIR")]
    pub input: Option<PathBuf>,
    /// A file or directory to keep, relative to the working directory (may be repeated)
    #[arg(long, value_name = "PATH")]
    pub output: Vec<String>,
    /// Where to put the outputs here
    #[arg(long, value_name = "DIR", requires = "output")]
    pub download: Option<PathBuf>,
    /// A variable of the command's environment (may be repeated)
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_variable)]
    pub env: Vec<(String, String)>,
    /// Run it, though its result is known
    #[arg(long)]
    pub no_cache: bool,
    /// The command
    #[arg(required = true, last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

fn parse_variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        Some(_) | None => Err("write it as NAME=VALUE".to_owned()),
    }
}
