//! Runs that are kept no longer, as clients see them.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use regatta_ledger::Forgetting;
use regatta_model::Timestamp;
use regatta_wire::v1;
use regatta_wire::v1::get_verdict_request::Subject;
use tonic::{Code, Status};

use super::all_pass;
use super::fixture::{Fixture, libtest, spec};
use crate::runs::{FindRunError, now};

const COMMIT: &str = "0123456789012345678901234567890123456789";

fn of_commit(commit: &str) -> v1::RunSpec {
    v1::RunSpec {
        commit: commit.to_owned(),
        ..spec(vec![libtest("unit")])
    }
}

/// Has the ledger let a run go, unless a verdict keeps it that was given since.
async fn forget(fixture: &Fixture, run: &str, verdicts_since: Timestamp) {
    let step = Forgetting::Run {
        run: run.parse().expect("is an id"),
        ended_before: now() + Duration::from_secs(60),
        verdicts_since,
        now: now(),
    };
    fixture.ledger.forget(step).await.expect("is done");
}

/// No verdict is of such a time.
fn far_future() -> Timestamp {
    now() + Duration::from_secs(1000)
}

async fn verdict(fixture: &Fixture, subject: Subject) -> Result<(), Status> {
    let request = v1::GetVerdictRequest {
        instance_name: String::new(),
        subject: Some(subject),
    };
    fixture.runs().get_verdict(request).await.map(drop)
}

async fn listed(fixture: &Fixture) -> Vec<String> {
    let mut runs = fixture.runs();
    let listed = runs.list_runs(v1::ListRunsRequest::default()).await;
    let listed = listed.expect("are listed").into_inner();
    listed.runs.into_iter().map(|run| run.run_id).collect()
}

#[track_caller]
fn check(answer: Result<(), Status>) {
    let status = answer.expect_err("it is gone");
    assert_eq!(status.code(), Code::NotFound, "{status}");
    let message = status.message();
    assert!(message.contains("no longer kept"), "{message}");
    assert!(message.contains("--keep-runs"), "{message}");
}

#[tokio::test]
async fn whoever_asks_for_a_run_that_is_kept_no_longer_is_told_so() {
    let fixture = Fixture::start().await;
    let _agent = fixture.agent("a", all_pass(3));
    let submitted = fixture.submit_as("chosen", of_commit(COMMIT)).await;
    let run = submitted.expect("is accepted").run_id;
    fixture.finish(&run).await;
    // One that knows no more of it than the ledger does.
    let fixture = fixture.heir(Arc::clone(&fixture.ledger)).await;
    forget(&fixture, &run, far_future()).await;
    assert!(listed(&fixture).await.is_empty());
    let mut runs = fixture.runs();
    let watch = v1::WatchRunRequest {
        run_id: run.clone(),
        after_sequence: 0,
    };
    check(runs.watch_run(watch).await.map(drop));
    let logs = v1::ReadLogsRequest {
        run_id: run.clone(),
        ..v1::ReadLogsRequest::default()
    };
    check(runs.read_logs(logs).await.map(drop));
    let cancel = v1::CancelRunRequest {
        run_id: run.clone(),
    };
    check(runs.cancel_run(cancel).await.map(drop));
    check(verdict(&fixture, Subject::RunId(run.clone())).await);
    check(verdict(&fixture, Subject::Commit(COMMIT.to_owned())).await);
    let never = verdict(&fixture, Subject::RunId("never".to_owned())).await;
    let never = never.expect_err("there was none");
    assert!(never.message().contains("no run `never`"), "{never}");
    // Under its id nothing else is taken for it.
    let again = fixture.submit_as("chosen", of_commit(COMMIT)).await;
    let again = again.expect_err("is refused");
    assert_eq!(again.code(), Code::AlreadyExists, "{again}");
    assert!(again.message().contains("no longer kept"), "{again}");
    // The commit can be judged anew.
    let _agent = fixture.agent("b", all_pass(3));
    let run = fixture.submit(of_commit(COMMIT)).await;
    fixture.finish(&run).await;
    let said = verdict(&fixture, Subject::Commit(COMMIT.to_owned())).await;
    said.expect("there is a run");
}

#[tokio::test]
async fn a_run_that_goes_while_it_is_read_does_not_seem_to_have_ended_there() {
    let fixture = Fixture::start().await;
    let _agent = fixture.agent("a", all_pass(3));
    let run = fixture.submit(of_commit(COMMIT)).await;
    fixture.finish(&run).await;
    let registry = fixture.restarted().await;
    let mut events = registry.watch(&run, 0).await.expect("is known").boxed();
    events.next().await.expect("one").expect("is read");
    forget(&fixture, &run, far_future()).await;
    let rest: Vec<_> = events.collect().await;
    let last = rest.last().expect("more");
    assert!(
        matches!(last, Err(FindRunError::Forgotten { .. })),
        "{last:?}"
    );
    let so_far = registry.events_so_far(&run, 1).await;
    assert!(
        matches!(so_far, Err(FindRunError::Forgotten { .. })),
        "{so_far:?}"
    );
}

#[tokio::test]
async fn a_verdict_keeps_its_runs_and_those_whose_results_they_found() {
    let fixture = Fixture::start().await;
    let _agent = fixture.agent("a", all_pass(3));
    let mut runs = Vec::new();
    for commit in ["first", COMMIT] {
        let run = fixture.submit(of_commit(commit)).await;
        fixture.finish(&run).await;
        runs.push(run);
    }
    let before = now() - Duration::from_secs(60);
    let of_commit = verdict(&fixture, Subject::Commit(COMMIT.to_owned())).await;
    of_commit.expect("is given");
    for run in &runs {
        forget(&fixture, run, before).await;
    }
    assert_eq!(listed(&fixture).await.len(), 2, "a verdict names them");
    for run in &runs {
        forget(&fixture, run, far_future()).await;
    }
    assert!(listed(&fixture).await.is_empty());
}
