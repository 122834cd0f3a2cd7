//! Opening the database, and bringing it to the version that this release knows.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode};

use crate::{LedgerError, OtherIdentityError};

/// How long to wait for another process that holds the database.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

/// Each brings the database from the version of its index to the next; `user_version` counts them.
/// What has been released is never edited: a change is one more of them. They are PostgreSQL's as well, once
/// `postgres::dialect` has put them into its words: keep to what it knows.
pub(crate) const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE runs (
        run TEXT PRIMARY KEY,
        tenant TEXT NOT NULL,
        description TEXT NOT NULL,
        commit_id TEXT NOT NULL,
        branch TEXT NOT NULL,
        submitted_at INTEGER NOT NULL,
        finished_at INTEGER,
        verdict TEXT,
        planned INTEGER, passed INTEGER, flaky INTEGER, failed INTEGER,
        cached INTEGER, skipped INTEGER, not_run INTEGER
    ) STRICT;
    CREATE INDEX runs_by_time ON runs (submitted_at);
    CREATE INDEX active_runs ON runs (submitted_at) WHERE finished_at IS NULL;
    CREATE TABLE events (
        run TEXT NOT NULL,
        sequence INTEGER NOT NULL,
        bytes BLOB NOT NULL,
        PRIMARY KEY (run, sequence)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE test_history (
        tenant TEXT NOT NULL,
        suite TEXT NOT NULL,
        test TEXT NOT NULL,
        expected_nanos INTEGER NOT NULL,
        runs INTEGER NOT NULL,
        failures INTEGER NOT NULL,
        flakes INTEGER NOT NULL,
        last_run INTEGER NOT NULL,
        last_key TEXT,
        PRIMARY KEY (tenant, suite, test)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE numbers (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
",
    "
    ALTER TABLE runs ADD COLUMN quarantined INTEGER NOT NULL DEFAULT 0;
",
    "
    ALTER TABLE test_history ADD COLUMN spread_nanos INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE test_history ADD COLUMN last_failure INTEGER;
    UPDATE test_history SET spread_nanos = expected_nanos / 2;
    CREATE TABLE test_timings (
        tenant TEXT NOT NULL,
        suite TEXT NOT NULL,
        test TEXT NOT NULL,
        image TEXT NOT NULL,
        branch TEXT NOT NULL,
        expected_nanos INTEGER NOT NULL,
        spread_nanos INTEGER NOT NULL,
        last_run INTEGER NOT NULL,
        PRIMARY KEY (tenant, suite, test, image, branch)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE suite_history (
        tenant TEXT NOT NULL,
        suite TEXT NOT NULL,
        overhead_nanos INTEGER NOT NULL,
        PRIMARY KEY (tenant, suite)
    ) STRICT, WITHOUT ROWID;
",
    "
    ALTER TABLE runs ADD COLUMN committed_at INTEGER;
    ALTER TABLE runs ADD COLUMN queued_nanos INTEGER;
    ALTER TABLE runs ADD COLUMN worked_nanos INTEGER;
",
    "
    CREATE TABLE terms (
        term INTEGER PRIMARY KEY,
        url TEXT NOT NULL,
        verdict_key TEXT NOT NULL,
        storage TEXT NOT NULL
    ) STRICT;
",
    "
    ALTER TABLE runs ADD COLUMN ended INTEGER;
    UPDATE runs SET ended = finished_at;
    CREATE INDEX runs_by_end ON runs (ended);
",
    "
    ALTER TABLE runs ADD COLUMN took_nanos INTEGER;
",
    "
    CREATE TABLE verdicts (
        tenant TEXT NOT NULL,
        bundle TEXT NOT NULL,
        commit_id TEXT NOT NULL,
        run TEXT NOT NULL,
        verdict TEXT NOT NULL,
        policy TEXT,
        public_key TEXT NOT NULL,
        first_given_at INTEGER NOT NULL,
        last_given_at INTEGER NOT NULL,
        PRIMARY KEY (tenant, bundle)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE verdict_artefacts (
        tenant TEXT NOT NULL,
        bundle TEXT NOT NULL,
        place INTEGER NOT NULL,
        name TEXT NOT NULL,
        digest TEXT NOT NULL,
        is_tree INTEGER NOT NULL,
        PRIMARY KEY (tenant, bundle, place)
    ) STRICT, WITHOUT ROWID;
",
    // Which runs other than the one that speaks first are named by verdicts that were kept before, nobody knows here:
    // they are among those of the same commit.
    // PostgreSQL has no index of a text that is longer than some two thousand bytes.
    "
    UPDATE runs SET commit_id = substr(commit_id, 1, 256) WHERE length(commit_id) > 256;
    UPDATE verdicts SET commit_id = substr(commit_id, 1, 256) WHERE length(commit_id) > 256;
    ALTER TABLE runs ADD COLUMN forgotten_at INTEGER;
    ALTER TABLE runs ADD COLUMN half_gone INTEGER NOT NULL DEFAULT 0;
    CREATE INDEX runs_by_finish ON runs (finished_at, run) WHERE forgotten_at IS NULL;
    CREATE INDEX runs_by_commit ON runs (tenant, commit_id, finished_at, run);
    CREATE INDEX forgotten_runs ON runs (forgotten_at, run) WHERE forgotten_at IS NOT NULL;
    CREATE INDEX half_gone_runs ON runs (run) WHERE half_gone = 1;
    CREATE TABLE verdict_runs (
        tenant TEXT NOT NULL,
        bundle TEXT NOT NULL,
        run TEXT NOT NULL,
        PRIMARY KEY (tenant, bundle, run)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX verdicts_by_run ON verdict_runs (run);
    INSERT INTO verdict_runs (tenant, bundle, run)
        SELECT tenant, bundle, run FROM verdicts
        UNION
        SELECT verdicts.tenant, verdicts.bundle, runs.run FROM verdicts
        JOIN runs ON runs.tenant = verdicts.tenant AND runs.commit_id = verdicts.commit_id
        WHERE verdicts.commit_id <> '';
",
    "
    ALTER TABLE test_history ADD COLUMN last_input_root TEXT;
",
    "
    ALTER TABLE test_history ADD COLUMN last_failed_key TEXT;
",
];

/// Why a ledger cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenLedgerError {
    /// The file cannot be opened or made. Check the path and its permissions.
    #[error("{path} cannot be opened: {detail}")]
    Unreachable {
        /// Which file.
        path: PathBuf,
        /// What the database said.
        detail: String,
    },
    /// The file is no database, or a damaged one. Restore it, or move it away to start anew: only
    /// history is lost.
    #[error("{path} is damaged or not a ledger ({detail}); restore it or move it away")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What the database said.
        detail: String,
    },
    /// Another process has it. Stop that one, or use another file.
    #[error("{path} is in use by another process; stop it or choose another file")]
    Locked {
        /// Which file.
        path: PathBuf,
    },
    /// A newer release has written it. Run that release, or move the file away.
    #[error(
        "{path} has version {found}, this release knows versions up to {known}; run a newer one"
    )]
    TooNew {
        /// Which file.
        path: PathBuf,
        /// The version found.
        found: usize,
        /// The last version known.
        known: usize,
    },
    /// Its runs, and what verdicts keep, are another's. Give the coordinator what the last one had, or say that the move
    /// is meant.
    #[error(
        "the last coordinator with runs in {} {difference}: what those runs and verdicts name would not be found; give \
         this one what that had (--storage, --verdict-key), or say with --adopt-ledger that the ledger is to move",
        path.display()
    )]
    Foreign {
        /// Which file.
        path: PathBuf,
        /// How the last coordinator differs.
        difference: OtherIdentityError,
    },
    /// It could not be read or written whose it is.
    #[error("{} cannot be used as a ledger", path.display())]
    Failed {
        /// Which file.
        path: PathBuf,
        /// What happened, and what to do.
        source: LedgerError,
    },
    /// The system gives no more threads.
    #[error("the ledger's thread could not be started: {detail}")]
    Thread {
        /// What the system said.
        detail: String,
    },
}

