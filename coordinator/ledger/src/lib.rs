//! What must be remembered: runs, their events, what tests were seen to do, which verdicts were given, and which
//! fencing tokens were used.
//!
//! The [`Ledger`] port hides where: [`SqliteLedger`] in a file, [`PostgresLedger`] in a PostgreSQL database,
//! [`MemoryLedger`] nowhere, for tests. All adapters pass the suite in `conformance` (feature `testing`).
//!
//! Invariants:
//! - A method that has returned `Ok` has made durable what it was given; several callers share one
//!   transaction, so that durability costs one write to disk for all of them.
//! - Events of a run are never changed, and read back in order, byte for byte.
//! - Of a forgotten run nothing is told, and nothing is taken, though rows of it may be there yet.
//! - Reserved tokens never decrease.
//! - SQL is written here and nowhere else in the house: what every database understands in `statements`,
//!   what its rows mean in `rows`. Events are opaque here: this crate knows no protocol.

mod forgetting;
mod history;
mod identity;
mod memory_ledger;
mod port;
mod postgres;
mod rows;
mod sqlite;
mod statements;
mod verdicts;

#[cfg(any(test, feature = "testing"))]
pub mod conformance;

pub use forgetting::{Forgetting, ForgottenSubject, OldRun, OldRunPlace, OldRunsQuery};
pub use history::{
    KnownTest, Place, SuiteKnowledge, SuiteObservation, TestHistory, TestObservation, Timing,
};
pub use identity::{CoordinatorIdentity, Inheritance, OtherIdentityError};
pub use memory_ledger::MemoryLedger;
pub use port::{
    Ledger, LedgerError, NewRun, RunCounts, RunEnd, RunQuery, RunRecord, RunTimes, StoredEvent,
};
pub use postgres::{
    LedgerTenure, OpenPostgresError, ParseAddressError, PostgresAddress, PostgresLedger,
    ReadPasswordFileError, SILENCE_LIMIT,
};
pub use sqlite::{OpenLedgerError, SqliteLedger};
pub use verdicts::{GivenVerdict, KeptBlob, NamedArtefact, VerdictQuery};
