//! A ledger in memory and one in a file answer the same to whatever they are asked.

mod damage;
mod operations;

use proptest::prelude::*;
use regatta_ledger::{MemoryLedger, SqliteLedger};
use rusqlite::Connection;

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn memory_and_sqlite_agree(operations in operations::operations(200)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let directory = tempfile::tempdir().expect("a directory");
        let sqlite = SqliteLedger::open(&directory.path().join("ledger.db")).expect("opens");
        let memory = MemoryLedger::new();
        runtime.expect("a runtime").block_on(operations::compare(&[&memory, &sqlite], operations));
    }
}

/// Changes a table that takes numbers alone, as a program does that writes elsewhere than it means to.
fn change(path: &std::path::Path, statements: &str) {
    let retype = |from: &str, to: &str| {
        format!(
            "PRAGMA writable_schema = ON;
             UPDATE sqlite_schema SET sql = replace(sql, '{from}', '{to}') WHERE name = 'test_history';
             PRAGMA writable_schema = RESET;"
        )
    };
    let connection = Connection::open(path).expect("opens");
    let all = [
        &retype("STRICT, WITHOUT ROWID", "WITHOUT ROWID"),
        statements,
        &retype("WITHOUT ROWID", "STRICT, WITHOUT ROWID"),
    ];
    for statements in all {
        connection.execute_batch(statements).expect("writes");
    }
}

#[tokio::test]
async fn a_damaged_test_in_sqlite_keeps_no_event_from_being_stored() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("ledger.db");
    let open = || SqliteLedger::open(&path).expect("opens");
    damage::learn(&open()).await;
    let of = format!("WHERE test = '{}'", damage::DAMAGED);
    change(
        &path,
        &format!("UPDATE test_history SET runs = 'many' {of}"),
    );
    damage::append(&open()).await;
    change(&path, &format!("UPDATE test_history SET runs = 1 {of}"));
    damage::learn_again(&open()).await;
}
