//! `regatta flake`.

use super::{run, test};
use crate::config;
use crate::exit_code::{ExitCode, Failure, OrExit};
use crate::options::{FlakeOptions, GlobalOptions, RunOptions, StopArguments, TestOptions};
use crate::repeat::Repeat;

pub(super) async fn flake(
    global: &GlobalOptions,
    mut options: FlakeOptions,
) -> Result<ExitCode, Failure> {
    options.report.repeat = Some(Repeat {
        test: options.test_id.clone(),
        times: options.times,
    });
    if is_pipeline(&options)? {
        return run::run(global, as_run(options)).await;
    }
    Box::pin(test::test(global, as_test(options))).await
}

/// Whether the test is one of a configuration's suites: if one was named, or is here and no manifest is named.
fn is_pipeline(options: &FlakeOptions) -> Result<bool, Failure> {
    if options.file.is_some() || !options.jobs.is_empty() {
        return Ok(true);
    }
    let here = std::env::current_dir().or_exit(ExitCode::Local)?;
    Ok(options.selection.manifest_path.is_none() && config::find(&here).is_ok())
}

fn as_run(options: FlakeOptions) -> RunOptions {
    RunOptions {
        jobs: options.jobs,
        file: options.file,
        list: false,
        plan: false,
        stop: options.stop,
        junit: options.junit,
        report: options.report,
    }
}

fn as_test(options: FlakeOptions) -> TestOptions {
    let StopArguments {
        fail_fast,
        no_fail_fast,
        max_failures,
    } = options.stop;
    TestOptions {
        filters: vec![options.test_id],
        project: None,
        archive: None,
        plan: false,
        selection: options.selection,
        job: options.job,
        include_ignored: false,
        retries: 0,
        // A share is asked for, of all the runs.
        stop: StopArguments {
            no_fail_fast: no_fail_fast || !fail_fast && max_failures.is_none(),
            ..options.stop
        },
        junit: options.junit,
        report: options.report,
    }
}
