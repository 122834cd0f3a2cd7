//! The directory of a cache together with its accounts.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::DiskCacheSettings;
use super::find::find_files;
use super::local_file::{LocalFile, Part};
use super::parts::Parts;
use super::residents::{PinOutcome, Residents};
use crate::StoreError;

pub(super) const LOCK_NAME: &str = "lock";
pub(super) const TEMPORARY_NAME: &str = "tmp";
/// The modification time of every file, as seconds since the epoch: 2010-01-01. It is the same in every job
/// and for every agent, and a file that has another was written to.
const MODIFIED_AT_SECONDS: u64 = 1_262_304_000;

/// The directory of a cache together with its accounts. What happens to a file under its final name happens
/// while the accounts are locked, so that both always agree.
#[derive(Debug)]
pub(super) struct Shared {
    settings: DiskCacheSettings,
    parts: Parts,
    residents: Mutex<Residents>,
    /// Locked for as long as the cache is open.
    _lock: File,
}

/// Room for a file that is on its way; given back when dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    shared: Arc<Shared>,
    cost_bytes: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shared.residents().release(self.cost_bytes);
    }
}

pub(super) fn unavailable(doing: &str, error: &io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full {
            detail: format!("{doing}: {error}; free some disk space"),
        },
        _ => StoreError::Unavailable {
            detail: format!("{doing}: {error}"),
        },
    }
}

pub(super) fn modified_at() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(MODIFIED_AT_SECONDS)
}

impl Shared {
    pub(super) fn open(settings: DiskCacheSettings) -> Result<Self, StoreError> {
        let place = settings.directory.display().to_string();
        let failed = |error: io::Error| unavailable(&format!("opening the cache {place}"), &error);
        let lock = prepare(&settings.directory).map_err(failed)?;
        let mut residents = Residents::new(settings.capacity_bytes);
        let parts = Parts::default();
        for file in find_files(&settings.directory, &parts).map_err(failed)? {
            residents.add_idle(file);
        }
        let shared = Self {
            settings,
            parts,
            residents: Mutex::new(residents),
            _lock: lock,
        };
        // The capacity may be smaller than it was.
        while let Some(file) = shared.residents().evict_for(0) {
            shared.remove(file);
        }
        Ok(shared)
    }

    pub(super) fn directory(&self) -> &Path {
        &self.settings.directory
    }

    pub(super) fn temporary_directory(&self) -> PathBuf {
        self.directory().join(TEMPORARY_NAME)
    }

    /// The part of that name, which is a plain component of a path.
    pub(super) fn part(&self, name: &str) -> Part {
        self.parts.of(name)
    }

    pub(super) fn path_of(&self, file: LocalFile) -> PathBuf {
        file.path_in(&self.directory().join(&*self.parts.name(file.part)))
    }

    pub(super) fn residents(&self) -> MutexGuard<'_, Residents> {
        self.residents
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Pins a file if it is there and nobody tampered with it.
    pub(super) fn pin_intact(&self, file: LocalFile) -> bool {
        let pinned = self.residents().pin(file, Instant::now());
        if pinned == PinOutcome::Absent {
            return false;
        }
        let path = self.path_of(file);
        // Asking for metadata takes microseconds, less than going to another thread for it.
        if !fs::symlink_metadata(&path).is_ok_and(|metadata| is_intact(file, &metadata)) {
            tracing::warn!(path = %path.display(), "a local file was tampered with; discarding it");
            self.discard(file);
            self.unpin(file);
            return false;
        }
        if pinned == PinOutcome::PinnedAndDue {
            mark_used(&path);
        }
        true
    }

    pub(super) fn unpin(&self, file: LocalFile) {
        let mut residents = self.residents();
        if residents.unpin(file) {
            self.remove(file);
        }
    }

    /// Removes a file, at once or after its last use.
    pub(super) fn discard(&self, file: LocalFile) {
        let mut residents = self.residents();
        if residents.doom(file) {
            self.remove(file);
        }
    }

