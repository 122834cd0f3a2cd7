//! Work that blocks.

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::JoinError;

/// Does work that blocks while everything else goes on, except where nothing is to happen at the same time: whoever
/// has a runtime of one thread, as the fault simulation has, waits for it.
pub(crate) async fn apart<Outcome: Send + 'static>(
    work: impl FnOnce() -> Outcome + Send + 'static,
) -> Result<Outcome, JoinError> {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::CurrentThread => Ok(work()),
        _ => tokio::task::spawn_blocking(work).await,
    }
}
