//! `regatta exec`.

use std::error::Error;
use std::io::{Write, stderr};
use std::path::Path;

use bytes::Bytes;
use regatta_cas::{StoreError, read_all};
use regatta_model::Digest;
use regatta_wire::convert::duration_to_wire;
use regatta_wire::{reapi, v1};

use super::run::description;
use super::{blocking, connect};
use crate::client::Client;
use crate::download::download;
use crate::exit_code::{ExitCode, Failure, OrExit};
use crate::interrupts::Interrupts;
use crate::options::{ExecOptions, GlobalOptions, MessageFormat};
use crate::session::watch_failure;
use crate::standard_output::{StandardOutput, standard_output};
use crate::submission::submit;
use crate::terminal::visible_lines;
use crate::tree::{Entries, Staging, walk_unignored};
use crate::watch::{CommandOutput, Ended, EventSink, JsonOutput, JsonReport, Tally, follow};
use crate::{directories, jobs};

/// The name of the run's only job.
const JOB: &str = "exec";
/// How much output is fetched that was not seen live; `regatta logs` has the rest.
const OUTPUT_LIMIT_BYTES: u64 = 256 << 20;

pub(super) async fn exec(
    global: &GlobalOptions,
    options: ExecOptions,
) -> Result<ExitCode, Failure> {
    let client = connect(global).await?;
    let input_root = stage(&client, options.input.as_deref()).await?;
    let mut interrupts =
        Interrupts::of_this_process(global.exit_with_stdin).or_exit(ExitCode::Local)?;
    let submitted = submit(&client, spec(global, &options, input_root), &mut interrupts).await?;
    let mut output = output(global);
    let mut json = json_report(global, &submitted).or_exit(ExitCode::Local)?;
    let mut sinks: Vec<&mut dyn EventSink> = vec![&mut output];
    sinks.extend(json.as_mut().map(|sink| sink as &mut dyn EventSink));
    let ended = follow(
        client.runs(),
        &submitted.run_id,
        &mut sinks,
        &mut interrupts,
    )
    .await
    .map_err(|error| watch_failure(&submitted.run_id, error))?;
    let Some(finished) = output.finished().cloned() else {
        return Ok(without_result(&ended));
    };
    if let Some(result) = &finished.result {
        let brought = bring(&client, result, &mut output, options.download.as_deref());
        match interrupts.unless(brought).await {
            Some(brought) => brought?,
            None => return Ok(ExitCode::Cancelled),
        }
    }
    // A command that ran and failed has said so itself.
    let spoke = finished.failure_class() == v1::FailureClass::Test
        && finished
            .result
            .as_ref()
            .is_some_and(|result| result.exit_code != 0);
    if !finished.message.is_empty() && !spoke {
        writeln!(stderr(), "regatta: {}", visible_lines(&finished.message))
            .or_exit(ExitCode::Local)?;
    }
    Ok(exit_code(&finished))
}

/// Brings what of the output was not seen live, and the files.
async fn bring(
    client: &Client,
    result: &reapi::ActionResult,
    output: &mut CommandOutput<Box<dyn Write>, Box<dyn Write>>,
    directory: Option<&Path>,
) -> Result<(), Failure> {
    let stdout = whole(client, &result.stdout_raw, result.stdout_digest.as_ref()).await;
    let stdout = stdout.map_err(unless_gone)?;
    let stderr = whole(client, &result.stderr_raw, result.stderr_digest.as_ref()).await;
    let stderr = stderr.map_err(unless_gone)?;
    output.complete(&stdout, &stderr).or_exit(ExitCode::Local)?;
    if let Some(directory) = directory {
        let downloaded = download(&client.blobs(), result, directory).await;
        let downloaded = downloaded.or_exit(ExitCode::Infrastructure);
        downloaded.map_err(unless_gone)?;
    }
    Ok(())
}

/// Says what to do about a part of a result that is gone from the store: the result counts no more from then on.
fn unless_gone(failure: Failure) -> Failure {
    let is_gone = |cause: &(dyn Error + 'static)| {
        let boxed = || cause.downcast_ref::<Box<StoreError>>().map(Box::as_ref);
        let cause = cause.downcast_ref::<StoreError>().or_else(boxed);
        matches!(cause, Some(StoreError::NotFound { .. }))
    };
    if !failure.error.chain().any(is_gone) {
        return failure;
    }
    let advice = "a part of the output is gone from the store: run the command again, which makes it anew (`regatta \
                  cas verify` tells what else is wrong)";
    Failure {
        error: failure.error.context(advice),
        ..failure
    }
}

/// Where the command's output goes: as it is, or as lines of JSON.
fn output(global: &GlobalOptions) -> CommandOutput<Box<dyn Write>, Box<dyn Write>> {
    let lines = |stream| Box::new(JsonOutput::new(standard_output(), JOB, stream));
    match global.message_format {
        MessageFormat::Human => CommandOutput::new(Box::new(standard_output()), Box::new(stderr())),
        MessageFormat::Json => CommandOutput::new(
            lines(v1::OutputStream::Stdout),
            lines(v1::OutputStream::Stderr),
        ),
    }
}

fn json_report(
    global: &GlobalOptions,
    submitted: &v1::SubmitRunResponse,
) -> std::io::Result<Option<JsonReport<StandardOutput>>> {
    match global.message_format {
        MessageFormat::Human => Ok(None),
        MessageFormat::Json => {
            let mut report = JsonReport::new(standard_output()).without_output();
            report.submitted(&submitted.run_id, &submitted.warnings)?;
            Ok(Some(report))
        }
    }
}

