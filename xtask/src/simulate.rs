//! The simulations: what is asserted in tests, for more seeds and other suites.

use anyhow::Result;

use crate::{process, workspace};

/// What to simulate.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A fleet and its faults, checked by a model: `--seeds N` from `--first-seed N` on, `--faults
    /// all|none|machines|coordinator`, `--jobs N`, `--keep-going`; or all that happens in one, with `--seed N`; or
    /// with a planted bug, `--plant BUG`, and with each there is, `--bugs`. `sharding`: how suites are spread over
    /// slots, beside other ways: `--tests`, `--slots`, `--seeds`, `--overhead-ms`, `--timings FILE` (JUnit XML, or
    /// `regatta history --format csv`), `--json`; or a run that was carried out, beside the same: `--run FILE`
    /// (what `regatta run --message-format json` printed).
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Builds a simulation, and runs it.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut cargo = workspace::cargo();
    let arguments = match arguments.arguments.split_first() {
        Some((first, rest)) if first == "sharding" => {
            cargo.args(["run", "--quiet", "--release", "--package"]);
            cargo.args(["regatta-scheduler", "--features", "testing"]);
            cargo.args(["--example", "sharding", "--"]);
            rest
        }
        _ => {
            cargo.args(["run", "--quiet", "--package", "regatta-simulation", "--"]);
            &arguments.arguments[..]
        }
    };
    process::run(cargo.args(arguments))
}
