//! Whether there is room for more: of a disk of this machine it is known what is free, of any other store only that it has
//! refused a write, until it takes one again.

use std::path::{Path, PathBuf};

use regatta_cas::StoreError;
use tokio::sync::watch;

use super::Retention;

/// Without a word of anybody's, this much of a disk is left free, in bytes, but no more than one of so many
/// parts of it.
const DEFAULT_FREE_BYTES: u64 = 1 << 30;
const DEFAULT_FREE_DIVISOR: u64 = 20;
/// Below one of so many parts of what is to be free, nothing more is stored: what else is on the disk, the
/// ledger before all, needs the rest.
const REFUSAL_DIVISOR: u64 = 2;
/// How much more must be free before more is stored again, as a divisor.
const RECOVERY_DIVISOR: u64 = 10;

/// The disk that everything is on, if it is on one of this machine, and what the store has said.
#[derive(Debug)]
pub(super) struct Room {
    directory: Option<PathBuf>,
    free_bytes: Option<u64>,
    /// Why nothing more is stored, if so. Who listens hears when that begins and ends.
    refusal: watch::Sender<Option<Refusal>>,
}

/// What says that there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// The disk, by what is free.
    Disk,
    /// The store, which has refused a write: nobody else knows what it has room for.
    Store,
}

/// Why nothing more is stored.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    by: By,
    /// With how much is free.
    detail: String,
    /// The same for as long as it lasts.
    pub(crate) reason: String,
}

impl Refusal {
    /// Whether the store has refused a write.
    pub(super) fn is_the_stores(&self) -> bool {
        self.by == By::Store
    }
}

impl Room {
    /// Keeps `free_bytes` free where `directory` is; a part of the disk if that is not said.
    pub(super) fn new(directory: Option<PathBuf>, free_bytes: Option<u64>) -> Self {
        Self {
            directory,
            free_bytes,
            refusal: watch::Sender::default(),
        }
    }

    /// Whether everything is on a disk of this machine.
    pub(super) const fn is_on_this_machine(&self) -> bool {
        self.directory.is_some()
    }

    /// How many bytes are to be free.
    pub(super) fn wanted_bytes(&self) -> Option<u64> {
        let disk = Disk::of(self.directory.as_deref()?)?;
        Some(self.wanted_of(&disk))
    }

    /// How large the disk is, in bytes.
    pub(super) fn size_bytes(&self) -> Option<u64> {
        Some(Disk::of(self.directory.as_deref()?)?.size_bytes)
    }

    fn wanted_of(&self, disk: &Disk) -> u64 {
        let default = DEFAULT_FREE_BYTES.min(disk.size_bytes / DEFAULT_FREE_DIVISOR);
        self.free_bytes.unwrap_or(default)
    }

    /// Whether anything may be stored.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        match &*self.refusal.borrow() {
            Some(refusal) => Err(StoreError::Full {
                detail: refusal.detail.clone(),
            }),
            None => Ok(()),
        }
    }

    /// Looks at the disk; answers how many bytes it lacks. What is refused from now on depends on what is free.
    pub(super) fn look(&self) -> u64 {
        let found = self.directory.as_deref().and_then(|directory| {
            let disk = Disk::of(directory)?;
            Some((directory, disk))
        });
        let Some((directory, disk)) = found else {
            return 0;
        };
        let wanted = self.wanted_of(&disk);
        let least = wanted / REFUSAL_DIVISOR;
        self.refuse_below(least, directory, &disk);
        match disk.free_bytes < wanted {
            true => wanted - disk.free_bytes,
            false => 0,
        }
    }

    /// Has room or none, whatever the disk says.
    #[cfg(test)]
    pub(super) fn pretend(&self, reason: Option<&str>) {
        let refusal = reason.map(|reason| Refusal {
            by: By::Disk,
            detail: reason.to_owned(),
            reason: reason.to_owned(),
        });
        self.refusal.send_replace(refusal);
    }

    /// The store has refused a write for want of room.
    pub(super) fn refused(&self, detail: &str) {
        self.refusal.send_if_modified(|refusal| {
            let is_news = refusal.is_none();
            if is_news {
                tracing::warn!(detail, "the store has no room; nothing more is stored");
                *refusal = Some(Refusal {
                    by: By::Store,
                    detail: detail.to_owned(),
                    reason: format!("the store is full: {detail}"),
                });
            }
            is_news
        });
    }

    /// The store has taken a write.
    pub(super) fn accepted(&self) {
        self.refusal.send_if_modified(|refusal| {
            let is_over = refusal.as_ref().is_some_and(Refusal::is_the_stores);
            if is_over {
                tracing::info!("the store has room again");
                *refusal = None;
            }
            is_over
        });
    }

    fn refuse_below(&self, least: u64, directory: &Path, disk: &Disk) {
        self.refusal.send_if_modified(|refusal| {
            let was_low = refusal.as_ref().is_some_and(|it| it.by == By::Disk);
            let margin = if was_low { least / RECOVERY_DIVISOR } else { 0 };
            let refuses = disk.free_bytes < least + margin;
            if !refuses && !was_low {
                return false;
            }
            let is_news = refuses != was_low;
            if is_news {
                note(refuses, least, disk);
            }
            let (free, least) = (disk.free_bytes >> 20, least.div_ceil(1 << 20));
            let place = directory.display();
            *refusal = refuses.then(|| Refusal {
                by: By::Disk,
                detail: format!(
                    "{free} MiB are free in {place}, {least} MiB must be; make room there"
                ),
                reason: format!(
                    "the store is full: less than {least} MiB are free in {place}; make room there"
                ),
            });
            is_news
        });
    }
}

impl Retention {
    /// Whether there is room for more.
    ///
    /// # Errors
    /// [`StoreError::Full`]: nothing new is to be begun.
    pub(crate) fn check_room(&self) -> Result<(), StoreError> {
        self.room.check()
    }

    /// Why nothing more is stored, whenever that begins, and nothing when it ends.
    pub(crate) fn refusals(&self) -> watch::Receiver<Option<Refusal>> {
        self.room.refusal.subscribe()
    }
}

fn note(refuses: bool, least: u64, disk: &Disk) {
    let free = disk.free_bytes;
    match refuses {
        true => tracing::warn!(free, least, "the disk is full; nothing more is stored"),
        false => tracing::info!(free, "the disk has room again"),
    }
}

/// A file system.
struct Disk {
    size_bytes: u64,
    free_bytes: u64,
}

impl Disk {
    /// `None` if the kernel does not say: then writes go on, and their own errors will tell.
    fn of(directory: &Path) -> Option<Self> {
        match rustix::fs::statvfs(directory) {
            Ok(stat) => Some(Self {
                size_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
                free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
            }),
            Err(error) => {
                tracing::warn!(%error, "free disk space is not known");
                None
            }
        }
    }
}
