//! The ledger in a real PostgreSQL. `cargo xtask test` turns these tests on (feature `postgres-tests`), and
//! gets Debian's `postgresql` for them.

#[path = "../agreement/damage.rs"]
mod damage;
mod opening;
#[path = "../agreement/operations.rs"]
mod operations;
mod outages;
mod proxy;
mod security;
mod server;
mod small_disk;
mod standing_by;

use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use regatta_ledger::{
    CoordinatorIdentity, Inheritance, Ledger, MemoryLedger, Place, PostgresLedger, RunQuery,
    SqliteLedger, StoredEvent, SuiteObservation, TestObservation, conformance,
};
use regatta_model::{RunId, TenantId, Timestamp};
use server::{DATABASE, PostgresServer};
use tokio::task::JoinSet;

/// Opens the database that every server has.
async fn open(server: &PostgresServer) -> PostgresLedger {
    let address = server.url(DATABASE).parse().expect("an address");
    let nobody = CoordinatorIdentity::default();
    PostgresLedger::open(address, &nobody, Inheritance::OfTheSame)
        .await
        .expect("opens")
}

#[tokio::test]
async fn it_passes_the_suite() {
    let server = PostgresServer::start();
    conformance::check(&open(&server).await).await;
}

/// Among many runs, even by a plan that is made for any of them: what the server counts tells which way it went.
#[tokio::test]
async fn a_run_is_looked_up_by_its_id() {
    let server = PostgresServer::with_settings(&["plan_cache_mode=force_generic_plan"]);
    let ledger = open(&server).await;
    let insert =
        "INSERT INTO regatta.runs (run, tenant, description, commit_id, branch, submitted_at)
        SELECT 'r' || number, '', '', '', '', number FROM generate_series(1, 10000) AS number;
        ANALYZE regatta.runs";
    server.sql(insert);
    let ways = || {
        let by_id = "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'runs_pkey'";
        let others = "SELECT sum(idx_scan) FROM pg_stat_user_indexes
            WHERE relname = 'runs' AND indexrelname <> 'runs_pkey'
            UNION ALL SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'runs'";
        (server.sql(by_id), server.sql(others))
    };
    let before = ways();
    let query = RunQuery {
        run: Some("r5000".parse().expect("valid")),
        limit: 1,
        ..RunQuery::default()
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    // The server counts what a session did once that is some seconds old, or does more.
    while ways() == before {
        assert!(Instant::now() < deadline, "nothing is counted: {before:?}");
        let found = ledger.find_runs(query.clone()).await.expect("finds");
        assert_eq!(found.len(), 1);
    }
    let (by_id, others) = ways();
    assert_eq!(others, before.1, "the table was read in another way");
    assert_ne!(by_id, before.0);
}

/// Each of sixteen writers appends to its own run and to one of all, and reserves.
#[tokio::test]
async fn sixteen_writers_lose_nothing() {
    let server = PostgresServer::start();
    let ledger = Arc::new(open(&server).await);
    let mut writers = JoinSet::new();
    for writer in 0..16_u64 {
        let ledger = Arc::clone(&ledger);
        writers.spawn(async move {
            let own: RunId = format!("r{writer}").parse().expect("valid");
            let shared: RunId = "shared".parse().expect("valid");
            for number in 1..=50 {
                let event = |sequence| StoredEvent {
                    sequence,
                    bytes: format!("{writer} {number}").into(),
                    teaches: None,
                };
                let appended = ledger.append_events(&own, vec![event(number)], None).await;
                appended.expect("appends");
                let shared = ledger.append_events(&shared, vec![event(16 * number + writer)], None);
                shared.await.expect("appends");
                ledger
                    .reserve_tokens(16 * number + writer)
                    .await
                    .expect("reserves");
            }
        });
    }
    writers.join_all().await;
    for writer in 0..16 {
        let own: RunId = format!("r{writer}").parse().expect("valid");
        let events = ledger.read_events(&own, 0, 1000).await.expect("reads");
        let sequences: Vec<_> = events.iter().map(|event| event.sequence).collect();
        assert_eq!(sequences, (1..=50).collect::<Vec<_>>());
    }
    let shared: RunId = "shared".parse().expect("valid");
    assert_eq!(
        ledger
            .read_events(&shared, 0, 1000)
            .await
            .map(|it| it.len()),
        Ok(800)
    );
    assert_eq!(ledger.reserved_tokens().await, Ok(815));
}

/// As many as may be imported at once, into tables of which the server knows nothing yet: it gives up on
/// statements that compare each test with each.
#[tokio::test]
async fn a_suite_of_ten_thousand_tests_is_learnt_and_read() {
    let server = PostgresServer::with_settings(&["autovacuum=off"]);
    let ledger = open(&server).await;
    let tests = (0..10_000).map(|number| TestObservation {
        test: format!("test-{number}"),
        duration: Duration::from_millis(number),
        failed: false,
        flaky: false,
        finished_at: Timestamp::EPOCH,
        key: None,
        input_root: None,
    });
    let tests: Vec<_> = tests.collect();
    let tenant: TenantId = "".parse().expect("valid");
    for branch in ["main", "main", "other"] {
        let seen = SuiteObservation {
            tenant: tenant.clone(),
            suite: "s".to_owned(),
            place: Place {
                image: "i".to_owned(),
                branch: branch.to_owned(),
            },
            tests: tests.clone(),
            batch_overhead: None,
        };
        let place = seen.place.clone();
        ledger.observe_suite(seen).await.expect("learns");
        let known = ledger.read_suite(&tenant, "s", &place).await;
        assert_eq!(known.expect("reads").tests.len(), tests.len());
    }
}

#[test]
fn memory_sqlite_and_postgres_agree() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime");
    let server = PostgresServer::with_settings(&["fsync=off"]);
    let ledger = runtime.block_on(open(&server));
    let config = ProptestConfig {
        cases: 16,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    proptest!(config, |(operations in operations::operations(200))| {
        server.sql(
            "TRUNCATE regatta.runs, regatta.events, regatta.test_history, regatta.test_timings, \
             regatta.suite_history, regatta.verdicts, regatta.verdict_artefacts, regatta.verdict_runs; \
             DELETE FROM regatta.numbers WHERE name <> 'term'",
        );
        let directory = tempfile::tempdir().expect("a directory");
        let sqlite = SqliteLedger::open(&directory.path().join("ledger.db")).expect("opens");
        let memory = MemoryLedger::new();
        runtime.block_on(operations::compare(&[&memory, &sqlite, &ledger], operations));
    });
}

/// What a statement of PostgreSQL's says of a damaged page, and what it says of one that is read all the same.
#[tokio::test]
async fn a_damaged_test_in_postgres_keeps_no_event_from_being_stored() {
    let unreadable = (
        "CREATE FUNCTION regatta.fail() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN RAISE 'invalid page in block 7' USING ERRCODE = 'XX001'; END $$;
         CREATE TRIGGER fail BEFORE INSERT ON regatta.test_history FOR EACH ROW
             WHEN (NEW.test = 'damaged') EXECUTE FUNCTION regatta.fail()",
        "DROP TRIGGER fail ON regatta.test_history",
    );
    let empty = (
        "ALTER TABLE regatta.test_history ALTER runs DROP NOT NULL;
         UPDATE regatta.test_history SET runs = NULL WHERE test = 'damaged'",
        "UPDATE regatta.test_history SET runs = 1 WHERE test = 'damaged'",
    );
    for (damaged, repaired) in [unreadable, empty] {
        let server = PostgresServer::start();
        let ledger = open(&server).await;
        damage::learn(&ledger).await;
        server.sql(damaged);
        damage::append(&ledger).await;
        server.sql(repaired);
        damage::learn_again(&ledger).await;
    }
}
