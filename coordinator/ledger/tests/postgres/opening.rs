//! Who gets a database, and who does not.

use std::time::{Duration, Instant};

use regatta_ledger::{
    CoordinatorIdentity, Inheritance, Ledger, OpenPostgresError, PostgresAddress, PostgresLedger,
    RunQuery,
};

use super::open;
use super::server::{DATABASE, PostgresServer, USER};

async fn refused(url: &str) -> OpenPostgresError {
    let address: PostgresAddress = url.parse().expect("an address");
    PostgresLedger::open(
        address,
        &CoordinatorIdentity::default(),
        Inheritance::OfTheSame,
    )
    .await
    .expect_err("cannot be opened")
}

#[tokio::test]
async fn what_was_written_outlives_the_process_and_the_database_is_free_again() {
    let server = PostgresServer::start();
    let ledger = open(&server).await;
    ledger.reserve_tokens(4096).await.expect("reserves");
    let error = refused(&server.url(DATABASE)).await;
    assert!(matches!(error, OpenPostgresError::Locked { .. }), "{error}");
    let text = error.to_string();
    let words = format!("regatta coordinator, process {}", std::process::id());
    assert!(text.contains(&words) && text.contains("stop it"), "{text}");
    drop(ledger);
    let ledger = open(&server).await;
    assert_eq!(ledger.reserved_tokens().await, Ok(4096));
    // Another database of the same server is another ledger.
    server.sql("CREATE DATABASE other");
    let other = server.url("other").parse().expect("an address");
    let nobody = CoordinatorIdentity::default();
    let other = PostgresLedger::open(other, &nobody, Inheritance::OfTheSame)
        .await
        .expect("opens");
    assert_eq!(other.reserved_tokens().await, Ok(0));
}

#[tokio::test]
async fn a_database_that_will_not_do_is_refused_with_what_to_do() {
    let server = PostgresServer::start();
    let error = refused(&server.url("nowhere")).await;
    assert!(
        matches!(error, OpenPostgresError::Refused { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("does not exist"), "{error}");

    server.sql("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0");
    let error = refused(&server.url("latin")).await;
    assert!(
        matches!(error, OpenPostgresError::Encoding { .. }),
        "{error}"
    );

    server.sql("CREATE ROLE guest LOGIN");
    let as_guest = server
        .url(DATABASE)
        .replace(&format!("//{USER}@"), "//guest@");
    let error = refused(&as_guest).await.to_string();
    assert!(error.contains("GRANT CREATE ON DATABASE"), "{error}");

    drop(open(&server).await);
    server.sql("UPDATE regatta.schema_version SET version = 99");
    // The first one may be leaving yet.
    let error = refused(&server.url(DATABASE)).await;
    let too_new = matches!(error, OpenPostgresError::TooNew { found: 99, .. });
    assert!(too_new, "{error}");
    assert_eq!(
        server.sql("SELECT version FROM regatta.schema_version"),
        "99"
    );

    let error = refused("postgres://u@/d?host=/no/such/directory").await;
    assert!(
        matches!(error, OpenPostgresError::Unreachable { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_not_waited_for_for_ever() {
    let server = PostgresServer::start();
    server.send("STOP");
    let asked = Instant::now();
    let error = refused(&server.url(DATABASE)).await;
    server.send("CONT");
    assert!(error.to_string().contains("no answer"), "{error}");
    assert!(asked.elapsed() < Duration::from_secs(30));
}

/// What a release that knew the first migration alone would have left behind.
const FIRST_VERSION: &str = r#"
    CREATE SCHEMA regatta;
    SET search_path = regatta;
    CREATE TABLE schema_version (version BIGINT NOT NULL);
    INSERT INTO schema_version VALUES (1);
    CREATE TABLE runs (
        run TEXT COLLATE "C" PRIMARY KEY, tenant TEXT COLLATE "C" NOT NULL,
        description TEXT COLLATE "C" NOT NULL, commit_id TEXT COLLATE "C" NOT NULL,
        branch TEXT COLLATE "C" NOT NULL, submitted_at BIGINT NOT NULL, finished_at BIGINT,
        verdict TEXT COLLATE "C", planned BIGINT, passed BIGINT, flaky BIGINT, failed BIGINT,
        cached BIGINT, skipped BIGINT, not_run BIGINT, rowid BIGINT GENERATED ALWAYS AS IDENTITY
    );
    CREATE TABLE events (
        run TEXT COLLATE "C" NOT NULL, sequence BIGINT NOT NULL, bytes BYTEA NOT NULL,
        PRIMARY KEY (run, sequence)
    );
    CREATE TABLE test_history (
        tenant TEXT COLLATE "C" NOT NULL, suite TEXT COLLATE "C" NOT NULL, test TEXT COLLATE "C" NOT NULL,
        expected_nanos BIGINT NOT NULL, runs BIGINT NOT NULL, failures BIGINT NOT NULL,
        flakes BIGINT NOT NULL, last_run BIGINT NOT NULL, last_key TEXT COLLATE "C",
        PRIMARY KEY (tenant, suite, test)
    );
    CREATE TABLE numbers (
        name TEXT COLLATE "C" PRIMARY KEY, value BIGINT NOT NULL,
        rowid BIGINT GENERATED ALWAYS AS IDENTITY
    );
    INSERT INTO runs (run, tenant, description, commit_id, branch, submitted_at)
        VALUES ('r', '', 'd', 'c', 'b', 1);
    INSERT INTO test_history VALUES ('', 'unit', 'a', 100000000, 7, 1, 0, 5, NULL);
    INSERT INTO numbers (name, value) VALUES ('reserved_tokens', 4096);
"#;

#[tokio::test]
async fn what_an_earlier_release_learnt_is_kept() {
    let server = PostgresServer::start();
    server.sql(FIRST_VERSION);
    let ledger = open(&server).await;
    assert_eq!(ledger.reserved_tokens().await, Ok(4096));
    let tenant = "".parse().expect("valid");
    let history = ledger.read_history(&tenant, None).await.expect("reads");
    let known = history
        .iter()
        .map(|it| (it.runs, it.timing.spread.as_millis()));
    assert_eq!(known.collect::<Vec<_>>(), [(7, 50)]);
    let all = RunQuery {
        limit: 10,
        ..RunQuery::default()
    };
    assert_eq!(ledger.find_runs(all).await.map(|runs| runs.len()), Ok(1));
}

/// Longer than anything that an index holds, and not to be compressed.
#[tokio::test]
async fn a_commit_whose_name_is_too_long_for_an_index_is_cut() {
    let server = PostgresServer::start();
    server.sql(FIRST_VERSION);
    let insert = "INSERT INTO regatta.runs (run, tenant, description, commit_id, branch, submitted_at)
        SELECT 'long', '', '', string_agg(md5(part::TEXT), ''), '', 2 FROM generate_series(1, 300) AS part";
    server.sql(insert);
    let name = "SELECT left(commit_id, 256) FROM regatta.runs WHERE run = 'long'";
    let name = server.sql(name);
    let ledger = open(&server).await;
    let of_commit = RunQuery {
        commit: Some(name.clone()),
        limit: 10,
        ..RunQuery::default()
    };
    let found = ledger.find_runs(of_commit).await.expect("finds");
    let found: Vec<_> = found.iter().map(|it| it.new.run.as_str()).collect();
    assert_eq!((found, name.len()), (vec!["long"], 256));
}
