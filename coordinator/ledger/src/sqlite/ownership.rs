//! Whose a database is. One that lies in a state directory may move with that, so that only what is named elsewhere
//! makes a difference.

use std::path::Path;

use rusqlite::{Connection, params};

use super::queries::{execute, read_all};
use super::schema::OpenLedgerError;
use crate::statements::{BEGIN_TERM, FIND_ANY_RUN, READ_OWNER, READ_STORAGE};
use crate::{CoordinatorIdentity, Inheritance, LedgerError, rows};

/// Takes the database for a coordinator, and remembers that one if it differs from the last.
pub(super) fn take(
    connection: &Connection,
    path: &Path,
    whose: &CoordinatorIdentity,
    inheritance: Inheritance,
) -> Result<(), OpenLedgerError> {
    let failed = |source| OpenLedgerError::Failed {
        path: path.to_owned(),
        source,
    };
    let owner = first(connection, READ_OWNER, rows::identity).map_err(failed)?;
    let checked = owner.as_ref().map(|owner| owner.check_successor(whose));
    let has_runs = || first(connection, FIND_ANY_RUN, rows::run).map(|run| run.is_some());
    match checked {
        Some(Ok(())) => return Ok(()),
        Some(Err(difference))
            if inheritance == Inheritance::OfTheSame && has_runs().map_err(failed)? =>
        {
            let path = path.to_owned();
            return Err(OpenLedgerError::Foreign { path, difference });
        }
        Some(Err(_)) | None => {}
    }
    let last = first(
        connection,
        "SELECT COALESCE(max(term), 0) FROM terms",
        |row| row.number(0),
    );
    let term = last.map_err(failed)?.unwrap_or(0) + 1;
    let begun = params![term, whose.url, whose.verdict_key, whose.storage];
    execute(connection, BEGIN_TERM, begun).map_err(failed)
}

/// Where the last coordinator that said where it stores things stores them.
pub(super) fn last_storage(
    connection: &Connection,
    path: &Path,
) -> Result<Option<String>, OpenLedgerError> {
    let storage = first(connection, READ_STORAGE, |row| row.text(0));
    storage.map_err(|source| OpenLedgerError::Failed {
        path: path.to_owned(),
        source,
    })
}

fn first<Answer>(
    connection: &Connection,
    statement: &str,
    decode: impl Fn(&dyn rows::Columns) -> Result<Answer, LedgerError>,
) -> Result<Option<Answer>, LedgerError> {
    let found = read_all(connection, statement, [], decode)?;
    Ok(found.into_iter().next())
}

#[cfg(test)]
mod tests {
    use regatta_model::Timestamp;

    use super::*;
    use crate::{Ledger as _, NewRun, SqliteLedger};

    fn identity(verdict_key: &str, storage: &str) -> CoordinatorIdentity {
        CoordinatorIdentity {
            url: "http://h:1".to_owned(),
            verdict_key: verdict_key.to_owned(),
            storage: storage.to_owned(),
        }
    }

    /// What is said if the database cannot be opened.
    fn open(path: &Path, whose: (&str, &str), inheritance: Inheritance) -> Result<(), String> {
        let opened = SqliteLedger::open_for(path, &identity(whose.0, whose.1), inheritance);
        opened.map(drop).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn a_file_with_runs_is_not_opened_for_another_storage_or_key_unless_that_is_meant() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("ledger.sqlite");
        let (first, second) = (("k", "file:///s"), ("k", "file:///t"));
        let last_storage = || SqliteLedger::last_storage(&path).expect("can be read");
        assert_eq!((last_storage(), path.exists()), (None, false));
        // Nothing names what is elsewhere yet.
        for whose in [first, second, first] {
            open(&path, whose, Inheritance::OfTheSame).expect("has no run");
        }
        let run = NewRun {
            run: "r".parse().expect("is an id"),
            tenant: "".parse().expect("is a name"),
            description: String::new(),
            commit: String::new(),
            branch: String::new(),
            submitted_at: Timestamp::EPOCH,
            committed_at: None,
        };
        let ledger = SqliteLedger::open(&path).expect("opens");
        ledger.start_run(run).await.expect("begins");
        drop(ledger);
        open(&path, first, Inheritance::OfTheSame).expect("is its own");
        for (whose, word) in [(second, "file:///t"), (("l", "file:///s"), "the key k")] {
            let refused = open(&path, whose, Inheritance::OfTheSame).expect_err("is another's");
            assert!(refused.contains(word), "{refused}");
            assert!(refused.contains("--adopt-ledger"), "{refused}");
        }
        assert_eq!(last_storage().as_deref(), Some("file:///s"));
        open(&path, second, Inheritance::OfAnyone).expect("it is meant");
        assert_eq!(last_storage().as_deref(), Some("file:///t"));
        open(&path, second, Inheritance::OfTheSame).expect("is its own now");
        open(&path, first, Inheritance::OfTheSame).expect_err("is another's now");
    }
}
