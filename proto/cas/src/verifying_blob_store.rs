//! Nothing wrong gets in, nothing wrong gets out.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt as _, stream};
use regatta_model::{Digest, PlantedBug};

use crate::file_state::FileState;
use crate::quarantine::Quarantine;
use crate::verified_files::{BlobFiles, VerifiedFiles};
use crate::whole_blob::is_whole;
use crate::{BlobRange, BlobStore, BlobStream, SpooledBlob, StoreError, WrongReads, checked_body};

/// How long a blob counts as absent that came wrong: whoever hears of it comes back with it in that time.
const QUARANTINE: Duration = Duration::from_secs(60 * 60);

/// Makes a store content-addressed: bytes that do not have the digest they come under never become
/// visible, and a blob that comes wrong when it is read, and once more, counts as absent for an hour, so that it is
/// uploaded again, in its own place. One that comes wrong once is [`StoreError::Unavailable`].
///
/// Nothing is deleted because of what was read: nobody can tell whether bytes are stored wrong, or go wrong each
/// time that they are sent.
///
/// A write is refused by ending the body below with [`StoreError::Corrupt`], after which the port forbids
/// the store to show anything. Reads of a part of a blob are passed on unverified.
#[derive(Debug)]
pub struct VerifyingBlobStore {
    store: Arc<dyn BlobStore>,
    verified: Option<Arc<VerifiedFiles>>,
    quarantine: Option<Arc<Quarantine>>,
    wrong_reads: WrongReads,
}

impl VerifyingBlobStore {
    /// Verifies what goes in and out of `store`.
    #[must_use]
    pub fn new(store: Arc<dyn BlobStore>) -> Self {
        Self {
            store,
            verified: None,
            quarantine: Some(Arc::new(Quarantine::of(QUARANTINE))),
            wrong_reads: WrongReads::default(),
        }
    }

    /// Notes when blobs come wrong.
    #[must_use]
    pub fn with_wrong_reads_noted(self, wrong_reads: WrongReads) -> Self {
        Self {
            wrong_reads,
            ..self
        }
    }

    /// Has blobs that came wrong count as absent for another while than an hour.
    #[must_use]
    pub fn with_quarantine(self, period: Duration) -> Self {
        Self {
            quarantine: Some(Arc::new(Quarantine::of(period))),
            ..self
        }
    }

    /// For a store that nobody uploads to through this: a blob that came wrong is asked for again.
    #[must_use]
    pub fn without_quarantine(self) -> Self {
        Self {
            quarantine: None,
            ..self
        }
    }

    /// Does not verify a blob again whose file among `files` is in the state in which this process verified
    /// it or put it there, for an hour. The files must be those of the store, and each writer to them must
    /// verify what it writes.
    #[must_use]
    pub fn with_unchanged_trusted(self, files: Arc<dyn BlobFiles>) -> Self {
        Self {
            verified: Some(Arc::new(VerifiedFiles::new(files))),
            ..self
        }
    }

    async fn get_checked(&self, digest: &Digest) -> Result<BlobStream, StoreError> {
        let state = self.state_of(digest);
        // Asking for no length lets bytes beyond the expected end be seen.
        let body = self.store.get(digest, BlobRange::ALL).await?;
        let checked = checked_body(*digest, body);
        let checked = judging_if_corrupt(
            Arc::clone(&self.store),
            (self.quarantine.clone(), self.wrong_reads.clone()),
            *digest,
            checked,
        );
        Ok(match (&self.verified, state) {
            (Some(verified), Some(state)) => {
                remembering(Arc::clone(verified), *digest, state, checked)
            }
            _ => checked,
        })
    }

    fn state_of(&self, digest: &Digest) -> Option<FileState> {
        self.verified.as_ref()?.state_of(digest)
    }

    fn is_verified(&self, digest: &Digest) -> bool {
        let verified = self.verified.as_ref();
        verified.is_some_and(|verified| verified.has(digest))
    }

    fn note_written(&self, digest: &Digest) {
        if let Some(verified) = &self.verified {
            verified.remember_written(digest);
        }
        self.release(digest);
    }

    fn release(&self, digest: &Digest) {
        if let Some(quarantine) = &self.quarantine {
            quarantine.release(digest);
        }
    }

    fn is_quarantined(&self, digest: &Digest) -> bool {
        let quarantine = self.quarantine.as_ref();
        quarantine.is_some_and(|quarantine| quarantine.holds(digest))
    }
}

/// Remembers that a file was right once its stream has come to its end without an error.
fn remembering(
    verified: Arc<VerifiedFiles>,
    digest: Digest,
    state: FileState,
    body: BlobStream,
) -> BlobStream {
    let left = Some((body, verified));
    stream::unfold(left, move |left| async move {
        let (mut body, verified) = left?;
        match body.next().await {
            Some(Ok(piece)) => Some((Ok(piece), Some((body, verified)))),
            Some(Err(error)) => Some((Err(error), None)),
            None => {
                verified.remember(&digest, state);
                None
            }
        }
    })
    .boxed()
}

