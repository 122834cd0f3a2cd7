//! Room on the disk: made when it gets short, and if none can be made, new work is refused until there
//! is some. What fails while there is none proves nothing.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use regatta_runtime::ExitStatus;
use tokio::time::Instant;

use crate::availability::{Availability, Need};
use crate::blobs::TenantStores;
use crate::input_tree::InputTreeCache;
use crate::occurrence::{Occurrence, OccurrenceSender};
use crate::outcome::Refusal;

/// How often the disk is looked at.
const INTERVAL: Duration = Duration::from_millis(500);
/// How much more than the minimum must be free before new work is taken again, as a divisor of it, so
/// that an agent does not change its mind with every file.
const RECOVERY_DIVISOR: u64 = 10;
/// How many more files must be possible. What is left may go with the next lease.
const MINIMUM_FREE_FILES: u64 = 256;

/// Looks at the disk that has the state directory, and in it all that jobs write to.
#[derive(Debug)]
pub(crate) struct DiskWatch {
    directory: PathBuf,
    minimum_free_bytes: u64,
    trees: Arc<InputTreeCache>,
    stores: TenantStores,
    availability: Arc<Availability>,
    driver: OccurrenceSender,
    /// One looks at a time; whether the disk was short of room.
    looking: tokio::sync::Mutex<bool>,
    last_shortage: Mutex<Option<(Instant, Shortage)>>,
}

/// Too little room.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Shortage {
    directory: PathBuf,
    free: Room,
    needed_bytes: u64,
}

/// What a file system has left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Room {
    bytes: u64,
    /// How many more files it can have; `None` if it sets them no limit of their own.
    files: Option<u64>,
}

impl fmt::Display for Shortage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (directory, Room { bytes, files }) = (self.directory.display(), self.free);
        match files {
            Some(files) if bytes >= self.needed_bytes => write!(
                formatter,
                "{files} more files can be made in {directory}, {MINIMUM_FREE_FILES} are needed; remove some there"
            ),
            Some(_) | None => write!(
                formatter,
                "{bytes} bytes are free in {directory} of the {} that --minimum-free wants; make room there, or lower \
                 --minimum-free",
                self.needed_bytes
            ),
        }
    }
}

impl DiskWatch {
    /// A watch on the file system of `directory`.
    pub(crate) fn new(
        (directory, minimum_free_bytes): (&Path, u64),
        (trees, stores): (Arc<InputTreeCache>, TenantStores),
        availability: Arc<Availability>,
        driver: OccurrenceSender,
    ) -> Arc<Self> {
        Arc::new(Self {
            directory: directory.to_owned(),
            minimum_free_bytes,
            trees,
            stores,
            availability,
            driver,
            looking: tokio::sync::Mutex::default(),
            last_shortage: Mutex::default(),
        })
    }

