//! Uploads under way: what has arrived of each, so that a client can go on after its connection broke.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use regatta_cas::{Spool, SpooledBlob};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};
use tokio_util::sync::CancellationToken;

/// How long a new writer of an upload waits until the one it replaces has noticed.
const REPLACE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a writer looks again for an upload that ended while it waited for it.
const OPEN_ATTEMPTS: u32 = 3;

/// Where partial uploads are kept, how many and how long.
#[derive(Clone, Debug)]
pub(crate) struct UploadSettings {
    /// The directory whose file system holds them. The files in it have no names, so that none is left
    /// behind by whatever ends the process.
    pub(crate) directory: PathBuf,
    /// How many at once.
    pub(crate) limit: usize,
    /// How long one is kept after its last byte came.
    pub(crate) idle_timeout: Duration,
}

impl UploadSettings {
    /// What a coordinator has, whose uploads are below a directory.
    pub(crate) const fn usual(directory: PathBuf) -> Self {
        Self {
            directory,
            limit: 1024,
            idle_timeout: Duration::from_secs(10 * 60),
        }
    }
}

/// Why bytes of an upload cannot be taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UploadError {
    /// The client does not go on where the upload stands. Ask where it stands.
    #[error("offset {offset} is not where the upload stands, which is {committed}")]
    WrongOffset {
        /// The offset sent.
        offset: u64,
        /// How much has arrived.
        committed: u64,
    },
    /// Too many uploads are under way. Come back later.
    #[error("{limit} uploads are under way, which is the limit")]
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// Another connection writes the same upload. Ask where it stands, then go on.
    #[error("another connection took the upload over")]
    Replaced,
    /// The disk is full. Make room, then go on.
    #[error("the disk is full at {}", directory.display())]
    DiskFull {
        /// Where.
        directory: PathBuf,
    },
    /// The disk failed.
    #[error("cannot write below {}", directory.display())]
    Disk {
        /// Where.
        directory: PathBuf,
        /// What came back.
        source: io::Error,
    },
}

/// Every upload under way, by its resource name.
#[derive(Debug)]
pub(crate) struct UploadRegistry {
    settings: UploadSettings,
    uploads: Mutex<HashMap<String, Arc<Upload>>>,
}

#[derive(Debug)]
struct Upload {
    /// Nothing before the first byte, and while what has arrived is stored.
    spool: Arc<AsyncMutex<Option<Spool>>>,
    /// Mirrors the spool's, for those who must not wait for its writer.
    committed: AtomicU64,
    last_used: Mutex<Instant>,
    /// Cancelled when another writer comes.
    writer: Mutex<CancellationToken>,
}

impl UploadRegistry {
    /// A registry without uploads.
    pub(crate) fn new(settings: UploadSettings) -> Self {
        Self {
            settings,
            uploads: Mutex::default(),
        }
    }

    /// How long an upload may be silent.
    pub(crate) const fn idle_timeout(&self) -> Duration {
        self.settings.idle_timeout
    }

    /// How much of an upload has arrived; nothing of one that is not known.
    pub(crate) fn committed(&self, name: &str) -> u64 {
        self.lock()
            .get(name)
            .map_or(0, |upload| upload.committed.load(Ordering::Acquire))
    }

    /// Starts or resumes an upload. Whoever wrote it before is cut off; offset 0 starts it over. What comes
    /// `is_hashed` on its way if it is the blob itself.
    pub(crate) async fn open(
        self: &Arc<Self>,
        name: &str,
        offset: u64,
        is_hashed: bool,
    ) -> Result<UploadWriter, UploadError> {
        for _ in 0..OPEN_ATTEMPTS {
            let upload = self.find_or_create(name)?;
            let replaced = upload.take_over();
            let waiting = Arc::clone(&upload.spool).lock_owned();
            let Ok(spool) = tokio::time::timeout(REPLACE_TIMEOUT, waiting).await else {
                return Err(UploadError::Replaced);
            };
            // The writer before may have completed the upload, which ended it.
            if !self
                .lock()
                .get(name)
                .is_some_and(|current| Arc::ptr_eq(current, &upload))
            {
                continue;
            }
            let registry = Arc::clone(self);
            let name = name.to_owned();
            let spool = Some(spool);
            let mut writer = UploadWriter {
                registry,
                name,
                upload,
                spool,
                is_hashed,
                replaced,
            };
            writer.seek(offset)?;
            return Ok(writer);
        }
        Err(UploadError::Replaced)
    }