async fn stage(client: &Client, input: Option<&Path>) -> Result<Digest, Failure> {
    let mut staging;
    let roots;
    match input {
        Some(directory) => {
            let directory = directory.canonicalize().map_err(|error| {
                let message = format!("--input {}: {error}", directory.display());
                Failure::new(ExitCode::BadConfiguration, message)
            })?;
            let cache_file = directories::digest_cache(&directory).or_exit(ExitCode::Local)?;
            (staging, roots) = blocking(move || -> Result<_, Failure> {
                let entries =
                    walk_unignored(&directory, &directory, &[]).or_exit(ExitCode::Local)?;
                let mut staging = Staging::new(&cache_file);
                let roots = staging.add(&[&entries])?;
                staging.save_cache();
                Ok((staging, roots))
            })
            .await??;
        }
        None => {
            staging = Staging::new(Path::new(""));
            roots = staging.add(&[&Entries::default()])?;
        }
    }
    staging.upload(&client.blobs()).await?;
    Ok(roots.first().copied().unwrap_or(Digest::EMPTY))
}

fn spec(global: &GlobalOptions, options: &ExecOptions, input_root: Digest) -> v1::RunSpec {
    let mut environment = jobs::base_environment();
    environment.extend(options.env.iter().cloned());
    let job = v1::Job {
        name: JOB.to_owned(),
        input_root: Some(input_root.into()),
        environment: jobs::environment_to_wire(&environment),
        output_paths: options.output.clone(),
        platform: Some(jobs::platform(options.job.image.as_ref())),
        isolation: jobs::isolation_to_wire(options.job.isolation).into(),
        network: options.job.network,
        timeout: options.job.timeout.map(duration_to_wire),
        kind: Some(v1::job::Kind::Build(v1::Build {
            arguments: options.command.clone(),
            do_not_cache: options.no_cache,
        })),
        ..v1::Job::default()
    };
    v1::RunSpec {
        instance_name: global.instance.clone(),
        jobs: vec![job],
        skip_cache_lookup: options.no_cache,
        description: description("regatta exec --", &options.command),
        ..v1::RunSpec::default()
    }
}

/// All of an output stream.
async fn whole(
    client: &Client,
    raw: &Bytes,
    digest: Option<&reapi::Digest>,
) -> Result<Bytes, Failure> {
    let Some(digest) = digest.filter(|_| raw.is_empty()) else {
        return Ok(raw.clone());
    };
    let digest = Digest::try_from(digest).or_exit(ExitCode::Infrastructure)?;
    read_all(&client.blobs(), &digest, OUTPUT_LIMIT_BYTES)
        .await
        .or_exit(ExitCode::Infrastructure)
}

/// The run ended without an end of its job, which only a cancelled or broken one does.
fn without_result(ended: &Ended) -> ExitCode {
    match ended.exit_code(&Tally::default()) {
        ExitCode::Good => ExitCode::Infrastructure,
        code => code,
    }
}

fn exit_code(finished: &v1::JobFinished) -> ExitCode {
    let command = finished.result.as_ref().map(|result| result.exit_code);
    // A shell shows what a signal ended as a code above 128; anything else out of range is a failure.
    let command = command.map(|code| u8::try_from(code).unwrap_or(u8::MAX));
    match (finished.status(), finished.failure_class()) {
        (v1::JobStatus::Passed, _) => ExitCode::Command(command.unwrap_or(0)),
        (v1::JobStatus::Failed, v1::FailureClass::Timeout) => ExitCode::TIMED_OUT,
        (v1::JobStatus::Failed, v1::FailureClass::Oom) => ExitCode::OUT_OF_MEMORY,
        (v1::JobStatus::Failed, v1::FailureClass::Infra) => ExitCode::Infrastructure,
        (v1::JobStatus::Cancelled, _) | (v1::JobStatus::Failed, v1::FailureClass::Cancelled) => {
            ExitCode::Cancelled
        }
        (v1::JobStatus::Failed, v1::FailureClass::Test | v1::FailureClass::Unspecified) => command
            .filter(|code| *code != 0)
            .map_or(ExitCode::TestsFailed, ExitCode::Command),
        (v1::JobStatus::NotRun | v1::JobStatus::Unknown | v1::JobStatus::Unspecified, _) => {
            ExitCode::Infrastructure
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(status: v1::JobStatus, class: v1::FailureClass, code: Option<i32>, expected: u8) {
        let finished = v1::JobFinished {
            status: status.into(),
            failure_class: class.into(),
            result: code.map(|exit_code| reapi::ActionResult {
                exit_code,
                ..reapi::ActionResult::default()
            }),
            ..v1::JobFinished::default()
        };
        assert_eq!(exit_code(&finished).number(), expected);
    }

    #[test]
    fn the_commands_exit_code_is_ours() {
        use v1::FailureClass as Class;
        use v1::JobStatus as Status;
        check(Status::Passed, Class::Unspecified, Some(0), 0);
        check(Status::Failed, Class::Test, Some(3), 3);
        check(Status::Failed, Class::Test, None, 100);
        check(Status::Failed, Class::Timeout, Some(0), 124);
        check(Status::Failed, Class::Oom, Some(0), 137);
        check(Status::Failed, Class::Infra, None, 98);
        check(Status::Unknown, Class::Infra, None, 98);
        check(Status::Cancelled, Class::Cancelled, None, 130);
    }
}
