//! A ledger in memory and one in a file answer the same to whatever they are asked.

mod operations;

use proptest::prelude::*;
use regatta_ledger::{MemoryLedger, SqliteLedger};

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