    /// Forgets the uploads that nobody has written to for too long.
    pub(crate) fn expire_idle(&self, now: Instant) {
        let idle_timeout = self.settings.idle_timeout;
        self.lock().retain(|_, upload| {
            upload.is_in_use() || now.duration_since(upload.last_used()) < idle_timeout
        });
    }

    fn find_or_create(&self, name: &str) -> Result<Arc<Upload>, UploadError> {
        let mut uploads = self.lock();
        if let Some(upload) = uploads.get(name) {
            return Ok(Arc::clone(upload));
        }
        if uploads.len() >= self.settings.limit {
            forget_longest_idle(&mut uploads).ok_or(UploadError::TooMany {
                limit: self.settings.limit,
            })?;
        }
        let upload = Arc::new(Upload::new());
        uploads.insert(name.to_owned(), Arc::clone(&upload));
        Ok(upload)
    }

    fn new_spool(&self, is_hashed: bool) -> Result<Spool, UploadError> {
        let file = tempfile::tempfile_in(&self.settings.directory);
        let file = file.map_err(|error| self.disk_error(error))?;
        Ok(Spool::new(file, is_hashed))
    }

    fn forget(&self, name: &str, upload: &Arc<Upload>) {
        let mut uploads = self.lock();
        if uploads
            .get(name)
            .is_some_and(|current| Arc::ptr_eq(current, upload))
        {
            uploads.remove(name);
        }
    }

