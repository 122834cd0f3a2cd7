//! Who gets a database, and who does not.

use regatta_ledger::{Ledger, OpenPostgresError, PostgresAddress, PostgresLedger};

use super::open;
use super::server::{DATABASE, PostgresServer, USER};

async fn refused(url: &str) -> OpenPostgresError {
    let address: PostgresAddress = url.parse().expect("an address");
    PostgresLedger::open(address)
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
    let other = PostgresLedger::open(other).await.expect("opens");
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
