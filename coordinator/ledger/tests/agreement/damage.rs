//! What is stored of one of two tests cannot be read, while events come that teach of both.

use std::sync::Arc;
use std::time::Duration;

use regatta_ledger::{
    Ledger, LedgerError, NewRun, Place, RunCounts, RunEnd, RunQuery, StoredEvent, SuiteObservation,
    TestObservation,
};
use regatta_model::{RunId, TenantId, Timestamp, Verdict};

/// The test whose rows are damaged.
pub(crate) const DAMAGED: &str = "damaged";
const WHOLE: &str = "whole";

fn run() -> RunId {
    "r".parse().expect("valid")
}

fn tenant() -> TenantId {
    "".parse().expect("valid")
}

/// An event that teaches of tests.
fn lesson(sequence: u64, tests: &[&str]) -> StoredEvent {
    let tests = tests.iter().map(|test| TestObservation {
        test: (*test).to_owned(),
        duration: Duration::from_millis(100),
        failed: true,
        flaky: false,
        finished_at: Timestamp::EPOCH + Duration::from_secs(sequence),
        key: None,
        input_root: None,
    });
    let seen = SuiteObservation {
        tenant: tenant(),
        suite: "s".to_owned(),
        place: Place {
            image: "i".to_owned(),
            branch: "main".to_owned(),
        },
        tests: tests.collect(),
        batch_overhead: None,
    };
    StoredEvent {
        sequence,
        bytes: sequence.to_string().into(),
        teaches: Some(Arc::new(seen)),
    }
}

/// Before anything is damaged.
pub(crate) async fn learn(ledger: &dyn Ledger) {
    let new = NewRun {
        run: run(),
        tenant: tenant(),
        description: String::new(),
        commit: String::new(),
        branch: "main".to_owned(),
        submitted_at: Timestamp::EPOCH,
        committed_at: None,
    };
    ledger.start_run(new).await.expect("starts");
    let events = vec![lesson(1, &[DAMAGED]), lesson(2, &[WHOLE])];
    let appended = ledger.append_events(&run(), events, None).await;
    appended.expect("appends");
}

/// The run's events are stored, and its end, whatever they teach.
pub(crate) async fn append(ledger: &dyn Ledger) {
    for events in [
        vec![lesson(3, &[DAMAGED]), lesson(4, &[WHOLE])],
        vec![lesson(5, &[WHOLE, DAMAGED, WHOLE])],
    ] {
        let appended = ledger.append_events(&run(), events, None).await;
        appended.expect("appends");
    }
    let end = RunEnd {
        finished_at: Timestamp::EPOCH,
        verdict: Verdict::Releasable,
        counts: RunCounts::default(),
        times: None,
    };
    let last = vec![lesson(6, &[DAMAGED])];
    let appended = ledger.append_events(&run(), last, Some(end)).await;
    appended.expect("appends");
    let read = ledger.read_events(&run(), 0, 10).await.expect("reads");
    let sequences: Vec<_> = read.iter().map(|event| event.sequence).collect();
    assert_eq!(sequences, [1, 2, 3, 4, 5, 6]);
    let found = ledger.find_runs(RunQuery {
        limit: 10,
        ..RunQuery::default()
    });
    let found = found.await.expect("finds");
    assert!(found.iter().all(|record| record.end.is_some()), "{found:?}");
    // Who asks for nothing but to learn is told that it cannot be.
    let seen = lesson(7, &[DAMAGED]).teaches.expect("it teaches");
    let observed = ledger.observe_suite(seen.as_ref().clone()).await;
    let is_told = matches!(observed, Err(LedgerError::Corrupt { .. }));
    assert!(is_told, "{observed:?}");
}

/// Once the damage is repaired: of the other test everything was learnt, and from now on it is of both.
pub(crate) async fn learn_again(ledger: &dyn Ledger) {
    let more = vec![lesson(8, &[DAMAGED, WHOLE])];
    let appended = ledger.append_events(&run(), more, None).await;
    appended.expect("appends");
    let history = ledger.read_history(&tenant(), None).await;
    let history = history.expect("reads").into_iter();
    let times: Vec<_> = history.map(|it| (it.test, it.runs, it.failures)).collect();
    let expected = [(DAMAGED, 2, 2), (WHOLE, 5, 5)];
    assert_eq!(
        times,
        expected.map(|(test, runs, failures)| (test.to_owned(), runs, failures))
    );
}
