//! A project whose tests are one suite, which a runner in the image finds by itself.

use std::path::{Path, PathBuf};

use regatta_model::JobName;

use super::end;
use super::policy::policy_of;
use crate::cargo::build::Selection;
use crate::commands::plan::plan;
use crate::commands::run::{How, description, prepare};
use crate::config::{
    InputPattern, JobAction, JobConfig, Pipeline, Position, SuiteAdapter, SuiteConfig,
};
use crate::exit_code::{ExitCode, Failure, OrExit};
use crate::options::{GlobalOptions, TestOptions};

/// What a project's suite is.
pub(super) struct OneSuite {
    /// Its job's.
    pub(super) name: &'static str,
    /// Patterns, in the project.
    pub(super) inputs: Vec<String>,
    pub(super) environment: Vec<(String, String)>,
    pub(super) adapter: SuiteAdapter,
}

/// Cargo's choices are none of such a project's; `choose` says what is.
pub(super) fn refuse_cargo_options(
    options: &TestOptions,
    root: &Path,
    runner: &str,
    choose: &str,
) -> Result<(), Failure> {
    if options.selection == Selection::default() && !options.include_ignored {
        return Ok(());
    }
    let message = format!(
        "{} is a {runner} project, and what to build is a choice for cargo projects; choose tests by {choose}, \
         or say more in a regatta.toml (`regatta run`)",
        root.display()
    );
    Err(Failure::new(ExitCode::BadConfiguration, message))
}

/// Runs it as `regatta run` would.
pub(super) async fn run(
    global: &GlobalOptions,
    options: TestOptions,
    root: PathBuf,
    suite: OneSuite,
) -> Result<ExitCode, Failure> {
    let own = policy_of(&root)?;
    let pipeline = Pipeline {
        file: root.clone(),
        jobs: vec![job(&options, suite)?],
        place: own.place,
        policy: own.policy,
        commit_policy: own.commit_policy,
        read: own.read,
        root,
    };
    let how = How {
        report: &options.report,
        junit: options.junit.clone(),
        max_failures: options.stop.max_failures_or(1),
        description: description("regatta test", &options.filters),
        chosen_tests: own.has_jobs || !options.filters.is_empty(),
    };
    let prepared = prepare(global, &pipeline, &pipeline.jobs, how).await?;
    if options.plan {
        return plan(global, &prepared.client, prepared.spec).await;
    }
    let (ended, tally) = prepared.run(global, &options.report).await?;
    end(&ended, &tally)
}

fn job(options: &TestOptions, suite: OneSuite) -> Result<JobConfig, Failure> {
    let position = Position { line: 1, column: 1 };
    let inputs = suite.inputs.into_iter();
    Ok(JobConfig {
        name: suite.name.parse::<JobName>().or_exit(ExitCode::Local)?,
        position,
        image: options.job.image.clone(),
        inputs: inputs.map(|text| InputPattern { text, position }).collect(),
        outputs: Vec::new(),
        environment: suite.environment.into_iter().collect(),
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
            worker: Vec::new(),
            adapter: suite.adapter,
            filters: options.filters.clone(),
            quarantine: Vec::new(),
            may_duplicate: true,
        }),
    })
}
