//! What every [`Ledger`] must do, as one check that adapters run against a fresh, empty ledger.

mod forgetting;
mod keeping;
mod places;
mod verdicts;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use regatta_model::{Digest, RunId, TenantId, Timestamp, Verdict};

use crate::{
    Ledger, NewRun, Place, RunCounts, RunEnd, RunQuery, RunTimes, StoredEvent, SuiteObservation,
    TestObservation,
};

/// Runs the whole suite against an empty ledger.
///
/// # Panics
/// If the ledger does not do what the port promises.
pub async fn check(ledger: &dyn Ledger) {
    tokens_never_decrease(ledger).await;
    runs_are_found_newest_first(ledger).await;
    events_read_back_in_order_and_once(ledger).await;
    an_end_is_final(ledger).await;
    tests_are_learnt(ledger).await;
    places::check(ledger).await;
    what_events_teach_is_learnt_once(ledger).await;
    verdicts::check(ledger).await;
    forgetting::check(ledger).await;
    keeping::check(ledger).await;
}

fn at(second: u64) -> Timestamp {
    Timestamp::EPOCH + Duration::from_secs(second)
}

fn run_id(text: &str) -> RunId {
    text.parse().expect("a valid run id")
}

fn tenant(text: &str) -> TenantId {
    text.parse().expect("a valid tenant")
}

fn new_run(id: &str, owner: &str, second: u64) -> NewRun {
    NewRun {
        run: run_id(id),
        tenant: tenant(owner),
        description: format!("run {id}"),
        commit: "c0ffee".to_owned(),
        branch: "main".to_owned(),
        // Of one of them it is not known.
        committed_at: (second > 1).then_some(Timestamp::EPOCH),
        submitted_at: at(second),
    }
}

fn event(sequence: u64, text: &'static str) -> StoredEvent {
    StoredEvent {
        sequence,
        bytes: Bytes::from_static(text.as_bytes()),
        teaches: None,
    }
}

fn end(verdict: Verdict) -> RunEnd {
    let counts = RunCounts {
        planned: 3,
        passed: 1,
        cached: 1,
        quarantined: 1,
        ..RunCounts::default()
    };
    RunEnd {
        finished_at: at(99),
        verdict,
        counts,
        times: (verdict != Verdict::Unknown).then_some(RunTimes {
            queued: Duration::from_millis(1500),
            // As long as a signed number of nanoseconds cannot hold.
            worked: Duration::from_secs(1 << 34),
            took: Some(Duration::from_secs(7)),
        }),
    }
}

async fn tokens_never_decrease(ledger: &dyn Ledger) {
    assert_eq!(ledger.reserved_tokens().await, Ok(0));
    for (reserve, expected) in [(10, 10), (5, 10), (u64::MAX, u64::MAX)] {
        ledger.reserve_tokens(reserve).await.expect("reserves");
        assert_eq!(ledger.reserved_tokens().await, Ok(expected));
    }
}

async fn ids(ledger: &dyn Ledger, query: RunQuery) -> Vec<String> {
    let found = ledger.find_runs(query).await.expect("finds");
    found
        .iter()
        .map(|record| record.new.run.to_string())
        .collect()
}

async fn runs_are_found_newest_first(ledger: &dyn Ledger) {
    for (id, owner, second) in [("r1", "a", 1), ("r3", "a", 3), ("r2", "b", 2)] {
        ledger
            .start_run(new_run(id, owner, second))
            .await
            .expect("starts");
    }
    ledger
        .start_run(new_run("r1", "b", 9))
        .await
        .expect("is left as it is");
    let all = RunQuery {
        limit: 10,
        ..RunQuery::default()
    };
    assert_eq!(ids(ledger, all.clone()).await, ["r3", "r2", "r1"]);
    assert_eq!(
        ids(
            ledger,
            RunQuery {
                limit: 1,
                ..all.clone()
            }
        )
        .await,
        ["r3"]
    );
    let of_a = RunQuery {
        tenant: Some(tenant("a")),
        ..all.clone()
    };
    assert_eq!(ids(ledger, of_a.clone()).await, ["r3", "r1"]);
    let found = ledger.find_runs(of_a).await.expect("finds");
    let new = found.into_iter().map(|record| record.new);
    let as_written = [new_run("r3", "a", 3), new_run("r1", "a", 1)];
    assert_eq!(new.collect::<Vec<_>>(), as_written);
    let of_commit = |commit: &str| RunQuery {
        commit: Some(commit.to_owned()),
        ..all.clone()
    };
    let known = new_run("r2", "b", 2).commit;
    assert!(
        ids(ledger, of_commit(&known))
            .await
            .contains(&"r2".to_owned())
    );
    assert!(ids(ledger, of_commit("of no run")).await.is_empty());
    let by_id = RunQuery {
        run: Some(run_id("r2")),
        ..all
    };
    let found = ledger.find_runs(by_id).await.expect("finds");
    assert_eq!(
        found.first().map(|record| &record.new),
        Some(&new_run("r2", "b", 2))
    );
}

