//! The tests of a project that uses Jest.

use std::path::PathBuf;

use super::one_suite::{self, OneSuite, refuse_cargo_options};
use crate::config::SuiteAdapter;
use crate::exit_code::{ExitCode, Failure};
use crate::jest::package::Package;
use crate::options::{GlobalOptions, TestOptions};

/// Everything that git does not ignore, less what Jest leaves behind.
const INPUTS: [&str; 2] = ["**", "!coverage/**"];
/// Where a project's dependencies are, its Jest among them. Git ignores it.
const MODULES: &str = "node_modules";

pub(super) async fn test(
    global: &GlobalOptions,
    options: TestOptions,
    root: PathBuf,
) -> Result<ExitCode, Failure> {
    refuse_cargo_options(&options, &root, "Jest", "(part of) their files' paths")?;
    let mut inputs = INPUTS.map(str::to_owned).to_vec();
    if root.join(MODULES).is_dir() {
        inputs.push(MODULES.to_owned());
    } else {
        tracing::warn!(
            "{} has no {MODULES} (`npm ci` makes it): Jest and what tests need must be in the image",
            root.display()
        );
    }
    // It is there: this is how the project was found.
    let (environment, jest) = Package::of(&root).unwrap_or_default().test_command();
    let suite = OneSuite {
        name: "jest",
        inputs,
        environment,
        adapter: SuiteAdapter::Jest(jest),
    };
    one_suite::run(global, options, root, suite).await
}
