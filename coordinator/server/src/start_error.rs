//! Why a coordinator cannot start.

use std::io;
use std::net::SocketAddr;

use regatta_cas::{OpenStoreError, StoreError};
use regatta_model::TenantId;

use crate::action_plan::InvalidPropertyError;
use crate::dispatch;
use crate::ledger::LedgerOpeningError;
use crate::runs::StartRunsError;
use crate::state_directory::StateDirectoryError;
use crate::verdict_key::VerdictKeyError;

/// Why a coordinator cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is not this machine's own.
    #[error(
        "{address} can be reached from other machines, which needs transport security and \
         authentication; Regatta has neither yet: listen on 127.0.0.1 or [::1]"
    )]
    NotLoopback {
        /// The address.
        address: SocketAddr,
    },
    /// The address is taken.
    #[error("{address} is in use; stop what listens there or choose another port (0 takes any)")]
    AddressInUse {
        /// The address.
        address: SocketAddr,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What came back.
        source: io::Error,
    },
    /// What a tenant's actions are to ask for cannot be understood. Fix it.
    #[error("the properties of tenant `{tenant}` cannot be understood")]
    TenantProperties {
        /// The tenant.
        tenant: TenantId,
        /// What is wrong.
        source: InvalidPropertyError,
    },
    /// The state directory cannot be used.
    #[error(transparent)]
    StateDirectory(#[from] StateDirectoryError),
    /// The storage cannot be opened.
    #[error("cannot open the storage")]
    Storage(#[from] OpenStoreError),
    /// The ledger cannot be opened.
    #[error("cannot open the ledger")]
    Ledger(#[from] LedgerOpeningError),
    /// It cannot be remembered what is used.
    #[error("cannot open the log of uses in the state directory")]
    UseLog(#[source] io::Error),
    /// The storage of a coordinator that stands by does not answer. Check its URL and its credentials.
    #[error("the storage does not answer")]
    UnreachableStorage(#[source] StoreError),
    /// A coordinator can stand by for one that has its ledger in PostgreSQL, and its storage where both reach it.
    #[error(
        "a coordinator that stands by needs a ledger in PostgreSQL, and a storage that both can reach"
    )]
    NothingToShare,
    /// The coordinator that has the ledger signs with another key. Give both the same `--verdict-key`.
    #[error(
        "the coordinator that has the ledger signs verdicts with the key {theirs}, this one with {ours}; give \
         both the same --verdict-key"
    )]
    OtherVerdictKey {
        /// Whose.
        theirs: String,
        /// And this one's.
        ours: String,
    },
    /// The coordinator that has the ledger stores blobs elsewhere, or otherwise. Give both the same storage.
    #[error(
        "the coordinator that has the ledger stores blobs at {theirs}, this one at {ours}; give both the same \
         --storage"
    )]
    OtherStorage {
        /// Where it does.
        theirs: String,
        /// And where this one does.
        ours: String,
    },
    /// There is no key to sign with.
    #[error(transparent)]
    VerdictKey(#[from] VerdictKeyError),
    /// The dispatcher cannot start.
    #[error("cannot start to dispatch")]
    Dispatch(#[from] dispatch::StartError),
    /// Runs of an earlier process cannot be taken up.
    #[error("cannot take up the runs of an earlier process")]
    Runs(#[from] StartRunsError),
}
