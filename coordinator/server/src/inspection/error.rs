//! What keeps somebody from looking through a store, or from mending it.

use std::io;
use std::path::PathBuf;

use regatta_cas::{OpenStoreError, StoreError};

use crate::ledger::LedgerOpeningError;
use crate::state_directory::StateDirectoryError;

/// Why a store cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// There is none there. Name the right directory.
    #[error(
        "{} is no coordinator's state directory; name it with --state-dir",
        directory.display()
    )]
    NoState {
        /// The directory.
        directory: PathBuf,
    },
    /// There is no storage. Name the right one.
    #[error(
        "no coordinator stores anything at {url}; name its storage with --storage, as it was told it, or leave that out \
         if it stores in its state directory"
    )]
    NoStorage {
        /// Where there is none.
        url: String,
    },
    /// The state directory is that of a coordinator with another storage. Name the right one of them.
    #[error(
        "the coordinator of {} stores at {theirs}, not at {ours}: it knows nothing of that; name the right one with \
         --state-dir, or that storage with --storage",
        state.display()
    )]
    NotItsStorage {
        /// Its state directory.
        state: PathBuf,
        /// Where it stores.
        theirs: String,
        /// Where it was said to.
        ours: String,
    },
    /// Nothing can be mended while a coordinator runs. Stop it, or look without mending.
    #[error("nothing can be repaired while a coordinator runs")]
    Busy(#[from] StateDirectoryError),
    /// The ledger cannot be had: another coordinator may be working. Stop it, or look without mending.
    #[error("nothing can be repaired while a coordinator may run")]
    Ledger(#[from] LedgerOpeningError),
    /// Other coordinators may use the storage. Name what they share.
    #[error(
        "coordinators that share a ledger may use this storage: name it with --ledger, as they were told it, so that \
         none of them works while it is repaired"
    )]
    LedgerNotNamed,
    /// The ledger is that of another storage. Name the right one of them.
    #[error(
        "the ledger is that of coordinators that store at {theirs}, and {ours} is what was to be repaired: name that \
         storage with --storage, or this one's ledger with --ledger; one in the state directory needs none"
    )]
    OtherLedger {
        /// Where its coordinators store.
        theirs: String,
        /// What was to be repaired.
        ours: String,
    },
    /// The storage cannot be opened.
    #[error("cannot open the storage")]
    Open(#[from] OpenStoreError),
    /// The storage does not answer.
    #[error("cannot read the storage")]
    Store(#[from] StoreError),
    /// A file of the state directory cannot be read or written.
    #[error("cannot use {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What came back.
        source: io::Error,
    },
}
