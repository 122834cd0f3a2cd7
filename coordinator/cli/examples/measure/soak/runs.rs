//! Runs of a suite: new, then cached, then cancelled; with watchers that do not stay to the end.

use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use regatta_model::Digest;
use regatta_wire::v1::run_event::Event;
use regatta_wire::v1::runs_client::RunsClient;
use regatta_wire::v1::{self, RunFinished};
use tonic::Streaming;
use tonic::transport::Channel;

use super::Soak;
use crate::actions::never_seen;

/// How many tests the suite has.
const TESTS: u32 = 40;
/// Of so many runs, one is cancelled.
const CANCELS_ONE_OF: usize = 4;
/// How many events a watcher sees that does not stay.
const SEEN: usize = 3;

/// One run of a suite that nobody knows, and the same again.
pub(super) async fn one(soak: Arc<Soak>, number: usize) -> Result<()> {
    let client = soak.connect().await?;
    let cached = spec(number, "0.01");
    let asked = soak
        .tally
        .ask("run", execute(&client, cached.clone()))
        .await;
    // Without the one it knows nothing of the other.
    if asked.is_some() {
        let again = async {
            let end = execute(&client, cached).await?;
            ensure!(end.leases == 0, "{} leases though all is known", end.leases);
            Ok(())
        };
        soak.tally.ask("run from the cache", again).await;
    }
    if number.is_multiple_of(CANCELS_ONE_OF) {
        let cancelled = cancel(&client, spec(number, "60"));
        soak.tally.ask("cancelled run", cancelled).await;
    }
    Ok(())
}

/// A suite whose tests take `seconds` each.
fn spec(number: usize, seconds: &str) -> v1::RunSpec {
    let list = format!("seq 1 {TESTS} | sed s/^/test-/");
    let run = format!(
        r#"{{ echo '<testsuites><testsuite name="soak" tests="1">'
while read -r id; do sleep {seconds}; echo "<testcase name=\"$id\" classname=\"\" time=\"{seconds}\"/>"; done < "${{1#@}}"
echo '</testsuite></testsuites>'; }} > junit.xml"#
    );
    let shell = |script: &str, more: &[&str]| {
        let words = ["/bin/sh", "-c", script].into_iter();
        words
            .chain(more.iter().copied())
            .map(str::to_owned)
            .collect()
    };
    let suite = v1::Suite {
        adapter: v1::SuiteAdapter::Contract.into(),
        discover_arguments: shell(&list, &[]),
        run_arguments: shell(&run, &["sh"]),
        junit_path: "junit.xml".to_owned(),
        ..Default::default()
    };
    let path = regatta_wire::reapi::command::EnvironmentVariable {
        name: "PATH".to_owned(),
        value: "/usr/bin:/bin".to_owned(),
    };
    let job = v1::Job {
        name: "soak".to_owned(),
        input_root: Some(Digest::EMPTY.into()),
        environment: vec![never_seen(number), path],
        kind: Some(v1::job::Kind::Suite(suite)),
        ..Default::default()
    };
    v1::RunSpec {
        jobs: vec![job],
        description: "soak".to_owned(),
        ..Default::default()
    }
}

/// A run that must pass, with each of its tests counted once.
async fn execute(client: &Channel, spec: v1::RunSpec) -> Result<RunFinished> {
    let run = submit(client, spec).await?;
    let mut passing = watch(client, &run).await?;
    let (staying, passed) =
        tokio::join!(async { end_of(watch(client, &run).await?).await }, async {
            for _ in 0..SEEN {
                passing.message().await?;
            }
            drop(passing);
            anyhow::Ok(())
        });
    passed?;
    let end = staying?;
    let counts = end.counts.context("no counts")?;
    let good = counts.passed + counts.flaky + counts.cached;
    ensure!(
        good == TESTS && counts.planned == TESTS && end.verdict() == v1::Verdict::Releasable,
        "{TESTS} tests that pass: {end:?}"
    );
    Ok(end)
}

/// A run that is cancelled once one of its tests may be running.
async fn cancel(client: &Channel, spec: v1::RunSpec) -> Result<()> {
    let run = submit(client, spec).await?;
    let mut events = watch(client, &run).await?;
    loop {
        let event = events.message().await?.context("it ended by itself")?;
        if matches!(event.event, Some(Event::SuitePlanned(_))) {
            break;
        }
    }
    let request = v1::CancelRunRequest { run_id: run };
    RunsClient::new(client.clone()).cancel_run(request).await?;
    let end = end_of(events).await?;
    ensure!(end.cancelled, "it was cancelled: {end:?}");
    Ok(())
}

async fn submit(client: &Channel, spec: v1::RunSpec) -> Result<String> {
    let request = v1::SubmitRunRequest {
        spec: Some(spec),
        ..Default::default()
    };
    let submitted = RunsClient::new(client.clone()).submit_run(request).await?;
    Ok(submitted.into_inner().run_id)
}

async fn watch(client: &Channel, run: &str) -> Result<Streaming<v1::RunEvent>> {
    let request = v1::WatchRunRequest {
        run_id: run.to_owned(),
        after_sequence: 0,
    };
    let watched = RunsClient::new(client.clone()).watch_run(request).await?;
    Ok(watched.into_inner())
}

/// How a run ends.
async fn end_of(mut events: Streaming<v1::RunEvent>) -> Result<RunFinished> {
    while let Some(event) = events.message().await? {
        if let Some(Event::RunFinished(end)) = event.event {
            return Ok(end);
        }
    }
    bail!("the events ended without the run's end")
}