    /// Looks at the disk again and again.
    pub(crate) async fn run(self: Arc<Self>) {
        loop {
            self.look().await;
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Refuses what has ended badly if there was too little room at any time since it began, as far as that was seen:
    /// then it proves nothing, whoever took the room. What ended well does. If there is too little now, new work is
    /// refused before this is told, so that nothing more fails the same way.
    pub(crate) async fn had_room_for(
        &self,
        status: &ExitStatus,
        begun: Instant,
    ) -> Result<(), Refusal> {
        match status {
            ExitStatus::Code(0) | ExitStatus::OutOfMemory | ExitStatus::Cancelled => return Ok(()),
            ExitStatus::Code(_)
            | ExitStatus::Signal(_)
            | ExitStatus::TimedOut
            | ExitStatus::NotStarted { .. } => {}
        }
        self.look().await;
        match &*self.shortage() {
            Some((seen, shortage)) if *seen >= begun => Err(Refusal::infrastructure(format!(
                "the agent's disk had no room while this ran: {shortage}"
            ))),
            Some(_) | None => Ok(()),
        }
    }

    async fn look(&self) {
        let mut was_short = self.looking.lock().await;
        let margin = match *was_short {
            true => self.minimum_free_bytes / RECOVERY_DIVISOR,
            false => 0,
        };
        let needed_bytes = self.minimum_free_bytes.saturating_add(margin);
        let mut shortage = self.short_of(needed_bytes);
        if shortage.is_some() {
            self.trees.shrink_to(0).await;
            self.stores.make_room().await;
            // If the driver is gone, nobody wants to know which trees there are.
            self.driver.send(Occurrence::TreesChanged).await.ok();
            shortage = self.short_of(needed_bytes);
        }
        if shortage.is_some() == *was_short {
            return;
        }
        *was_short = shortage.is_some();
        let reason = shortage.map(|shortage| {
            tracing::warn!(%shortage, "disk full");
            format!("disk full: {shortage}")
        });
        self.availability.tell(Need::Disk, reason).await;
    }

    /// Less room than that; it is remembered if it is less than the minimum.
    fn short_of(&self, needed_bytes: u64) -> Option<Shortage> {
        let free = self.room()?;
        let is_short = |bytes| {
            free.bytes < bytes || free.files.is_some_and(|files| files < MINIMUM_FREE_FILES)
        };
        let shortage = |needed_bytes| Shortage {
            directory: self.directory.clone(),
            free,
            needed_bytes,
        };
        if is_short(self.minimum_free_bytes) {
            *self.shortage() = Some((Instant::now(), shortage(self.minimum_free_bytes)));
        }
        is_short(needed_bytes).then(|| shortage(needed_bytes))
    }

    /// `None` if the kernel does not say: then work goes on, and its own errors will tell.
    fn room(&self) -> Option<Room> {
        match rustix::fs::statvfs(&self.directory) {
            Ok(stat) => Some(Room {
                bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
                files: (stat.f_files > 0).then_some(stat.f_favail),
            }),
            Err(error) => {
                tracing::warn!(%error, "free disk space is not known");
                None
            }
        }
    }

    fn shortage(&self) -> MutexGuard<'_, Option<(Instant, Shortage)>> {
        self.last_shortage
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use regatta_agent_core::Event;
    use regatta_cas::{DiskCache, DiskCacheSettings};
    use tonic::transport::Endpoint;

    use super::*;
    use crate::occurrence::occurrence_queue;

    /// What becomes of an execution that ends so on a disk that is to have so many bytes, and whether new work is
    /// refused by then.
    async fn judged(status: ExitStatus, minimum_free_bytes: u64) -> (Result<(), Refusal>, bool) {
        let directory = tempfile::tempdir().unwrap();
        let (driver, mut told) = occurrence_queue();
        // Nothing asks it for anything.
        let channel = Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
        let blobs = DiskCache::open(DiskCacheSettings {
            directory: directory.path().join("blobs"),
            capacity_bytes: 1 << 20,
            min_free_bytes: 0,
        });
        let trees = InputTreeCache::open(directory.path().join("trees"), 1 << 20).unwrap();
        let watch = DiskWatch::new(
            (directory.path(), minimum_free_bytes),
            (
                Arc::new(trees),
                TenantStores::new(channel, (blobs.unwrap(), 1 << 20)),
            ),
            Arc::new(Availability::new(driver.clone())),
            driver,
        );
        let judged = watch.had_room_for(&status, Instant::now()).await;
        let mut refused = false;
        while let Ok(occurrence) = told.try_recv() {
            refused |= matches!(
                occurrence,
                Occurrence::Core(Event::Unavailable(Some(reason))) if reason.contains("--minimum-free")
            );
        }
        (judged, refused)
    }

    #[tokio::test]
    async fn what_ends_badly_on_a_disk_without_room_proves_nothing_and_nothing_new_is_taken() {
        for status in [
            ExitStatus::Code(1),
            ExitStatus::Signal(7),
            ExitStatus::TimedOut,
            ExitStatus::NotStarted { errno: 2 },
        ] {
            let (judged, refused) = judged(status, u64::MAX / 4).await;
            let Err(Refusal::Infrastructure { message }) = &judged else {
                panic!("{judged:?}");
            };
            assert!(message.contains("--minimum-free"), "{message}");
            assert!(refused);
        }
        for status in [ExitStatus::Code(0), ExitStatus::OutOfMemory] {
            assert_eq!(judged(status, u64::MAX / 4).await.0, Ok(()));
        }
        assert_eq!(judged(ExitStatus::Code(1), 0).await, (Ok(()), false));
    }
}
