//! `regatta why`.

use std::io::Write as _;

use regatta_cas::merkle::{LoadLimits, changed_files};
use regatta_model::Digest;
use regatta_wire::v1;

use super::run_id;
use crate::client::Client;
use crate::exit_code::{ExitCode, Failure, OrExit};
use crate::options::WhyOptions;
use crate::session::watch_failure_of_named;
use crate::standard_output::standard_output;
use crate::terminal::visible;
use crate::watch::RunEvents;
use crate::why::{Before, Search, Told, changed_parts, same_key, was_executed};

/// How many of the newest runs are looked at.
const LOOKED_AT: u32 = 100;
/// How many changed files are named.
const NAMED_FILES: usize = 20;

pub(super) async fn why(client: &Client, options: WhyOptions) -> Result<ExitCode, Failure> {
    let wanted = match &options.run {
        Some(run) => Some(run_id::complete(client, run.clone()).await?),
        None => None,
    };
    let runs = client.list_runs(LOOKED_AT, false).await?.runs;
    if let Some(wanted) = &wanted
        && !runs.iter().any(|run| run.run_id == *wanted)
    {
        refuse_unknown(client, wanted).await?;
    }
    // What goes on has no last word yet.
    let ended = runs.into_iter().filter(|run| run.finished_at.is_some());
    let mut ended = ended
        .map(|run| run.run_id)
        .skip_while(|run| wanted.as_ref().is_some_and(|wanted| wanted != run));
    let now = loop {
        let Some(run) = ended.next() else {
            return Err(unknown(&options));
        };
        match told(client, &run, &options.test, options.job.as_deref()).await? {
            Some(told) => break told,
            None if wanted.is_some() => return Err(unknown(&options)),
            None => {}
        }
    };
    let mut lines = vec![headline(&now)];
    if was_executed(&now.result) {
        let job = now.job.name.clone();
        let mut before = Before::of(&now);
        for run in ended {
            if let Some(told) = told(client, &run, &options.test, Some(&job)).await?
                && before.is_found_with(told)
            {
                break;
            }
        }
        let before = before.finish();
        lines.extend(reasons(client, &now, before).await);
    }
    let mut out = standard_output();
    let mut lines = lines.iter();
    let written = lines.try_for_each(|line| writeln!(out, "{}", visible(line)));
    written.or_exit(ExitCode::Local)?;
    Ok(ExitCode::Good)
}

/// A run that is not among the newest may be older.
async fn refuse_unknown(client: &Client, run: &str) -> Result<(), Failure> {
    let first = RunEvents::new(client.runs(), run.to_owned()).next().await;
    first.map_err(|error| watch_failure_of_named(run, error))?;
    Ok(())
}

fn unknown(options: &WhyOptions) -> Failure {
    let place = match (&options.job, &options.run) {
        (Some(job), Some(run)) => format!("in job {job} of run {run}"),
        (None, Some(run)) => format!("in run {run}, if that has ended and is kept yet"),
        (Some(job), None) => format!("in job {job} of the last {LOOKED_AT} runs"),
        (None, None) => format!("in the last {LOOKED_AT} runs"),
    };
    let message = format!(
        "no test `{}` {place}; `regatta logs RUN` names the tests of a run",
        options.test
    );
    Failure::new(ExitCode::NothingSelected, message)
}

async fn told(
    client: &Client,
    run: &str,
    test: &str,
    job: Option<&str>,
) -> Result<Option<Told>, Failure> {
    let mut events = RunEvents::new(client.runs(), run.to_owned());
    let mut search = Search::new(test, job);
    while let Some(event) = events
        .next()
        .await
        .map_err(|error| watch_failure_of_named(run, error))?
    {
        search.take(event);
    }
    Ok(search.finish(run))
}

fn headline(told: &Told) -> String {
    let result = &told.result;
    let name = format!("{} {} in run {}", result.job, result.test_id, told.run);
    let said = match result.message.lines().next() {
        Some(line) if !line.is_empty() => format!(": {line}"),
        Some(_) | None => String::new(),
    };
    match result.status() {
        v1::TestStatus::Cached if result.cached_from.is_empty() => {
            format!("{name} did not run: it had passed with the same key")
        }
        v1::TestStatus::Cached => format!(
            "{name} did not run: it had passed with the same key in run {}",
            result.cached_from
        ),
        v1::TestStatus::Skipped => format!("{name} was skipped{said}"),
        v1::TestStatus::NotRun => format!("{name} did not run: the run ended before{said}"),
        v1::TestStatus::Passed
        | v1::TestStatus::Flaky
        | v1::TestStatus::Failed
        | v1::TestStatus::Quarantined
        | v1::TestStatus::Unspecified => {
            let agent = result.r#where.as_ref().map(|place| place.agent_id.as_str());
            format!("{name} ran on {}", agent.unwrap_or("an agent"))
        }
    }
}

/// Why it was executed, compared with the run before that knows of it.
async fn reasons(client: &Client, now: &Told, before: Option<Told>) -> Vec<String> {
    let Some(before) = before else {
        let text = format!("none of the last {LOOKED_AT} runs before it has this test");
        return vec![text];
    };
    if now.result.key == before.result.key {
        return vec![same_key(now, &before)];
    }
    let mut lines = vec![format!("since run {}, this has changed:", before.run)];
    let mut parts = changed_parts(&before, now);
    parts.extend(files(client, &before, now).await);
    if parts.is_empty() {
        let text =
            "nothing that is told of a run; the release of Regatta, or what its tag stands for";
        parts.push(text.to_owned());
    }
    lines.extend(parts.into_iter().map(|part| format!("  {part}")));
    lines
}

async fn files(client: &Client, before: &Told, now: &Told) -> Vec<String> {
    let root = |told: &Told| {
        let root = told.job.input_root.as_ref();
        root.and_then(|root| Digest::try_from(root).ok())
    };
    let (Some(old), Some(new)) = (root(before), root(now)) else {
        return Vec::new();
    };
    match changed_files(&client.blobs(), &old, &new, LoadLimits::default()).await {
        Ok(files) => {
            let named = files.iter().take(NAMED_FILES).map(ToString::to_string);
            let mut lines: Vec<_> = named.collect();
            if files.len() > NAMED_FILES {
                lines.push(format!("and {} more files", files.len() - NAMED_FILES));
            }
            lines
        }
        Err(error) => vec![format!(
            "the files cannot be compared: {:#}",
            anyhow::Error::new(error)
        )],
    }
}
