//! Room on the disk: made when it gets short, and if none can be made, new work is refused until there
//! is some.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::availability::{Availability, Need};
use crate::blobs::TenantStores;
use crate::input_tree::InputTreeCache;
use crate::occurrence::{Occurrence, OccurrenceSender};

/// How often the disk is looked at.
const INTERVAL: Duration = Duration::from_secs(2);
/// How much more than the minimum must be free before new work is taken again, as a divisor of it, so
/// that an agent does not change its mind with every file.
const RECOVERY_DIVISOR: u64 = 10;

/// Looks at the disk.
#[derive(Debug)]
pub(crate) struct DiskWatch {
    pub(crate) directory: PathBuf,
    pub(crate) minimum_free_bytes: u64,
    pub(crate) trees: Arc<InputTreeCache>,
    pub(crate) stores: TenantStores,
    pub(crate) availability: Arc<Availability>,
    pub(crate) driver: OccurrenceSender,
}

impl DiskWatch {
    /// Looks at the disk again and again.
    pub(crate) async fn run(self) {
        let mut short = false;
        loop {
            let reason = self.look(short).await;
            if reason.is_some() != short {
                short = reason.is_some();
                self.availability.tell(Need::Disk, reason).await;
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Why no new work is taken, if so.
    async fn look(&self, short: bool) -> Option<String> {
        let margin = if short {
            self.minimum_free_bytes / RECOVERY_DIVISOR
        } else {
            0
        };
        let needed = self.minimum_free_bytes.saturating_add(margin);
        if self.free_bytes()? >= needed {
            return None;
        }
        self.trees.shrink_to(0).await;
        self.stores.make_room().await;
        // If the driver is gone, nobody wants to know which trees there are.
        self.driver.send(Occurrence::TreesChanged).await.ok();
        let free = self.free_bytes()?;
        (free < needed).then(|| {
            tracing::warn!(free, needed, "disk full");
            format!(
                "disk full: {} MiB are free in {}, {} MiB are needed; make room there, or lower the minimum",
                free >> 20,
                self.directory.display(),
                needed >> 20
            )
        })
    }

    /// `None` if the kernel does not say: then work goes on, and its own errors will tell.
    fn free_bytes(&self) -> Option<u64> {
        match rustix::fs::statvfs(&self.directory) {
            Ok(stat) => Some(stat.f_bavail.saturating_mul(stat.f_frsize)),
            Err(error) => {
                tracing::warn!(%error, "free disk space is not known");
                None
            }
        }
    }
}
