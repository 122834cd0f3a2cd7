//! Why a coordinator stops by itself.

use std::io;

use regatta_ledger::LedgerError;

use crate::ledger::{LEDGER_PATIENCE, LedgerLostError};

/// Why a coordinator stopped without being told to. Report it, unless the ledger was lost or full.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// gRPC failed.
    #[error("the gRPC server failed")]
    Grpc(#[source] tonic::transport::Error),
    /// HTTP failed.
    #[error("the HTTP server failed")]
    Http(#[source] io::Error),
    /// The ledger may be another's.
    #[error(transparent)]
    Ledger(#[from] LedgerLostError),
    /// The ledger takes nothing. Make room for it, or mend its database, and start the coordinator again: its runs go on
    /// from what is stored.
    #[error(
        "the ledger has stored nothing for {} minutes; make room for it or mend its database and start the \
         coordinator again: its runs go on",
        LEDGER_PATIENCE.as_secs() / 60
    )]
    Unstored(#[source] LedgerError),
}