async fn events_read_back_in_order_and_once(ledger: &dyn Ledger) {
    let run = run_id("r1");
    let first = vec![event(1, "one"), event(2, "two")];
    ledger
        .append_events(&run, first, None)
        .await
        .expect("appends");
    let again = vec![event(2, "two"), event(3, "three")];
    ledger
        .append_events(&run, again, None)
        .await
        .expect("appends again");
    let all = [event(1, "one"), event(2, "two"), event(3, "three")];
    assert_eq!(
        ledger.read_events(&run, 0, 10).await.as_deref(),
        Ok(&all[..])
    );
    assert_eq!(
        ledger.read_events(&run, 1, 1).await.as_deref(),
        Ok(&all[1..2])
    );
    assert_eq!(
        ledger.read_events(&run, 3, 10).await.as_deref(),
        Ok(&[][..])
    );
    assert_eq!(
        ledger
            .read_events(&run_id("nobody"), 0, 10)
            .await
            .as_deref(),
        Ok(&[][..])
    );
}

async fn an_end_is_final(ledger: &dyn Ledger) {
    let run = run_id("r3");
    for verdict in [Verdict::NotReleasable, Verdict::Releasable] {
        let ended = ledger
            .append_events(&run, Vec::new(), Some(end(verdict)))
            .await;
        ended.expect("ends");
    }
    let query = RunQuery {
        run: Some(run),
        limit: 1,
        ..RunQuery::default()
    };
    let found = ledger.find_runs(query).await.expect("finds");
    assert_eq!(
        found.first().and_then(|it| it.end),
        Some(end(Verdict::NotReleasable))
    );
    let first_ended = found.first().and_then(|it| it.ended);
    // What it cost may not be known, and clocks are set back.
    let lost = new_run("r0", "c", 0);
    ledger.start_run(lost.clone()).await.expect("starts");
    let unknown = Some(RunEnd {
        finished_at: Timestamp::EPOCH,
        ..end(Verdict::Unknown)
    });
    let ended = ledger.append_events(&lost.run, Vec::new(), unknown).await;
    ended.expect("ends");
    let query = RunQuery {
        run: Some(lost.run),
        limit: 1,
        ..RunQuery::default()
    };
    let found = ledger.find_runs(query).await.expect("finds");
    assert_eq!(found.first().and_then(|it| it.end), unknown);
    let later_ended = found.first().and_then(|it| it.ended);
    assert!(None < first_ended && first_ended < later_ended);
    let active = RunQuery {
        active_only: true,
        limit: 10,
        ..RunQuery::default()
    };
    assert_eq!(ids(ledger, active).await, ["r2", "r1"]);
}

fn seen(test: &str, millis: u64, second: u64) -> TestObservation {
    TestObservation {
        test: test.to_owned(),
        duration: Duration::from_millis(millis),
        failed: false,
        flaky: false,
        finished_at: at(second),
        key: None,
        input_root: None,
    }
}

fn place(image: &str, branch: &str) -> Place {
    Place {
        image: image.to_owned(),
        branch: branch.to_owned(),
    }
}

