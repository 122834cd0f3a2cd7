//! The tests of a Python project.

use std::path::{Path, PathBuf};

use super::one_suite::{self, OneSuite, refuse_cargo_options};
use crate::config::SuiteAdapter;
use crate::exit_code::{ExitCode, Failure, OrExit};
use crate::options::{GlobalOptions, TestOptions};
use crate::pytest::Pytest;

/// Everything that git does not ignore, less what Python and pytest leave behind.
const INPUTS: [&str; 3] = ["**", "!**/__pycache__/**", "!.pytest_cache/**"];
/// Where packages are that are not beside their tests.
const SOURCE_DIRECTORY: &str = "src";
/// What makes a directory a virtual environment: its programs are of this machine.
const ENVIRONMENT_MARK: &str = "pyvenv.cfg";

pub(super) async fn test(
    global: &GlobalOptions,
    options: TestOptions,
    root: PathBuf,
) -> Result<ExitCode, Failure> {
    refuse_cargo_options(&options, &root, "pytest", "(part of) their node ids")?;
    let suite = suite(&root)?;
    one_suite::run(global, options, root, suite).await
}

/// The one suite: pytest as it would run here.
fn suite(root: &Path) -> Result<OneSuite, Failure> {
    let environments = virtual_environments(root).or_exit(ExitCode::Local)?;
    let patterns = INPUTS.iter().map(ToString::to_string);
    let patterns = patterns.chain(environments.iter().map(|name| format!("!{name}/**")));
    let source = root.join(SOURCE_DIRECTORY);
    let mut environment = vec![("PYTHONDONTWRITEBYTECODE", "1")];
    if source.is_dir() && !source.join("__init__.py").exists() {
        environment.push(("PYTHONPATH", SOURCE_DIRECTORY));
    }
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    Ok(OneSuite {
        name: "pytest",
        inputs: patterns.collect(),
        environment: environment.into_iter().map(owned).collect(),
        adapter: SuiteAdapter::Pytest(Pytest::default()),
    })
}

/// The names of the directories in `root` that are virtual environments.
fn virtual_environments(root: &Path) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in root.read_dir()? {
        let entry = entry?;
        if entry.path().join(ENVIRONMENT_MARK).is_file() {
            names.extend(entry.file_name().into_string());
        }
    }
    Ok(names)
}
