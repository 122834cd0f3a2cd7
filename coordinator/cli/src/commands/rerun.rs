//! `regatta rerun`.

use std::path::PathBuf;

use regatta_wire::v1;
use regatta_wire::v1::run_event::Event;

use super::run::junit_of_ci;
use super::{connect, run_id};
use crate::client::Client;
use crate::config;
use crate::exit_code::{ExitCode, Failure};
use crate::options::{GlobalOptions, RerunOptions};
use crate::rerun::Story;
use crate::session::{Session, watch_failure_of_named};
use crate::watch::RunEvents;

/// How many runs that go on are looked at.
const LOOKED_AT: u32 = 1000;

pub(super) async fn rerun(
    global: &GlobalOptions,
    options: RerunOptions,
) -> Result<ExitCode, Failure> {
    let client = connect(global).await?;
    let run = run_id::complete(&client, options.run).await?;
    refuse_active(&client, &run).await?;
    let story = read(&client, &run).await?;
    let reasons = story.reasons().join("; ");
    let (spec, command) = match options.failed {
        true => (story.failed(), "regatta rerun --failed"),
        false => (story.all(), "regatta rerun"),
    };
    let spec = spec.ok_or_else(|| {
        let message = format!("the first event of run {run} is not there, which says what it was");
        Failure::new(ExitCode::Infrastructure, message)
    })?;
    if spec.jobs.is_empty() {
        let message = match reasons.as_str() {
            "" => format!("nothing to run: nothing of run {run} failed"),
            reasons => format!(
                "nothing to run: no job or test of run {run} failed by itself, but {reasons}; \
                 `regatta rerun {run}` runs all of it again"
            ),
        };
        return Err(Failure::new(ExitCode::NothingSelected, message));
    }
    let spec = v1::RunSpec {
        max_failures: options.stop.max_failures_or(spec.max_failures),
        skip_cache_lookup: options.report.no_cache,
        no_duplicates: options.report.no_duplicates,
        cached_only: false,
        audit_percent: options.report.audit_hits,
        stream_tests: options.report.live_output,
        description: format!("{command} {run}"),
        ..spec
    };
    let session = Session {
        global,
        client: &client,
        report: &options.report,
        junit: options.junit.or_else(junit_of_ci),
        project: project_of_here(),
    };
    let (ended, tally) = session.run(spec).await?;
    Ok(ended.exit_code(&tally))
}

/// Where the run's files are here, if it is one of the project that this is.
fn project_of_here() -> PathBuf {
    let here = std::env::current_dir().unwrap_or_default();
    config::find(&here).map_or(here, |(_file, root)| root)
}

/// What failed is known once a run has ended.
async fn refuse_active(client: &Client, run: &str) -> Result<(), Failure> {
    let active = client.list_runs(LOOKED_AT, true).await?.runs;
    match active.iter().any(|it| it.run_id == run) {
        true => {
            let message = format!("run {run} goes on; wait for its end, or `regatta cancel` it");
            Err(Failure::new(ExitCode::BadConfiguration, message))
        }
        false => Ok(()),
    }
}

async fn read(client: &Client, run: &str) -> Result<Story, Failure> {
    let mut events = RunEvents::new(client.runs(), run.to_owned());
    let mut story = Story::default();
    loop {
        let event = events.next().await;
        let Some(event) = event.map_err(|error| watch_failure_of_named(run, error))? else {
            return Ok(story);
        };
        let is_last = matches!(event.event, Some(Event::RunFinished(_)));
        story.take(event);
        if is_last {
            return Ok(story);
        }
    }
}
