//! The tests of a Python project.

use std::path::{Path, PathBuf};

use regatta_model::JobName;

use super::end;
use crate::cargo::build::Selection;
use crate::commands::plan::plan;
use crate::commands::run::{How, description, prepare};
use crate::config::{
    InputPattern, JobAction, JobConfig, Pipeline, Position, SuiteAdapter, SuiteConfig,
};
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
    if options.selection != Selection::default() || options.include_ignored {
        let message = format!(
            "{} is a pytest project, and what to build is a choice for cargo projects; choose tests by \
             (part of) their node ids, or say more in a regatta.toml (`regatta run`)",
            root.display()
        );
        return Err(Failure::new(ExitCode::BadConfiguration, message));
    }
    let pipeline = Pipeline {
        file: root.clone(),
        jobs: vec![job(&root, &options)?],
        root,
    };
    let how = How {
        report: &options.report,
        junit: options.junit.clone(),
        max_failures: options.stop.max_failures_or(1),
        description: description("regatta test", &options.filters),
    };
    let prepared = prepare(global, &pipeline, &pipeline.jobs, how).await?;
    if options.plan {
        return plan(global, &prepared.client, prepared.spec).await;
    }
    let (ended, tally) = prepared.run(global, &options.report).await?;
    end(&ended, &tally)
}

/// The one job: pytest as it would run here.
fn job(root: &Path, options: &TestOptions) -> Result<JobConfig, Failure> {
    let position = Position { line: 1, column: 1 };
    let environments = virtual_environments(root).or_exit(ExitCode::Local)?;
    let patterns = INPUTS.iter().map(ToString::to_string);
    let patterns = patterns.chain(environments.iter().map(|name| format!("!{name}/**")));
    let inputs = patterns.map(|text| InputPattern { text, position });
    let source = root.join(SOURCE_DIRECTORY);
    let mut environment = vec![("PYTHONDONTWRITEBYTECODE", "1")];
    if source.is_dir() && !source.join("__init__.py").exists() {
        environment.push(("PYTHONPATH", SOURCE_DIRECTORY));
    }
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    Ok(JobConfig {
        name: "pytest".parse::<JobName>().or_exit(ExitCode::Local)?,
        position,
        image: options.job.image.clone(),
        inputs: inputs.collect(),
        outputs: Vec::new(),
        environment: environment.into_iter().map(owned).collect(),
        needs: Vec::new(),
        cpu_milli: 0,
        memory_bytes: 0,
        timeout: options.job.timeout,
        network: options.job.network,
        retries: options.retries,
        isolation: options.job.isolation,
        action: JobAction::Suite(SuiteConfig {
            discover: Vec::new(),
            run: Vec::new(),
            adapter: SuiteAdapter::Pytest(Pytest::default()),
            filters: options.filters.clone(),
            quarantine: Vec::new(),
            may_duplicate: true,
        }),
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
