//! Whether there is room for more.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use regatta_cas::StoreError;

/// Without a word of anybody's, this much of a disk is left free, in bytes, but no more than one of so many
/// parts of it.
const DEFAULT_FREE_BYTES: u64 = 1 << 30;
const DEFAULT_FREE_DIVISOR: u64 = 20;
/// Below one of so many parts of what is to be free, nothing more is stored: what else is on the disk, the
/// ledger before all, needs the rest.
const REFUSAL_DIVISOR: u64 = 2;
/// How much more must be free before more is stored again, as a divisor.
const RECOVERY_DIVISOR: u64 = 10;

/// The disk that everything is on, if it is on one of this machine.
#[derive(Debug)]
pub(super) struct Room {
    directory: Option<PathBuf>,
    free_bytes: Option<u64>,
    /// Why nothing more is stored, if so.
    refusal: Mutex<Option<String>>,
}

impl Room {
    /// Keeps `free_bytes` free where `directory` is; a part of the disk if that is not said.
    pub(super) fn new(directory: Option<PathBuf>, free_bytes: Option<u64>) -> Self {
        Self {
            directory,
            free_bytes,
            refusal: Mutex::default(),
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
        match &*self.refusal.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(detail) => Err(StoreError::Full {
                detail: detail.clone(),
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
        let mut refusal = self.refusal.lock().unwrap_or_else(PoisonError::into_inner);
        let least = wanted / REFUSAL_DIVISOR;
        let margin = refusal.as_ref().map_or(0, |_| least / RECOVERY_DIVISOR);
        let refuses = disk.free_bytes < least + margin;
        if refuses != refusal.is_some() {
            match refuses {
                true => tracing::warn!(
                    free = disk.free_bytes,
                    least,
                    "the disk is full; nothing more is stored"
                ),
                false => tracing::info!(free = disk.free_bytes, "the disk has room again"),
            }
        }
        *refusal = refuses.then(|| {
            format!(
                "{} MiB are free in {}, {} MiB must be; make room there",
                disk.free_bytes >> 20,
                directory.display(),
                least >> 20
            )
        });
        match disk.free_bytes < wanted {
            true => wanted - disk.free_bytes,
            false => 0,
        }
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
