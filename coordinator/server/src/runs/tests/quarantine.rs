//! Tests whose failures do not count for now, beside those whose failures do.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use regatta_wire::v1;

use super::contract::ending_runner;
use super::fixture::{Fixture, contract, spec};

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
