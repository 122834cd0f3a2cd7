//! Nothing wrong gets in, nothing wrong gets out.

use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt as _, stream};
use regatta_model::{Digest, PlantedBug};

use crate::file_state::FileState;
use crate::verified_files::{BlobFiles, VerifiedFiles};
use crate::whole_blob::is_whole;
use crate::{BlobRange, BlobStore, BlobStream, SpooledBlob, StoreError, checked_body};

/// Makes a store content-addressed: bytes that do not have the digest they come under never become
/// visible, and a blob that went bad in the store is deleted when it is read, so that it can be uploaded
/// again. One that went bad on its way from the store alone is [`StoreError::Unavailable`], and stays.
///
/// A write is refused by ending the body below with [`StoreError::Corrupt`], after which the port forbids
/// the store to show anything. Reads of a part of a blob are passed on unverified.
#[derive(Debug)]
pub struct VerifyingBlobStore {
    store: Arc<dyn BlobStore>,
    verified: Option<Arc<VerifiedFiles>>,
}

impl VerifyingBlobStore {
    /// Verifies what goes in and out of `store`.
    #[must_use]
    pub fn new(store: Arc<dyn BlobStore>) -> Self {
        Self {
            store,
            verified: None,
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
        let checked = deleting_if_corrupt(Arc::clone(&self.store), *digest, checked);
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

    fn remember_written(&self, digest: &Digest) {
        if let Some(verified) = &self.verified {
            verified.remember_written(digest);
        }
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

/// Deletes the blob below when its stream proves it corrupt, before the reader learns of it.
fn deleting_if_corrupt(store: Arc<dyn BlobStore>, digest: Digest, body: BlobStream) -> BlobStream {
    body.then(move |piece| {
        let store = Arc::clone(&store);
        async move {
            match piece {
                Err(StoreError::Corrupt { actual, .. }) => {
                    Err(judge(store.as_ref(), digest, actual).await)
                }
                other => other,
            }
        }
    })
    .boxed()
}

/// What it means that a blob came as another one. Bytes go bad on their way, too: it is read once more, and
/// deleted only if it is wrong again.
async fn judge(store: &dyn BlobStore, digest: Digest, actual: Digest) -> StoreError {
    let again = async {
        let body = store.get(&digest, BlobRange::ALL).await?;
        let mut body = checked_body(digest, body);
        while let Some(piece) = body.next().await {
            piece?;
        }
        Ok(())
    };
    match again.await {
        Ok(()) => {
            tracing::warn!(%digest, %actual, "a blob was corrupted on its way from the store");
            let detail = format!(
                "blob {digest} came as {actual}, though it is stored as it should be; read it again"
            );
            StoreError::Unavailable { detail }
        }
        Err(StoreError::Corrupt { actual, .. }) => {
            delete_corrupt(store, &digest, &actual).await;
            let expected = digest;
            StoreError::Corrupt { expected, actual }
        }
        Err(StoreError::NotFound { .. }) => {
            let expected = digest;
            StoreError::Corrupt { expected, actual }
        }
        Err(other) => other,
    }
}

async fn delete_corrupt(store: &dyn BlobStore, digest: &Digest, actual: &Digest) {
    tracing::error!(%digest, %actual, "a stored blob is corrupt; deleting it");
    if let Err(error) = store.delete(digest).await {
        tracing::error!(%digest, %error, "could not delete a corrupt blob");
    }
}

#[async_trait]
impl BlobStore for VerifyingBlobStore {
    async fn get(&self, digest: &Digest, range: BlobRange) -> Result<BlobStream, StoreError> {
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
        self.remember_written(digest);
        Ok(())
    }

    async fn put_spooled(&self, digest: &Digest, blob: &SpooledBlob) -> Result<(), StoreError> {
        match blob.digest() {
            Some(actual) if actual == *digest => {
                self.store.put_spooled(digest, blob).await?;
                self.remember_written(digest);
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
        self.store.find_missing(digests).await
    }

    async fn delete(&self, digest: &Digest) -> Result<(), StoreError> {
        self.store.delete(digest).await
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
    use std::time::{Duration, SystemTime};

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

    /// Wrong the first time that it is read.
    #[derive(Debug)]
    struct NoisyWire {
        store: MemoryBlobStore,
        was_read: std::sync::atomic::AtomicBool,
    }

    #[async_trait]
    impl BlobStore for NoisyWire {
        async fn get(&self, digest: &Digest, range: BlobRange) -> Result<BlobStream, StoreError> {
            let body = self.store.get(digest, range).await?;
            match self
                .was_read
                .swap(true, std::sync::atomic::Ordering::SeqCst)
            {
                true => Ok(body),
                false => Ok(stream_of(Bytes::from_static(b"wrong"))),
            }
        }

        async fn put(&self, digest: &Digest, body: BlobStream) -> Result<(), StoreError> {
            self.store.put(digest, body).await
        }

        async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
            self.store.find_missing(digests).await
        }

        async fn delete(&self, digest: &Digest) -> Result<(), StoreError> {
            self.store.delete(digest).await
        }
    }

    #[tokio::test]
    async fn a_blob_that_went_bad_on_its_way_stays() {
        let store = VerifyingBlobStore::new(Arc::new(NoisyWire {
            store: MemoryBlobStore::new(),
            was_read: false.into(),
        }));
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