async fn observe(ledger: &dyn Ledger, suite: &str, place: Place, tests: Vec<TestObservation>) {
    let seen = SuiteObservation {
        tenant: tenant("a"),
        suite: suite.to_owned(),
        place,
        tests,
        batch_overhead: None,
    };
    ledger.observe_suite(seen).await.expect("learns");
}

async fn tests_are_learnt(ledger: &dyn Ledger) {
    let key = Some(Digest::of(b"key"));
    let input_root = Some(Digest::of(b"inputs"));
    let worse = TestObservation {
        failed: true,
        flaky: true,
        key,
        input_root,
        ..seen("x", 200, 2)
    };
    let anywhere = Place::default();
    observe(
        ledger,
        "s",
        anywhere.clone(),
        vec![seen("x", 100, 1), worse],
    )
    .await;
    observe(ledger, "t", anywhere.clone(), vec![seen("a", 5, 5)]).await;
    observe(ledger, "s", anywhere, vec![seen("b", 1, 1)]).await;

    let history = ledger
        .read_history(&tenant("a"), Some("s"))
        .await
        .expect("reads");
    let tests: Vec<_> = history.iter().map(|it| it.test.as_str()).collect();
    assert_eq!(tests, ["b", "x"]);
    let known = &history[1];
    assert_eq!(known.timing.expected, Duration::from_millis(130));
    assert_eq!(known.timing.spread, Duration::from_millis(65));
    assert_eq!((known.runs, known.failures, known.flakes), (2, 1, 1));
    assert_eq!(
        (known.last_key, known.last_run.as_nanos()),
        (key, 2_000_000_000)
    );
    assert_eq!(known.last_input_root, input_root);
    assert_eq!(known.last_failure, Some(known.last_run));
    assert_eq!(known.last_failed_key, key);
    assert_eq!(history[0].last_failed_key, None);
    let later = TestObservation {
        key: Some(Digest::of(b"other")),
        ..seen("x", 100, 3)
    };
    observe(ledger, "s", Place::default(), vec![later]).await;
    let place = Place::default();
    let known = ledger.read_suite(&tenant("a"), "s", &place).await;
    let known = known.expect("reads").tests.pop().expect("it has run");
    assert_eq!(known.last_key, Some(Digest::of(b"other")));
    assert_eq!(
        known.last_failed_key, key,
        "it has passed with another since"
    );
    assert_eq!(history[0].last_failure, None);
    let all = ledger
        .read_history(&tenant("a"), None)
        .await
        .expect("reads");
    assert_eq!(all.len(), 3);
    assert_eq!(
        ledger.read_history(&tenant("b"), None).await.as_deref(),
        Ok(&[][..])
    );
}

/// An event that teaches something of a test of the suite `taught`.
fn lesson(sequence: u64, test: &str) -> StoredEvent {
    let seen = SuiteObservation {
        tenant: tenant("a"),
        suite: "taught".to_owned(),
        place: place("i", "main"),
        tests: vec![seen(test, 100, 1)],
        batch_overhead: None,
    };
    StoredEvent {
        teaches: Some(Arc::new(seen)),
        ..event(sequence, "taught")
    }
}

async fn what_events_teach_is_learnt_once(ledger: &dyn Ledger) {
    let run = run_id("teaches");
    let appended = [
        vec![event(1, "e"), lesson(2, "x")],
        // Nobody knows whether the last call did it.
        vec![lesson(2, "x"), lesson(3, "y")],
        vec![lesson(1, "z"), lesson(3, "y"), lesson(3, "y")],
        vec![lesson(4, "x"), lesson(4, "x")],
    ];
    for events in appended {
        let appended = ledger.append_events(&run, events, None).await;
        appended.expect("appends");
    }
    let history = ledger.read_history(&tenant("a"), Some("taught")).await;
    let history = history.expect("reads").into_iter();
    let runs: Vec<_> = history.map(|it| (it.test, it.runs)).collect();
    assert_eq!(runs, [("x".to_owned(), 2), ("y".to_owned(), 1)]);
    let read = ledger.read_events(&run, 0, 10).await.expect("reads");
    assert_eq!(read.len(), 4);
    assert!(read.iter().all(|event| event.teaches.is_none()));
}
