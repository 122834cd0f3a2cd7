//! Which ledger a coordinator has.

use std::path::Path;
use std::sync::Arc;

use regatta_ledger::{
    Ledger, OpenLedgerError, OpenPostgresError, PostgresAddress, PostgresLedger, SqliteLedger,
};

use crate::measuring_ledger::MeasuringLedger;

/// The ledger's file in the state directory.
const FILE: &str = "ledger.sqlite";

/// Why a coordinator's ledger cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum LedgerOpeningError {
    /// The one in the state directory.
    #[error(transparent)]
    File(#[from] OpenLedgerError),
    /// The one in PostgreSQL.
    #[error(transparent)]
    Postgres(#[from] OpenPostgresError),
}

/// Opens the ledger at an address, or else the one in the state directory.
pub(crate) async fn open(
    address: Option<&PostgresAddress>,
    state: &Path,
) -> Result<Arc<dyn Ledger>, LedgerOpeningError> {
    let ledger: Arc<dyn Ledger> = match address {
        Some(address) => {
            let ledger = PostgresLedger::open(address.clone()).await?;
            tracing::info!(%address, "the ledger is open");
            Arc::new(ledger)
        }
        None => Arc::new(SqliteLedger::open(&state.join(FILE))?),
    };
    Ok(Arc::new(MeasuringLedger::new(ledger)))
}
