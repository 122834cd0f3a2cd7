//! Taking the database for this coordinator alone, and bringing it to the version that this release knows.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::address::PostgresAddress;
use super::dialect;
use super::failure::CallError;
use super::security::is_distrust;
use super::session::{ConnectError, OPEN_TIMEOUT, SCHEMA, Session, number};
use super::tenure::{LOCK, LOCK_HOLDER, Succession, end_if_silent, is_held, last_incumbent};
use super::value::Value;
use crate::rows::Columns;
use crate::sqlite::MIGRATIONS;
use crate::statements::{
    BEGIN_TERM, FIND_ANY_RUN, FORGET_TERMS, READ_NUMBER, READ_OWNER, READ_STORAGE, WRITE_NUMBER,
};
use crate::{CoordinatorIdentity, Inheritance, LedgerError, OtherIdentityError, rows};

/// How long to wait for another session that holds the lock: one whose process was killed ends at once.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
const LOCK_POLL: Duration = Duration::from_millis(50);
/// For how long a coordinator that lost its session for a moment may take the lock again before those that stand by.
const PRECEDENCE: Duration = Duration::from_secs(1);
/// How long migrations may take: a large table may have to be written anew.
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(60 * 60);
/// Under which name it is counted how often the database was taken.
const TERM: &str = "term";
/// Of how many terms it is remembered who had the database.
const REMEMBERED_TERMS: i64 = 1000;

/// Why a ledger in PostgreSQL cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenPostgresError {
    /// Nobody answers there. Check the address, and that the server runs.
    #[error(
        "{place} cannot be reached: {detail}; check the address, and that PostgreSQL runs there"
    )]
    Unreachable {
        /// Which database.
        place: String,
        /// What came back.
        detail: String,
    },
    /// It is not known to be the server that the address means.
    #[error(
        "{place} is not trusted: {detail}; check the host's name, and the file of the authority that signed the \
         server's certificate (sslrootcert)"
    )]
    Untrusted {
        /// Which database.
        place: String,
        /// What is wrong with the certificate, or with the authorities.
        detail: String,
    },
    /// The server does not let this user do what a ledger needs.
    #[error(
        "{place} refuses: {detail}; check the user, its password (PGPASSFILE), the database's name, and \
         that the user may create a schema there (GRANT CREATE ON DATABASE)"
    )]
    Refused {
        /// Which database.
        place: String,
        /// What the server said.
        detail: String,
    },
    /// Another coordinator has it. Stand by for that one, stop it, or use another database.
    #[error(
        "{place} is in use by another coordinator ({holder}); stop it, stand by for it (--standby) or choose \
         another database"
    )]
    Locked {
        /// Which database.
        place: String,
        /// Which session has it, as far as the database tells.
        holder: String,
        /// Whose session that is, as far as that is known.
        active: Option<Box<CoordinatorIdentity>>,
    },
    /// A newer release has written it. Run that release, or use another database.
    #[error(
        "{place} has version {found}, this release knows versions up to {known}; run a newer one"
    )]
    TooNew {
        /// Which database.
        place: String,
        /// The version found.
        found: usize,
        /// The last version known.
        known: usize,
    },
    /// Its texts cannot hold every character.
    #[error(
        "{place} has the encoding {found}; make a database with ENCODING 'UTF8' TEMPLATE template0"
    )]
    Encoding {
        /// Which database.
        place: String,
        /// The encoding found.
        found: String,
    },
    /// Its runs, and what verdicts keep, are another's. Give the coordinator what the last one had, or say that the move
    /// is meant.
    #[error(
        "the last coordinator with runs in {place} {difference}: what those runs and verdicts name would not be found; \
         give this one what that had (--storage, --verdict-key, --state-dir), or say with --adopt-ledger that the \
         ledger is to move"
    )]
    Foreign {
        /// Which database.
        place: String,
        /// How the last coordinator differs.
        difference: OtherIdentityError,
    },
    /// The database failed while it was opened.
    #[error("{place} cannot be used as a ledger")]
    Failed {
        /// Which database.
        place: String,
        /// What happened, and what to do.
        source: LedgerError,
    },
}

/// A session that holds the database's lock.
#[derive(Debug)]
pub(super) struct Holder {
    pub(super) session: Session,
    /// The server's process that has the lock, and does what the session asks for.
    pub(super) backend: i64,
}