/// Opens, checks and migrates a database, and keeps other processes out of it.
pub(super) fn open(path: &Path) -> Result<Connection, OpenLedgerError> {
    let explain = |error: rusqlite::Error| explain(path, &error);
    let mut connection = Connection::open(path).map_err(explain)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(explain)?;
    // Two coordinators on one ledger would grant each other's fencing tokens.
    connection
        .pragma_update(None, "locking_mode", "EXCLUSIVE")
        .map_err(explain)?;
    connection
        .pragma_update(None, "journal_mode", "WAL")
        .map_err(explain)?;
    connection
        .pragma_update(None, "synchronous", "FULL")
        .map_err(explain)?;
    migrate(&mut connection, path)?;
    Ok(connection)
}

fn migrate(connection: &mut Connection, path: &Path) -> Result<(), OpenLedgerError> {
    let explain = |error: rusqlite::Error| explain(path, &error);
    // The exclusive lock is taken with the first write, so there is one even if nothing is to migrate.
    let behavior = rusqlite::TransactionBehavior::Immediate;
    let transaction = connection
        .transaction_with_behavior(behavior)
        .map_err(explain)?;
    let version: u32 = transaction
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(explain)?;
    let found = usize::try_from(version).unwrap_or(usize::MAX);
    let known = MIGRATIONS.len();
    let pending = MIGRATIONS
        .get(found..)
        .ok_or_else(|| OpenLedgerError::TooNew {
            path: path.to_owned(),
            found,
            known,
        })?;
    for migration in pending {
        transaction.execute_batch(migration).map_err(explain)?;
    }
    transaction
        .pragma_update(
            None,
            "user_version",
            u32::try_from(known).unwrap_or(u32::MAX),
        )
        .map_err(explain)?;
    transaction.commit().map_err(explain)
}

fn explain(path: &Path, error: &rusqlite::Error) -> OpenLedgerError {
    let (path, detail) = (path.to_owned(), error.to_string());
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            OpenLedgerError::Locked { path }
        }
        Some(
            ErrorCode::CannotOpen
            | ErrorCode::PermissionDenied
            | ErrorCode::ReadOnly
            | ErrorCode::DiskFull
            | ErrorCode::SystemIoFailure,
        ) => OpenLedgerError::Unreachable { path, detail },
        Some(_) | None => OpenLedgerError::Damaged { path, detail },
    }
}
