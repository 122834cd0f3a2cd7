//! What every [`Ledger`] must do, as one check that adapters run against a fresh, empty ledger.

use std::time::Duration;

use bytes::Bytes;
use regatta_model::{Digest, RunId, TenantId, Timestamp, Verdict};

use crate::{Ledger, NewRun, RunCounts, RunEnd, RunQuery, StoredEvent, TestObservation};

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
        submitted_at: Timestamp::EPOCH + Duration::from_secs(second),
    }
}

fn event(sequence: u64, text: &'static str) -> StoredEvent {
    StoredEvent {
        sequence,
        bytes: Bytes::from_static(text.as_bytes()),
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
        finished_at: Timestamp::EPOCH + Duration::from_secs(99),
        verdict,
        counts,
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
    assert_eq!(ids(ledger, of_a).await, ["r3", "r1"]);
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
    let active = RunQuery {
        active_only: true,
        limit: 10,
        ..RunQuery::default()
    };
    assert_eq!(ids(ledger, active).await, ["r2", "r1"]);
}

async fn tests_are_learnt(ledger: &dyn Ledger) {
    let seen = |suite: &str, test: &str, millis, second| TestObservation {
        tenant: tenant("a"),
        suite: suite.to_owned(),
        test: test.to_owned(),
        duration: Duration::from_millis(millis),
        failed: false,
        flaky: false,
        finished_at: Timestamp::EPOCH + Duration::from_secs(second),
        key: None,
    };
    let key = Some(Digest::of(b"key"));
    let worse = TestObservation {
        failed: true,
        flaky: true,
        key,
        ..seen("s", "x", 200, 2)
    };
    let batch = vec![
        seen("s", "x", 100, 1),
        worse,
        seen("t", "a", 5, 5),
        seen("s", "b", 1, 1),
    ];
    ledger.observe_tests(batch).await.expect("learns");

    let history = ledger
        .read_history(&tenant("a"), Some("s"))
        .await
        .expect("reads");
    let tests: Vec<_> = history.iter().map(|it| it.test.as_str()).collect();
    assert_eq!(tests, ["b", "x"]);
    let known = &history[1];
    assert_eq!(known.expected, Duration::from_millis(130));
    assert_eq!((known.runs, known.failures, known.flakes), (2, 1, 1));
    assert_eq!(
        (known.last_key, known.last_run.as_nanos()),
        (key, 2_000_000_000)
    );
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
