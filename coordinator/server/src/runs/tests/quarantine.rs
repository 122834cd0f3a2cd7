//! Tests whose failures do not count for now, beside those whose failures do.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use regatta_wire::v1;
use regatta_wire::v1::run_event::Event;

use super::contract::{any_runner, ending_runner};
use super::fake_agent::completed;
use super::fixture::{Fixture, contract, spec};
use super::suspects::all_well;

const LISTED: &str = "a\nq1\nb\nq2\nc\nd\nq3\ne\n";

fn quarantined(job: &mut v1::Job) {
    let entries = ["q1", "q2", "q3"].map(|test| v1::QuarantinedTest {
        test_id: test.to_owned(),
        owner: "jane@example.org".to_owned(),
        expires: Some(prost_types::Timestamp {
            seconds: 1 << 33,
            nanos: 0,
        }),
        reason: String::new(),
    });
    if let Some(v1::job::Kind::Suite(suite)) = &mut job.kind {
        suite.quarantine = entries.into();
    }
}

/// A run whose runner ends without a report if its batch is as `dies` says, and passes all tests otherwise; and how often
/// it did.
async fn run_that_dies(
    dies: impl Fn(&[String]) -> bool + Send + Sync + 'static,
) -> (super::fixture::Story, usize) {
    let fixture = Fixture::start().await;
    let died = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&died);
    let script = any_runner(&fixture, LISTED, move |ids| match dies(ids) {
        true => {
            count.fetch_add(1, Ordering::SeqCst);
            (completed(137, ""), None)
        }
        false => all_well(ids),
    });
    let _agent = fixture.agent("a", script);
    let mut job = contract("acceptance");
    quarantined(&mut job);
    let story = fixture.run(spec(vec![job])).await;
    (story, died.load(Ordering::SeqCst))
}

#[tokio::test]
async fn one_that_kills_its_runner_leaves_the_others_their_own_results() {
    let (story, died) = run_that_dies(|ids| ids.iter().any(|id| id == "q2")).await;
    assert!(died > 1, "it was alone at once");
    let tests = story.tests();
    for id in ["q1", "q3"] {
        assert_eq!(tests[id].status(), v1::TestStatus::Passed, "{id}");
    }
    assert_eq!(tests["q2"].status(), v1::TestStatus::Quarantined);
    assert_eq!(story.end().verdict(), v1::Verdict::Releasable);
}

#[tokio::test]
async fn what_ended_their_runner_once_does_not_count_either() {
    let (story, died) = run_that_dies(|ids| ids.len() > 1 && ids[0].starts_with('q')).await;
    assert!(died > 0, "batches of one prove nothing");
    assert_eq!(story.counts().passed, 8);
    let reasons = &story.end().reasons;
    assert_eq!(
        story.end().verdict(),
        v1::Verdict::Releasable,
        "{reasons:?}"
    );
    let warnings = story.events.iter().filter_map(|event| match event {
        Event::Warning(warning) => Some(warning.message.as_str()),
        _ => None,
    });
    let told: Vec<_> = warnings
        .filter(|it| it.contains("none of which failed"))
        .collect();
    assert_eq!(told.len(), died, "{told:?}");
}

/// A run whose runner fails each test in quarantine and ends with 3; and with `others` if there is none. What each
/// batch had.
async fn run(others: i32) -> (super::fixture::Story, Vec<BTreeSet<String>>) {
    let fixture = Fixture::start().await;
    let batches = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&batches);
    let script = ending_runner(&fixture, LISTED, move |ids| {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push(ids.iter().cloned().collect());
        let case = |id: &String| match id.starts_with('q') {
            true => format!("<testcase name=\"{id}\"><failure message=\"known\"/></testcase>"),
            false => format!("<testcase name=\"{id}\"/>"),
        };
        let cases: String = ids.iter().map(case).collect();
        let code = if cases.contains("<failure") {
            3
        } else {
            others
        };
        (code, format!("<testsuites>{cases}</testsuites>"))
    });
    let _agent = fixture.agent("a", script);
    let mut job = contract("acceptance");
    quarantined(&mut job);
    let story = fixture.run(spec(vec![job])).await;
    let batches = batches.lock().unwrap_or_else(PoisonError::into_inner);
    (story, batches.clone())
}

#[tokio::test]
async fn they_run_in_batches_apart() {
    let (story, batches) = run(0).await;
    assert_eq!(
        story.end().verdict(),
        v1::Verdict::Releasable,
        "{:?}",
        story.end().reasons
    );
    let counts = story.counts();
    assert_eq!(
        (counts.passed, counts.quarantined, counts.failed),
        (5, 3, 0)
    );
    for batch in &batches {
        let few = batch.iter().filter(|id| id.starts_with('q')).count();
        assert!(few == 0 || few == batch.len(), "{batches:?}");
    }
    let together = batches.iter().any(|batch| batch.len() > 1);
    assert!(together, "batches of one prove nothing: {batches:?}");
}

#[tokio::test]
async fn how_the_runner_of_others_ends_is_not_explained_by_them() {
    let (story, _) = run(3).await;
    assert_eq!(story.end().verdict(), v1::Verdict::NotReleasable);
    let message = &story.job("acceptance").message;
    assert!(message.contains('3'), "{message}");
}