/// Says what it means when the stream of a blob proves it corrupt, before the reader learns of it.
fn judging_if_corrupt(
    store: Arc<dyn BlobStore>,
    (quarantine, wrong_reads): (Option<Arc<Quarantine>>, WrongReads),
    digest: Digest,
    body: BlobStream,
) -> BlobStream {
    body.then(move |piece| {
        let (store, quarantine) = (Arc::clone(&store), quarantine.clone());
        let wrong_reads = wrong_reads.clone();
        async move {
            match piece {
                Err(StoreError::Corrupt { actual, .. }) => {
                    wrong_reads.note();
                    Err(judge(store.as_ref(), quarantine.as_deref(), digest, actual).await)
                }
                other => other,
            }
        }
    })
    .boxed()
}

/// What it means that a blob came as another one. Bytes go bad on their way, too: it is read once more.
async fn judge(
    store: &dyn BlobStore,
    quarantine: Option<&Quarantine>,
    digest: Digest,
    actual: Digest,
) -> StoreError {
    let again = async {
        let body = store.get(&digest, BlobRange::ALL).await?;
        let mut body = checked_body(digest, body);
        while let Some(piece) = body.next().await {
            piece?;
        }
        Ok(())
    };
    let expected = digest;
    match again.await {
        Ok(()) => {
            count("once");
            tracing::warn!(%digest, %actual, "a blob was corrupted on its way from the store");
            let detail = format!(
                "blob {digest} came as {actual}, though it is stored as it should be; read it again"
            );
            StoreError::Unavailable { detail }
        }
        Err(StoreError::Corrupt { actual, .. }) => {
            count("again");
            if let Some(quarantine) = quarantine {
                quarantine.hold(&digest);
                tracing::error!(
                    %digest, %actual, absent_for = ?quarantine.period(),
                    "a blob is stored wrong, or comes wrong again and again; it counts as absent, and is overwritten \
                     when it is uploaded again (`regatta cas verify` tells whether it is stored wrong)"
                );
            }
            StoreError::Corrupt { expected, actual }
        }
        Err(StoreError::NotFound { .. }) => StoreError::Corrupt { expected, actual },
        Err(other) => other,
    }
}

fn count(came_wrong: &'static str) {
    metrics::counter!("regatta_corrupt_reads_total", "came_wrong" => came_wrong).increment(1);
}

#[async_trait]
impl BlobStore for VerifyingBlobStore {
    async fn get(&self, digest: &Digest, range: BlobRange) -> Result<BlobStream, StoreError> {
        if self.is_quarantined(digest) {
            return Err(StoreError::NotFound { digest: *digest });
        }
        if !is_whole(digest.size_bytes(), range) {
            return self.store.get(digest, range).await;
        }
        if self.is_verified(digest) || PlantedBug::VerificationSkipped.is_planted() {
            return self.store.get(digest, BlobRange::ALL).await;
        }
        self.get_checked(digest).await
    }

    async fn put(&self, digest: &Digest, body: BlobStream) -> Result<(), StoreError> {
        self.store.put(digest, checked_body(*digest, body)).await?;
        self.note_written(digest);
        Ok(())
    }