    fn disk_error(&self, source: io::Error) -> UploadError {
        let directory = self.settings.directory.clone();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                UploadError::DiskFull { directory }
            }
            _ => UploadError::Disk { directory, source },
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Upload>>> {
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn forget_longest_idle(uploads: &mut HashMap<String, Arc<Upload>>) -> Option<()> {
    let idle = uploads.iter().filter(|(_, upload)| !upload.is_in_use());
    let name = idle.min_by_key(|(_, upload)| upload.last_used())?.0.clone();
    uploads.remove(&name).map(drop)
}

impl Upload {
    fn new() -> Self {
        Self {
            spool: Arc::default(),
            committed: AtomicU64::new(0),
            last_used: Mutex::new(Instant::now()),
            writer: Mutex::default(),
        }
    }

    fn take_over(&self) -> CancellationToken {
        let mine = CancellationToken::new();
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *writer, mine.clone()).cancel();
        mine
    }

    fn is_in_use(&self) -> bool {
        self.spool.try_lock().is_err()
    }

    fn last_used(&self) -> Instant {
        *self
            .last_used
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes how much has arrived by now.
    fn note(&self, committed: u64) {
        self.committed.store(committed, Ordering::Release);
        *self
            .last_used
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

/// The only writer of an upload. Dropping it keeps what has arrived.
#[derive(Debug)]
pub(crate) struct UploadWriter {
    registry: Arc<UploadRegistry>,
    name: String,
    upload: Arc<Upload>,
    /// Away only while a write is under way, which keeps it even if this writer is dropped.
    spool: Option<OwnedMutexGuard<Option<Spool>>>,
    is_hashed: bool,
    replaced: CancellationToken,
}

impl UploadWriter {
    /// How much has arrived.
    pub(crate) fn committed(&self) -> u64 {
        self.upload.committed.load(Ordering::Acquire)
    }

    /// Waits until another connection takes the upload over.
    pub(crate) async fn replaced(&self) {
        self.replaced.cancelled().await;
    }

    /// Adds the next bytes.
    pub(crate) async fn append(&mut self, bytes: Bytes) -> Result<(), UploadError> {
        let Some(mut slot) = self.spool.take() else {
            return Err(UploadError::Replaced);
        };
        let mut spool = match slot.take() {
            Some(spool) => spool,
            None => self.registry.new_spool(self.is_hashed)?,
        };
        let upload = Arc::clone(&self.upload);
        let writing = tokio::task::spawn_blocking(move || {
            let written = spool.append(&bytes);
            if written.is_ok() {
                upload.note(spool.size_bytes());
            }
            *slot = Some(spool);
            (slot, written)
        });
        let (slot, written) = writing
            .await
            .map_err(|error| self.registry.disk_error(io::Error::other(error)))?;
        self.spool = Some(slot);
        written.map_err(|error| self.registry.disk_error(error))
    }

    /// Everything that has arrived, to be stored. The upload stands at its beginning until
    /// [`UploadWriter::unseal`]: whoever comes meanwhile must not write to what a store may have taken.
    pub(crate) fn seal(&mut self) -> Result<SpooledBlob, UploadError> {
        let slot = self.spool.as_mut().ok_or(UploadError::Replaced)?;
        let spool = match slot.take() {
            Some(spool) => spool,
            None => self.registry.new_spool(self.is_hashed)?,
        };
        self.upload.note(0);
        Ok(spool.seal())
    }

    /// Takes back what could not be stored, so that the client need not send it again.
    pub(crate) fn unseal(&mut self, blob: SpooledBlob) {
        if let (Some(slot), Some(spool)) = (self.spool.as_mut(), blob.reopen()) {
            self.upload.note(spool.size_bytes());
            **slot = Some(spool);
        }
    }

    /// Ends the upload: it was stored, or can never be.
    pub(crate) fn discard(self) {
        self.registry.forget(&self.name, &self.upload);
    }

    fn seek(&mut self, offset: u64) -> Result<(), UploadError> {
        let Some(slot) = self.spool.as_mut() else {
            return Err(UploadError::Replaced);
        };
        let committed = slot.as_ref().map_or(0, Spool::size_bytes);
        if offset != committed && offset != 0 {
            return Err(UploadError::WrongOffset { offset, committed });
        }
        if offset == 0 {
            **slot = None;
        }
        self.upload.note(offset);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::TryStreamExt as _;
    use regatta_model::Digest;

    fn registry(limit: usize) -> (tempfile::TempDir, Arc<UploadRegistry>) {
        let directory = tempfile::tempdir().unwrap();
        let idle_timeout = Duration::from_secs(60);
        let path = directory.path().to_owned();
        let settings = UploadSettings {
            directory: path,
            limit,
            idle_timeout,
        };
        (directory, Arc::new(UploadRegistry::new(settings)))
    }

    async fn content(writer: &mut UploadWriter) -> Vec<u8> {
        let blob = writer.seal().unwrap();
        let pieces: Vec<Bytes> = blob.body().unwrap().try_collect().await.unwrap();
        pieces.concat()
    }

    #[tokio::test]
    async fn an_upload_goes_on_where_it_stopped() {
        let (_directory, registry) = registry(2);
        let mut writer = registry.open("a", 0, true).await.unwrap();
        writer.append("one".into()).await.unwrap();
        drop(writer);
        assert_eq!((registry.committed("a"), registry.committed("b")), (3, 0));
        let wrong = registry.open("a", 2, true).await;
        assert!(matches!(
            wrong,
            Err(UploadError::WrongOffset {
                offset: 2,
                committed: 3
            })
        ));
        let mut writer = registry.open("a", 3, true).await.unwrap();
        writer.append("two".into()).await.unwrap();
        assert_eq!(content(&mut writer).await, b"onetwo");
        writer.discard();
        assert_eq!(registry.committed("a"), 0);
    }

    #[tokio::test]
    async fn an_upload_can_start_over() {
        let (_directory, registry) = registry(2);
        let mut writer = registry.open("a", 0, true).await.unwrap();
        writer.append("long and wrong".into()).await.unwrap();
        drop(writer);
        let mut writer = registry.open("a", 0, true).await.unwrap();
        assert_eq!(writer.committed(), 0);
        writer.append("short".into()).await.unwrap();
        assert_eq!(content(&mut writer).await, b"short");
    }

    #[tokio::test]
    async fn a_new_writer_replaces_the_old_one() {
        let (_directory, registry) = registry(2);
        let mut old = registry.open("a", 0, true).await.unwrap();
        old.append("one".into()).await.unwrap();
        let second = tokio::spawn({
            let registry = Arc::clone(&registry);
            async move { registry.open("a", 3, true).await }
        });
        old.replaced().await;
        drop(old);
        let new = second.await.unwrap().unwrap();
        assert_eq!(new.committed(), 3);
    }

    #[tokio::test]
    async fn idle_uploads_expire_and_busy_ones_do_not() {
        let (_directory, registry) = registry(2);
        let mut busy = registry.open("busy", 0, true).await.unwrap();
        busy.append("one".into()).await.unwrap();
        let mut idle = registry.open("idle", 0, true).await.unwrap();
        idle.append("two".into()).await.unwrap();
        drop(idle);
        registry.expire_idle(Instant::now());
        assert_eq!(registry.committed("idle"), 3);
        registry.expire_idle(Instant::now() + Duration::from_secs(61));
        assert_eq!(
            (registry.committed("idle"), registry.committed("busy")),
            (0, 3)
        );
    }

    #[tokio::test]
    async fn the_longest_idle_makes_room_and_a_busy_one_never() {
        let (_directory, registry) = registry(2);
        for name in ["a", "b"] {
            registry
                .open(name, 0, true)
                .await
                .unwrap()
                .append("x".into())
                .await
                .unwrap();
        }
        let _c = registry.open("c", 0, true).await.unwrap();
        assert_eq!((registry.committed("a"), registry.committed("b")), (0, 1));
        let _d = registry.open("d", 0, true).await.unwrap();
        let refused = registry.open("e", 0, true).await;
        assert!(matches!(refused, Err(UploadError::TooMany { limit: 2 })));
    }

    #[tokio::test]
    async fn no_file_is_left_in_the_directory() {
        let (directory, registry) = registry(2);
        registry
            .open("a", 0, true)
            .await
            .unwrap()
            .append("x".into())
            .await
            .unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn what_is_being_stored_is_written_to_by_nobody() {
        let (_directory, registry) = registry(2);
        let mut writer = registry.open("a", 0, true).await.unwrap();
        writer.append("one".into()).await.unwrap();
        let blob = writer.seal().unwrap();
        assert_eq!(registry.committed("a"), 0);
        // The client is gone, and comes back.
        drop(writer);
        let resumed = registry.open("a", 3, true).await;
        assert!(matches!(
            resumed,
            Err(UploadError::WrongOffset { committed: 0, .. })
        ));
        let mut writer = registry.open("a", 0, true).await.unwrap();
        writer.append("two".into()).await.unwrap();
        assert_eq!(blob.digest(), Some(Digest::of(b"one")));
        let pieces: Vec<Bytes> = blob.body().unwrap().try_collect().await.unwrap();
        assert_eq!(pieces.concat(), b"one");
    }

    #[tokio::test]
    async fn what_could_not_be_stored_is_not_sent_again() {
        let (_directory, registry) = registry(2);
        let mut writer = registry.open("a", 0, true).await.unwrap();
        writer.append("one".into()).await.unwrap();
        let blob = writer.seal().unwrap();
        writer.unseal(blob);
        drop(writer);
        let mut writer = registry.open("a", 3, true).await.unwrap();
        assert_eq!(content(&mut writer).await, b"one");
    }
}