    /// Makes room for a file and reserves it. It blocks.
    pub(super) fn reserve(self: &Arc<Self>, file: LocalFile) -> Result<Reservation, StoreError> {
        let cost_bytes = file.cost_bytes();
        loop {
            // Locked anew for each file that goes, so that others have a chance in between.
            let mut residents = self.residents();
            if let Some(evicted) = residents.evict_for(cost_bytes) {
                self.remove(evicted);
                continue;
            }
            if !residents.has_room(cost_bytes) {
                let detail = format!(
                    "{cost_bytes} bytes do not fit into the {} of the cache beside what is in use",
                    self.settings.capacity_bytes
                );
                return Err(StoreError::Full { detail });
            }
            if self.has_disk_space(&mut residents, cost_bytes)? {
                residents.reserve(cost_bytes);
                let shared = Arc::clone(self);
                return Ok(Reservation { shared, cost_bytes });
            }
        }
    }

    /// Removes files until the disk has room for the watermark. It blocks.
    pub(super) fn make_room(&self) -> Result<(), StoreError> {
        while !self.has_disk_space(&mut self.residents(), 0)? {}
        Ok(())
    }

    /// Whether the disk has room for `cost_bytes` and the watermark; if not, a file has gone.
    fn has_disk_space(
        &self,
        residents: &mut Residents,
        cost_bytes: u64,
    ) -> Result<bool, StoreError> {
        let on_the_way = residents.reserved_bytes().saturating_add(cost_bytes);
        let wanted = self.settings.min_free_bytes.saturating_add(on_the_way);
        if self.free_bytes()? >= wanted {
            return Ok(true);
        }
        let Some(evicted) = residents.evict() else {
            let detail = format!(
                "the disk of {} must have {wanted} bytes free; free some disk space",
                self.directory().display()
            );
            return Err(StoreError::Full { detail });
        };
        self.remove(evicted);
        Ok(false)
    }

    fn free_bytes(&self) -> Result<u64, StoreError> {
        let found = rustix::fs::statvfs(self.directory());
        let found =
            found.map_err(|error| unavailable("asking for free disk space", &error.into()))?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    /// Puts a finished file into its place, pinned once, in the room reserved for it.
    pub(super) fn commit(
        &self,
        file: LocalFile,
        finished: tempfile::TempPath,
        mut reservation: Reservation,
    ) -> Result<(), StoreError> {
        let path = self.path_of(file);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|error| unavailable("keeping a file", &error))?;
        }
        let mut residents = self.residents();
        if let Err(error) = finished.persist(path) {
            // The reservation locks the accounts when it goes.
            drop(residents);
            return Err(unavailable("keeping a file", &error.error));
        }
        residents.release(std::mem::take(&mut reservation.cost_bytes));
        residents.add_pinned(file, Instant::now());
        drop(residents);
        Ok(())
    }

    /// Called with the accounts locked, so that no new file of that name is removed by mistake.
    fn remove(&self, file: LocalFile) {
        let path = self.path_of(file);
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "cannot remove a local file");
        }
    }
}

pub(super) fn is_intact(file: LocalFile, metadata: &Metadata) -> bool {
    metadata.is_file()
        && metadata.len() == file.digest.size_bytes()
        && metadata.mode() & 0o777 == file.mode()
        && metadata
            .modified()
            .is_ok_and(|modified| modified == modified_at())
}

/// Sets the access time, which orders files after a restart. The modification time stays.
fn mark_used(path: &Path) {
    use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, utimensat};

    let special = |tv_nsec| Timespec { tv_sec: 0, tv_nsec };
    let times = Timestamps {
        last_access: special(UTIME_NOW),
        last_modification: special(UTIME_OMIT),
    };
    if let Err(error) = utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW) {
        tracing::debug!(path = %path.display(), %error, "cannot mark a local file as used");
    }
}

/// Makes the directory, takes the lock, and removes what was not finished.
fn prepare(directory: &Path) -> io::Result<File> {
    fs::create_dir_all(directory)?;
    let lock = File::create(directory.join(LOCK_NAME))?;
    lock.try_lock().map_err(|error| match error {
        fs::TryLockError::WouldBlock => io::Error::other("another process uses it"),
        fs::TryLockError::Error(error) => error,
    })?;
    let temporary = directory.join(TEMPORARY_NAME);
    match fs::remove_dir_all(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => fs::create_dir(&temporary)?,
    }
    Ok(lock)
}