    async fn put_spooled(&self, digest: &Digest, blob: &SpooledBlob) -> Result<(), StoreError> {
        match blob.digest() {
            Some(actual) if actual == *digest => {
                self.store.put_spooled(digest, blob).await?;
                self.note_written(digest);
                Ok(())
            }
            Some(actual) => Err(StoreError::Corrupt {
                expected: *digest,
                actual,
            }),
            None => self.put(digest, blob.body()?).await,
        }
    }

    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        let asked: Vec<Digest> = digests
            .iter()
            .filter(|digest| !self.is_quarantined(digest))
            .copied()
            .collect();
        let missing = self.store.find_missing(&asked).await?;
        if asked.len() == digests.len() {
            return Ok(missing);
        }
        let (mut asked, mut missing) = (asked.iter().peekable(), missing.iter().peekable());
        let absent = digests.iter().filter(|digest| {
            let was_asked = asked.next_if_eq(digest).is_some();
            !was_asked || missing.next_if_eq(digest).is_some()
        });
        Ok(absent.copied().collect())
    }

    async fn delete(&self, digest: &Digest) -> Result<(), StoreError> {
        self.store.delete(digest).await?;
        self.release(digest);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        MemoryBlobStore, ObjectStoreBlobStore, conformance, put_bytes, read_all, stream_of,
    };
    use bytes::Bytes;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::SystemTime;

    fn stack() -> (Arc<MemoryBlobStore>, VerifyingBlobStore) {
        let store = Arc::new(MemoryBlobStore::new());
        (store.clone(), VerifyingBlobStore::new(store))
    }

    #[tokio::test]
    async fn it_conforms() {
        conformance::check_content_addressed(Arc::new(stack().1)).await;
    }

    #[tokio::test]
    async fn a_blob_that_went_bad_is_an_error_once_and_then_absent() {
        for bad in [b"wrong" as &[u8], b"righ", b"right and more", b""] {
            let (below, store) = stack();
            let digest = Digest::of(b"right");
            below
                .put(&digest, stream_of(Bytes::from_static(bad)))
                .await
                .unwrap();
            let read = read_all(&store, &digest, 100).await;
            assert!(
                matches!(read, Err(StoreError::Corrupt { .. })),
                "{bad:?}: {read:?}"
            );
            assert_eq!(store.find_missing(&[digest]).await.unwrap(), [digest]);
            store
                .put(&digest, stream_of(Bytes::from_static(b"right")))
                .await
                .unwrap();
            assert_eq!(read_all(&store, &digest, 100).await.unwrap(), "right");
        }
    }

    /// Wrong the first times that it is read; nothing may be deleted from it.
    #[derive(Debug)]
    struct NoisyWire {
        store: MemoryBlobStore,
        wrong_reads: AtomicUsize,
    }

    impl NoisyWire {
        fn wrong_for(reads: usize) -> Arc<Self> {
            Arc::new(Self {
                store: MemoryBlobStore::new(),
                wrong_reads: reads.into(),
            })
        }
    }

    #[async_trait]
    impl BlobStore for NoisyWire {
        async fn get(&self, digest: &Digest, range: BlobRange) -> Result<BlobStream, StoreError> {
            let body = self.store.get(digest, range).await?;
            let less = |left: usize| left.checked_sub(1);
            let left = self
                .wrong_reads
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
            match left {
                Ok(_) => Ok(stream_of(Bytes::from_static(b"wrong"))),
                Err(_) => Ok(body),
            }
        }

        async fn put(&self, digest: &Digest, body: BlobStream) -> Result<(), StoreError> {
            self.store.put(digest, body).await
        }

        async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
            self.store.find_missing(digests).await
        }

        async fn delete(&self, digest: &Digest) -> Result<(), StoreError> {
            panic!("{digest} is deleted, and may be right");
        }
    }

    #[tokio::test]
    async fn a_blob_that_went_bad_on_its_way_stays() {
        let store = VerifyingBlobStore::new(NoisyWire::wrong_for(1));
        let digest = put_bytes(&store, Bytes::from_static(b"right"))
            .await
            .unwrap();
        let read = read_all(&store, &digest, 100).await;
        assert!(
            matches!(read, Err(StoreError::Unavailable { .. })),
            "{read:?}"
        );
        assert_eq!(read_all(&store, &digest, 100).await.unwrap(), "right");
    }

    async fn expect_corrupt(store: &VerifyingBlobStore, digest: &Digest) {
        let read = read_all(store, digest, 100).await;
        assert!(matches!(read, Err(StoreError::Corrupt { .. })), "{read:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_blob_that_comes_wrong_again_and_again_is_absent_for_a_while_and_lost_never() {
        let other = Digest::of(b"other");
        for stored_again in [false, true] {
            let wire = NoisyWire::wrong_for(4);
            let wrong_reads = WrongReads::default();
            let store = VerifyingBlobStore::new(wire.clone());
            let store = store.with_wrong_reads_noted(wrong_reads.clone());
            let right = Bytes::from_static(b"right");
            let digest = put_bytes(&store, right.clone()).await.unwrap();
            assert!(!wrong_reads.any_within(QUARANTINE));
            expect_corrupt(&store, &digest).await;
            let part = BlobRange {
                offset: 1,
                length: Some(1),
            };
            for range in [BlobRange::ALL, part] {
                let read = store.get(&digest, range).await.map(drop);
                assert!(matches!(read, Err(StoreError::NotFound { .. })), "{read:?}");
            }
            assert!(wrong_reads.any_within(QUARANTINE), "it is told");
            let asked = [digest, other, digest];
            assert_eq!(store.find_missing(&asked).await.unwrap(), asked);
            match stored_again {
                true => drop(put_bytes(&store, right).await.unwrap()),
                false => tokio::time::advance(QUARANTINE).await,
            }
            assert_eq!(store.find_missing(&asked).await.unwrap(), [other]);
            expect_corrupt(&store, &digest).await;
            tokio::time::advance(QUARANTINE).await;
            assert_eq!(read_all(&store, &digest, 100).await.unwrap(), "right");
        }
    }

    #[tokio::test]
    async fn who_only_reads_asks_again() {
        let wire = NoisyWire::wrong_for(2);
        let digest = put_bytes(&wire.store, Bytes::from_static(b"right")).await;
        let (digest, store) = (digest.unwrap(), VerifyingBlobStore::new(wire));
        let store = store.without_quarantine();
        expect_corrupt(&store, &digest).await;
        assert_eq!(read_all(&store, &digest, 100).await.unwrap(), "right");
    }

    /// A store in a directory, and where in it `digest` is.
    fn stack_of_files(
        directory: &tempfile::TempDir,
        digest: &Digest,
    ) -> (PathBuf, VerifyingBlobStore) {
        let url = format!("file://{}", directory.path().display());
        let files = Arc::new(ObjectStoreBlobStore::open(&url).unwrap());
        let hash = digest.hash_hex();
        let name = format!("{hash}-{}", digest.size_bytes());
        let path = directory.path().join(&hash[..2]).join(name);
        let store = VerifyingBlobStore::new(files.clone()).with_unchanged_trusted(files);
        (path, store)
    }

    /// Files whose state never shows a change, as if a failing disk made it.
    #[derive(Debug)]
    struct Still(FileState);

    impl BlobFiles for Still {
        fn state_of(&self, _digest: &Digest) -> Option<FileState> {
            Some(self.0)
        }
    }

    #[tokio::test]
    async fn files_conform() {
        let directory = tempfile::tempdir().unwrap();
        let (_, store) = stack_of_files(&directory, &Digest::EMPTY);
        conformance::check_content_addressed(Arc::new(store)).await;
    }

    #[tokio::test]
    async fn a_file_that_changed_is_verified_again() {
        let directory = tempfile::tempdir().unwrap();
        let digest = Digest::of(b"right");
        let (path, store) = stack_of_files(&directory, &digest);
        for read_before in [false, true] {
            put_bytes(&store, Bytes::from_static(b"right"))
                .await
                .unwrap();
            let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
            if read_before {
                assert_eq!(read_all(&store, &digest, 100).await.unwrap(), "right");
            }
            // Longer than clocks of file systems take to tick.
            let deadline = SystemTime::now() + Duration::from_millis(50);
            while SystemTime::now() < deadline {
                std::thread::yield_now();
            }
            std::fs::write(&path, "wrong").unwrap();
            // Its modification time may say otherwise.
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            file.set_modified(modified).unwrap();
            let read = read_all(&store, &digest, 100).await;
            assert!(matches!(read, Err(StoreError::Corrupt { .. })), "{read:?}");
            assert_eq!(store.find_missing(&[digest]).await.unwrap(), [digest]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_did_not_change_is_verified_once_an_hour() {
        let (below, digest) = (Arc::new(MemoryBlobStore::new()), Digest::of(b"right"));
        let state = FileState {
            inode: 1,
            size_bytes: 5,
            modified_nanos: 2,
            changed_nanos: 3,
        };
        let store =
            VerifyingBlobStore::new(below.clone()).with_unchanged_trusted(Arc::new(Still(state)));
        let decay = || below.put(&digest, stream_of(Bytes::from_static(b"wrong")));
        for read_first in [false, true] {
            put_bytes(&store, Bytes::from_static(b"right"))
                .await
                .unwrap();
            if read_first {
                tokio::time::advance(Duration::from_secs(3600)).await;
                assert_eq!(read_all(&store, &digest, 100).await.unwrap(), "right");
            }
            decay().await.unwrap();
            tokio::time::advance(Duration::from_secs(3599)).await;
            assert_eq!(read_all(&store, &digest, 100).await.unwrap(), "wrong");
            tokio::time::advance(Duration::from_secs(1)).await;
            let read = read_all(&store, &digest, 100).await;
            assert!(matches!(read, Err(StoreError::Corrupt { .. })), "{read:?}");
        }
    }

    #[tokio::test]
    async fn a_read_that_ends_early_verifies_nothing() {
        let (below, digest) = (Arc::new(MemoryBlobStore::new()), Digest::of(b"right"));
        below
            .put(&digest, stream_of(Bytes::from_static(b"wrong")))
            .await
            .unwrap();
        let state = FileState {
            inode: 1,
            size_bytes: 5,
            modified_nanos: 2,
            changed_nanos: 3,
        };
        let store =
            VerifyingBlobStore::new(below.clone()).with_unchanged_trusted(Arc::new(Still(state)));
        drop(store.get(&digest, BlobRange::ALL).await.unwrap());
        let read = read_all(&store, &digest, 100).await;
        assert!(matches!(read, Err(StoreError::Corrupt { .. })), "{read:?}");
    }
}