/// Connects, takes the database for a coordinator, and migrates it. With the holder comes for the how manyeth
/// time the database was taken.
pub(super) async fn open(
    address: &PostgresAddress,
    heir: (&CoordinatorIdentity, Inheritance),
    succession: Succession,
) -> Result<(Holder, i64), OpenPostgresError> {
    let place = || address.place().to_owned();
    let session = connect(address).await?;
    let failed = |error: CallError| OpenPostgresError::Failed {
        place: place(),
        source: error.into_ledger_error(),
    };
    let encoding = "SELECT current_setting('server_encoding')";
    let found = session.batch(encoding).await.map_err(failed)?.concat();
    if found != "UTF8" {
        let place = place();
        return Err(OpenPostgresError::Encoding { place, found });
    }
    if succession == Succession::AfterSilence {
        // Before anybody's session is ended, and again once nobody else can begin a term.
        check_heir(&session, address.place(), heir).await?;
    }
    // One that was silent has no precedence over whoever has ended it.
    if succession == Succession::AfterSilence && !end_if_silent(&session).await {
        if is_held(&session).await.map_err(failed)? {
            return Err(locked(&session, address.place()).await);
        }
        sleep(PRECEDENCE).await;
    }
    let deadline = Instant::now() + LOCK_PATIENCE;
    let backend = loop {
        if let Some(backend) = take_lock(&session).await.map_err(failed)? {
            break backend;
        }
        if Instant::now() >= deadline {
            return Err(locked(&session, address.place()).await);
        }
        sleep(LOCK_POLL).await;
    };
    migrate(&session, address.place()).await?;
    check_heir(&session, address.place(), heir).await?;
    let term = begin_term(&session, heir.0).await.map_err(failed)?;
    Ok((Holder { session, backend }, term))
}

/// Sees that runs in the database could go on with whoever is to have it. Without runs nothing names what is elsewhere.
async fn check_heir(
    session: &Session,
    place: &str,
    (whose, inheritance): (&CoordinatorIdentity, Inheritance),
) -> Result<(), OpenPostgresError> {
    let failed = |error: CallError| OpenPostgresError::Failed {
        place: place.to_owned(),
        source: error.into_ledger_error(),
    };
    // Without a term there may not even be tables.
    if inheritance == Inheritance::OfAnyone || last_incumbent(session).await.is_none() {
        return Ok(());
    }
    let run = session.read_one(FIND_ANY_RUN, &[], rows::run).await;
    if run.map_err(failed)?.is_none() {
        return Ok(());
    }
    let owner = session.read_one(READ_OWNER, &[], rows::identity).await;
    let Some(owner) = owner.map_err(failed)? else {
        return Ok(());
    };
    let checked = owner.check_successor(whose);
    checked.map_err(|difference| OpenPostgresError::Foreign {
        place: place.to_owned(),
        difference,
    })
}

/// Where the last coordinator of the database that named its storage has that; nothing if none has. It takes nothing.
pub(super) async fn last_storage(
    address: &PostgresAddress,
) -> Result<Option<String>, OpenPostgresError> {
    let failed = |error: CallError| OpenPostgresError::Failed {
        place: address.place().to_owned(),
        source: error.into_ledger_error(),
    };
    let session = connect(address).await?;
    let exists = "SELECT to_regclass('terms') IS NOT NULL";
    if session.batch(exists).await.map_err(failed)?.concat() != "t" {
        return Ok(None);
    }
    let storage = |row: &dyn Columns| row.text(0);
    let read = session.read_one(READ_STORAGE, &[], storage).await;
    read.map_err(failed)
}

async fn connect(address: &PostgresAddress) -> Result<Session, OpenPostgresError> {
    let place = || address.place().to_owned();
    // The address bounds how long it takes to be let in, not how long it takes to be answered then.
    let opened = timeout(OPEN_TIMEOUT, Session::open(address)).await;
    let opened = opened.map_err(|_| OpenPostgresError::Unreachable {
        place: place(),
        detail: format!("no answer in {OPEN_TIMEOUT:?}"),
    })?;
    let session = opened.map_err(|error| {
        let (place, detail) = (place(), error.to_string());
        match &error {
            ConnectError::Authorities(_) => OpenPostgresError::Untrusted { place, detail },
            ConnectError::Server(error) if is_distrust(error) => {
                OpenPostgresError::Untrusted { place, detail }
            }
            ConnectError::Server(error) => {
                let said = error.as_db_error().map(|said| said.code().code());
                match said.is_some_and(is_refusal) {
                    true => OpenPostgresError::Refused { place, detail },
                    false => OpenPostgresError::Unreachable { place, detail },
                }
            }
        }
    })?;
    let settled = session.settle().await;
    settled.map_err(|error| OpenPostgresError::Unreachable {
        place: place(),
        detail: error.into_ledger_error().to_string(),
    })?;
    Ok(session)
}

/// Whether whoever asks has to change something: class 28 is who may come in, 3D000 a database that is not there,
/// 42501 a missing privilege (PostgreSQL, appendix A). A server that starts, stops or has too many connections says so in
/// other words.
fn is_refusal(code: &str) -> bool {
    code.starts_with("28") || code == "3D000" || code == "42501"
}

