//! The scheduler's simulations: what is asserted in its tests, for more seeds and other suites.

use anyhow::Result;

use crate::{process, workspace};

/// What to simulate.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How suites are spread over slots, beside other ways: `--tests`, `--slots`, `--seeds`,
    /// `--overhead-ms`, `--timings FILE` (JUnit XML, or `regatta history --format csv`), `--json`; or a run that
    /// was carried out, beside the same: `--run FILE` (what `regatta run --message-format json` printed).
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Builds the scheduler's example, and runs it.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut cargo = workspace::cargo();
    cargo.args(["run", "--quiet", "--release", "--package"]);
    cargo.args(["regatta-scheduler", "--features", "testing"]);
    cargo.args(["--example", "sharding", "--"]);
    process::run(cargo.args(&arguments.arguments))
}
