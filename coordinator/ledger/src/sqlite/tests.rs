use std::fs;

use futures_free::join_all;

use super::*;
use crate::statements;

/// Waits for several futures; the crate has no use for a futures library otherwise.
mod futures_free {
    use std::future::Future;

    use tokio::task::JoinSet;

    pub(super) async fn join_all<Output: Send + 'static>(
        futures: impl IntoIterator<Item = impl Future<Output = Output> + Send + 'static>,
    ) -> Vec<Output> {
        let tasks: JoinSet<Output> = futures.into_iter().collect();
        tasks.join_all().await
    }
}

/// A database as a release left it that knew so many migrations, with these rows.
fn earlier(path: &Path, known: usize, rows: &str) {
    let connection = Connection::open(path).expect("opens");
    let (earlier, _) = schema::MIGRATIONS.split_at(known);
    for migration in earlier {
        connection.execute_batch(migration).expect("is known");
    }
    connection.execute_batch(rows).expect("writes");
    let version = u32::try_from(known).expect("is small");
    let updated = connection.pragma_update(None, "user_version", version);
    updated.expect("writes");
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

#[tokio::test]
async fn it_passes_the_suite() {
    let directory = directory();
    let ledger = SqliteLedger::open(&directory.path().join("ledger.db")).expect("opens");
    crate::conformance::check(&ledger).await;
}

#[tokio::test]
async fn what_was_written_outlives_the_process() {
    let directory = directory();
    let path = directory.path().join("ledger.db");
    let ledger = SqliteLedger::open(&path).expect("opens");
    ledger.reserve_tokens(4096).await.expect("reserves");
    drop(ledger);
    let ledger = SqliteLedger::open(&path).expect("opens again");
    assert_eq!(ledger.reserved_tokens().await, Ok(4096));
}

#[tokio::test]
async fn many_writers_share_transactions_and_lose_nothing() {
    let directory = directory();
    let ledger = SqliteLedger::open(&directory.path().join("ledger.db")).expect("opens");
    let ledger = std::sync::Arc::new(ledger);
    let run: RunId = "r".parse().expect("valid");
    let written = join_all((1..=500u64).map(|sequence| {
        let (ledger, run) = (std::sync::Arc::clone(&ledger), run.clone());
        async move {
            let event = StoredEvent {
                sequence,
                bytes: sequence.to_string().into(),
                teaches: None,
            };
            ledger.append_events(&run, vec![event], None).await
        }
    }))
    .await;
    assert!(written.iter().all(Result::is_ok));
    let events = ledger.read_events(&run, 0, 1000).await.expect("reads");
    let sequences: Vec<_> = events.iter().map(|event| event.sequence).collect();
    assert_eq!(sequences, (1..=500).collect::<Vec<_>>());
}

#[test]
fn a_run_is_looked_up_by_its_id() {
    let directory = directory();
    let connection = schema::open(&directory.path().join("ledger.db")).expect("opens");
    let query = RunQuery {
        run: Some("r".parse().expect("valid")),
        ..RunQuery::default()
    };
    let explain = format!("EXPLAIN QUERY PLAN {}", statements::find_runs(&query));
    let values = rusqlite::params!["r", None::<&str>, 0, None::<&str>, 1];
    let plan = connection.query_row(&explain, values, |row| row.get::<_, String>(3));
    let plan = plan.expect("is explained");
    assert!(
        plan.starts_with("SEARCH runs ") && plan.ends_with("(run=?)"),
        "{plan}"
    );
}

#[test]
fn a_file_that_is_no_database_is_left_alone() {
    let directory = directory();
    let path = directory.path().join("ledger.db");
    let text = "this is not a database, and long enough to be looked at as one".repeat(20);
    fs::write(&path, &text).expect("writes");
    let error = SqliteLedger::open(&path).expect_err("is no database");
    assert!(matches!(error, OpenLedgerError::Damaged { .. }), "{error}");
    assert_eq!(fs::read_to_string(&path).expect("reads"), text);
}

#[test]
fn a_database_of_a_newer_release_is_left_alone() {
    let directory = directory();
    let path = directory.path().join("ledger.db");
    let connection = Connection::open(&path).expect("opens");
    connection
        .pragma_update(None, "user_version", 99)
        .expect("writes");
    drop(connection);
    let error = SqliteLedger::open(&path).expect_err("is too new");
    assert!(
        matches!(
            error,
            OpenLedgerError::TooNew {
                found: 99,
                known: 11,
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn what_an_earlier_release_learnt_is_kept() {
    let directory = directory();
    let path = directory.path().join("ledger.db");
    let row = "INSERT INTO test_history (tenant, suite, test, expected_nanos, runs, failures, flakes, last_run)
        VALUES ('', 'unit', 'a', 100000000, 7, 1, 0, 5)";
    earlier(&path, 1, row);
    let ledger = SqliteLedger::open(&path).expect("is migrated");
    let tenant: TenantId = "".parse().expect("valid");
    let history = ledger.read_history(&tenant, None).await.expect("reads");
    let known = history.first().expect("is there");
    assert_eq!(
        (known.runs, known.failures, known.last_failure),
        (7, 1, None)
    );
    let suite = ledger.read_suite(&tenant, "unit", &Place::default()).await;
    let suite = suite.expect("reads");
    let timing = suite.tests.first().expect("is there").timing;
    assert_eq!(timing.expected.as_millis(), 100);
    assert_eq!(timing.spread.as_millis(), 50);
    assert_eq!(suite.batch_overhead, None);
}

#[tokio::test]
async fn runs_of_an_earlier_release_are_kept() {
    let directory = directory();
    let path = directory.path().join("ledger.db");
    let row = "INSERT INTO runs VALUES ('r', '', 'd', 'c', 'b', 7, 8, 'RELEASABLE', 1, 1, 0, 0, 0, 0, 0, 0)";
    earlier(&path, 3, row);
    let ledger = SqliteLedger::open(&path).expect("is migrated");
    let query = RunQuery {
        limit: 1,
        ..RunQuery::default()
    };
    let found = ledger.find_runs(query).await.expect("reads");
    let record = found.first().expect("is there");
    assert_eq!(record.new.committed_at, None);
    let end = record.end.expect("has ended");
    assert_eq!((end.counts.planned, end.times), (1, None));
    // What ended then has ended before all that ends from now on.
    assert_eq!(record.ended, Some(8));
}

#[tokio::test]
async fn what_verdicts_of_an_earlier_release_name_is_kept() {
    let directory = directory();
    let path = directory.path().join("ledger.db");
    let rows = "INSERT INTO runs (run, tenant, description, commit_id, branch, submitted_at, finished_at, verdict,
            planned, passed, flaky, failed, cached, skipped, not_run)
        VALUES ('other', '', '', 'c', '', 1, 2, 'RELEASABLE', 0, 0, 0, 0, 0, 0, 0),
            ('speaker', '', '', 'c', '', 1, 3, 'RELEASABLE', 0, 0, 0, 0, 0, 0, 0),
            ('elsewhere', 't', '', 'c', '', 1, 4, 'RELEASABLE', 0, 0, 0, 0, 0, 0, 0),
            ('dirty', '', '', '', '', 1, 5, 'RELEASABLE', 0, 0, 0, 0, 0, 0, 0),
            ('unnamed', '', '', '', '', 1, 6, 'RELEASABLE', 0, 0, 0, 0, 0, 0, 0);
        INSERT INTO verdicts VALUES ('', 'b1', 'c', 'speaker', 'RELEASABLE', NULL, '', 10, 20),
            ('', 'b2', '', 'dirty', 'RELEASABLE', NULL, '', 10, 20)";
    earlier(&path, 8, rows);
    let ledger = SqliteLedger::open(&path).expect("is migrated");
    let may_go = async |verdicts_since: u64| {
        let query = OldRunsQuery {
            ended_before: Timestamp::from_nanos(100),
            verdicts_since: Timestamp::from_nanos(verdicts_since),
            after: None,
            limit: 10,
        };
        let old = ledger.find_old_runs(query).await.expect("finds");
        let may_go = old.into_iter().filter(|old| old.may_go);
        may_go
            .map(|old| old.place.run.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(may_go(20).await, ["elsewhere", "unnamed"]);
    let all = ["speaker", "elsewhere", "dirty", "unnamed"];
    assert_eq!(may_go(21).await, all, "the last of its commit goes for all");
    drop(ledger);
    let connection = Connection::open(&path).expect("opens");
    let named = "SELECT group_concat(bundle || ' ' || run, ', ') FROM
        (SELECT bundle, run FROM verdict_runs ORDER BY bundle, run)";
    let named: String = connection
        .query_row(named, [], |row| row.get(0))
        .expect("reads");
    assert_eq!(named, "b1 other, b1 speaker, b2 dirty");
}

#[tokio::test]
async fn what_a_run_was_called_goes_with_it() {
    let directory = directory();
    let path = directory.path().join("ledger.db");
    let rows = "INSERT INTO runs (run, tenant, description, commit_id, branch, submitted_at, finished_at, verdict,
            planned, passed, flaky, failed, cached, skipped, not_run)
        VALUES ('old', '', 'told', '', '', 1, 2, 'RELEASABLE', 0, 0, 0, 0, 0, 0, 0),
            ('new', '', 'kept', '', '', 1, 9, 'RELEASABLE', 0, 0, 0, 0, 0, 0, 0)";
    earlier(&path, 8, rows);
    let ledger = SqliteLedger::open(&path).expect("is migrated");
    let step = Forgetting::Run {
        run: "old".parse().expect("valid"),
        ended_before: Timestamp::from_nanos(9),
        verdicts_since: Timestamp::EPOCH,
        now: Timestamp::from_nanos(100),
    };
    ledger.forget(step).await.expect("is forgotten");
    drop(ledger);
    let connection = Connection::open(&path).expect("opens");
    let called = "SELECT group_concat(run || ' ' || description, ', ') FROM
        (SELECT run, description FROM runs ORDER BY run)";
    let called: String = connection
        .query_row(called, [], |row| row.get(0))
        .expect("reads");
    assert_eq!(called, "new kept, old ");
}

#[tokio::test]
async fn a_commit_whose_name_is_very_long_is_cut() {
    let directory = directory();
    let path = directory.path().join("ledger.db");
    let name = "é".repeat(5000);
    let rows = format!(
        "INSERT INTO runs (run, tenant, description, commit_id, branch, submitted_at)
            VALUES ('r', '', '', '{name}', '', 1);
        INSERT INTO verdicts VALUES ('', '{}', '{name}', 'r', 'RELEASABLE', NULL, '', 10, 20)",
        regatta_model::Digest::of(b"bundle")
    );
    earlier(&path, 8, &rows);
    let ledger = SqliteLedger::open(&path).expect("is migrated");
    let cut = "é".repeat(256);
    let query = VerdictQuery {
        commit: Some(cut.clone()),
        limit: 10,
        ..VerdictQuery::default()
    };
    let verdicts = ledger.find_verdicts(query).await.expect("finds");
    let query = RunQuery {
        commit: Some(cut),
        limit: 10,
        ..RunQuery::default()
    };
    let runs = ledger.find_runs(query).await.expect("finds");
    assert_eq!((verdicts.len(), runs.len()), (1, 1));
}

#[test]
fn a_second_process_is_kept_out() {
    let directory = directory();
    let path = directory.path().join("ledger.db");
    let first = SqliteLedger::open(&path).expect("opens");
    let error = SqliteLedger::open(&path).expect_err("is in use");
    assert!(matches!(error, OpenLedgerError::Locked { .. }), "{error}");
    drop(first);
    SqliteLedger::open(&path).expect("is free again");
}

#[test]
fn a_path_that_leads_nowhere_is_named() {
    let directory = directory();
    let error = SqliteLedger::open(&directory.path().join("no/such/ledger.db"));
    let error = error.expect_err("leads nowhere");
    assert!(
        matches!(error, OpenLedgerError::Unreachable { .. }),
        "{error}"
    );
}