async fn locked(session: &Session, place: &str) -> OpenPostgresError {
    OpenPostgresError::Locked {
        place: place.to_owned(),
        holder: describe_holder(session).await,
        active: last_incumbent(session).await.map(Box::new),
    }
}

/// Takes the lock unless another session has it. It is this session's until that ends. The server's process
/// that has it then.
pub(super) async fn take_lock(session: &Session) -> Result<Option<i64>, CallError> {
    let take = format!("SELECT pg_try_advisory_lock({LOCK}), pg_backend_pid()");
    let row = session.batch(&take).await?;
    match row.first().map(String::as_str) {
        Some("t") => number(&row, 1).map(Some),
        Some(_) | None => Ok(None),
    }
}

async fn describe_holder(session: &Session) -> String {
    let select = format!(
        "SELECT concat_ws(', ', activity.application_name,
            'from ' || host(activity.client_addr), 'since ' || activity.backend_start)
         {}",
        *LOCK_HOLDER
    );
    let found = session.batch(&select).await.unwrap_or_default().concat();
    match found.is_empty() {
        true => "which the database does not show".to_owned(),
        false => found,
    }
}

async fn migrate(session: &Session, place: &str) -> Result<(), OpenPostgresError> {
    let failed = |error: CallError| OpenPostgresError::Failed {
        place: place.to_owned(),
        source: error.into_ledger_error(),
    };
    let exists = format!("SELECT to_regnamespace('{SCHEMA}') IS NOT NULL");
    if session.batch(&exists).await.map_err(failed)?.concat() != "t" {
        let create = format!("CREATE SCHEMA {SCHEMA}");
        let created = session.batch(&create).await;
        created.map_err(|error| OpenPostgresError::Refused {
            place: place.to_owned(),
            detail: error.into_ledger_error().to_string(),
        })?;
    }
    let version = "CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL);
        SELECT COALESCE(max(version), 0) FROM schema_version";
    let version = session.batch(version).await.map_err(failed)?;
    let version = number(&version, 0).map_err(failed)?;
    let (found, known) = (
        usize::try_from(version).unwrap_or(usize::MAX),
        MIGRATIONS.len(),
    );
    let Some(pending) = MIGRATIONS.get(found..) else {
        let place = place.to_owned();
        return Err(OpenPostgresError::TooNew {
            place,
            found,
            known,
        });
    };
    if pending.is_empty() {
        return Ok(());
    }
    let migrate = all_or_nothing(pending, known);
    let migrated = session.batch_within(MIGRATION_TIMEOUT, &migrate).await;
    migrated.map(drop).map_err(failed)
}

/// Every migration that is pending, in one transaction.
fn all_or_nothing(pending: &[&str], known: usize) -> String {
    let migrations = pending.iter().map(|it| dialect::migration(it));
    format!(
        "BEGIN; SET LOCAL statement_timeout = 0; {}
         DELETE FROM schema_version; INSERT INTO schema_version VALUES ({known}); COMMIT",
        migrations.collect::<String>()
    )
}

async fn begin_term(session: &Session, whose: &CoordinatorIdentity) -> Result<i64, CallError> {
    let term = read_term(session).await? + 1;
    session.batch("BEGIN").await?;
    let counted = [Value::text(TERM), Value::number(term)];
    session.execute(WRITE_NUMBER, &counted).await?;
    let begun = [
        Value::number(term),
        Value::text(&whose.url),
        Value::text(&whose.verdict_key),
        Value::text(&whose.storage),
    ];
    session.execute(BEGIN_TERM, &begun).await?;
    let forgotten = [Value::number(term - REMEMBERED_TERMS)];
    session.execute(FORGET_TERMS, &forgotten).await?;
    session.batch("COMMIT").await?;
    Ok(term)
}

/// For the how manyeth time the database was taken. If that is more than it was for a coordinator, another
/// has had the database since.
pub(super) async fn read_term(session: &Session) -> Result<i64, CallError> {
    let number = |row: &dyn Columns| row.number(0);
    let name = [Value::text(TERM)];
    let term = session.read_one(READ_NUMBER, &name, number).await?;
    Ok(term.unwrap_or(0))
}

/// The reserved fencing tokens, of a session that may read them.
pub(super) async fn read_reserved(session: &Session) -> Result<u64, CallError> {
    let name = Value::text(crate::statements::RESERVED_TOKENS);
    let number = |row: &dyn Columns| row.number(0);
    let stored = session.read_one(READ_NUMBER, &[name], number).await?;
    Ok(stored.map_or(0, rows::unsigned))
}
