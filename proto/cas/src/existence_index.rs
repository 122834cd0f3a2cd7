//! What is known to be there.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use regatta_model::{Digest, PlantedBug};
use tokio::time::Instant;

use crate::lru_map::LruMap;
use crate::{BlobRange, BlobStore, BlobStream, Losses, SpooledBlob, StoreError};

/// Remembers which blobs a store has, so that asking again costs no request.
///
/// It knows presence only, never absence, for at most `expiry`: as long as the store below keeps a blob
/// after its last use for longer than that, the index is right. Whatever shows that a blob is gone
/// corrects it at once.
pub struct ExistenceIndex {
    store: Arc<dyn BlobStore>,
    expiry: Duration,
    capacity: usize,
    losses: Losses,
    known: Arc<Mutex<Known>>,
}

struct Known {
    /// When to ask again.
    until: LruMap<Digest, Instant>,
    /// Counts what was forgotten. An answer from below is learned only if nothing was forgotten while it
    /// was on its way: it might be about just that blob, and out of date.
    forgotten: u64,
    /// The losses that have been taken in.
    losses: u64,
}

impl ExistenceIndex {
    /// Remembers up to `capacity` blobs of `store` for `expiry` each.
    #[must_use]
    pub fn new(store: Arc<dyn BlobStore>, capacity: usize, expiry: Duration) -> Self {
        let known = Known {
            until: LruMap::new(),
            forgotten: 0,
            losses: 0,
        };
        Self {
            store,
            expiry,
            capacity,
            losses: Losses::default(),
            known: Arc::new(Mutex::new(known)),
        }
    }

    /// The same for a store that finds out that many blobs are gone at once: nothing is known of it then.
    #[must_use]
    pub fn with_losses(self, losses: Losses) -> Self {
        self.known().losses = losses.count();
        Self { losses, ..self }
    }

    /// Takes some blobs for present from now on, as many as fit, as if the store had just said so.
    pub fn remember(&self, present: impl IntoIterator<Item = Digest>) {
        let forgotten = self.known().forgotten;
        self.learn(present.into_iter().take(self.capacity), forgotten);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        let losses = self.losses.count();
        let mut known = lock(&self.known);
        if known.losses < losses {
            known.losses = losses;
            known.forgotten += 1;
            known.until = LruMap::new();
        }
        known
    }

    fn unknown_of(&self, digests: &[Digest]) -> (Vec<Digest>, u64) {
        let now = Instant::now();
        let mut known = self.known();
        let unknown = digests
            .iter()
            .filter(|digest| !known.has(digest, now))
            .copied()
            .collect();
        (unknown, known.forgotten)
    }

    fn learn(&self, present: impl IntoIterator<Item = Digest>, forgotten_before: u64) {
        let until = Instant::now() + self.expiry;
        let mut known = self.known();
        if known.forgotten != forgotten_before {
            return;
        }
        for digest in present {
            known.until.insert(digest, until, 1);
            if known.until.len() > self.capacity {
                known.until.pop_oldest();
            }
        }
    }
}

fn lock(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Known {
    fn has(&mut self, digest: &Digest, now: Instant) -> bool {
        let until = self.until.touch(digest);
        until.is_some_and(|until| *until > now || PlantedBug::PresenceKept.is_planted())
    }

    fn forget(&mut self, digest: &Digest) {
        self.forgotten += 1;
        self.until.remove(digest);
    }
}

/// Those of `asked` that are not in `missing`, which has the order of `asked`.
fn present_of(asked: &[Digest], missing: &[Digest]) -> Vec<Digest> {
    let mut missing = missing.iter().peekable();
    let present = asked
        .iter()
        .filter(|digest| missing.next_if_eq(digest).is_none());
    present.copied().collect()
}

fn shows_absence(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::NotFound { .. } | StoreError::Corrupt { .. }
    )
}

impl fmt::Debug for ExistenceIndex {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ExistenceIndex")
            .field("store", &self.store)
            .field("known", &self.known().until.len())
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl BlobStore for ExistenceIndex {
    async fn get(&self, digest: &Digest, range: BlobRange) -> Result<BlobStream, StoreError> {
        let forgotten = self.known().forgotten;
        let body = match self.store.get(digest, range).await {
            Ok(body) => body,
            Err(error) => {
                if shows_absence(&error) {
                    self.known().forget(digest);
                }
                return Err(error);
            }
        };
        self.learn([*digest], forgotten);
        let (known, digest) = (Arc::clone(&self.known), *digest);
        let body = body.inspect(move |piece| {
            if piece.as_ref().err().is_some_and(shows_absence) {
                lock(&known).forget(&digest);
            }
        });
        Ok(body.boxed())
    }

    async fn put(&self, digest: &Digest, body: BlobStream) -> Result<(), StoreError> {
        let forgotten = self.known().forgotten;
        self.store.put(digest, body).await?;
        self.learn([*digest], forgotten);
        Ok(())
    }

    async fn put_spooled(&self, digest: &Digest, blob: &SpooledBlob) -> Result<(), StoreError> {
        let forgotten = self.known().forgotten;
        self.store.put_spooled(digest, blob).await?;
        self.learn([*digest], forgotten);
        Ok(())
    }

    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        let (unknown, forgotten) = self.unknown_of(digests);
        if unknown.is_empty() {
            return Ok(Vec::new());
        }
        let missing = self.store.find_missing(&unknown).await?;
        self.learn(present_of(&unknown, &missing), forgotten);
        Ok(missing)
    }

    async fn delete(&self, digest: &Digest) -> Result<(), StoreError> {
        // Also after an error, or if nobody waits for the end: the blob may be gone nevertheless.
        let _forgetting = Forgetting {
            index: self,
            digest,
        };
        self.store.delete(digest).await
    }
}

/// Forgets a blob when it is dropped.
struct Forgetting<'a> {
    index: &'a ExistenceIndex,
    digest: &'a Digest,
}

impl Drop for Forgetting<'_> {
    fn drop(&mut self) {
        self.index.known().forget(self.digest);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{MemoryBlobStore, conformance, put_bytes, read_all};

    const EXPIRY: Duration = Duration::from_secs(60);

    fn stack() -> (Arc<MemoryBlobStore>, ExistenceIndex) {
        let store = Arc::new(MemoryBlobStore::new());
        (store.clone(), ExistenceIndex::new(store, 100, EXPIRY))
    }

    #[tokio::test]
    async fn it_conforms() {
        conformance::check_keyed(Arc::new(stack().1)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn presence_is_remembered_until_it_expires() {
        let (below, index) = stack();
        let digest = put_bytes(&index, Bytes::from_static(b"blob"))
            .await
            .unwrap();
        below.delete(&digest).await.unwrap();
        tokio::time::advance(EXPIRY - Duration::from_millis(1)).await;
        assert_eq!(index.find_missing(&[digest]).await.unwrap(), []);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(index.find_missing(&[digest]).await.unwrap(), [digest]);
    }

    #[tokio::test]
    async fn absence_is_never_remembered() {
        let (below, index) = stack();
        let digest = Digest::of(b"blob");
        assert_eq!(index.find_missing(&[digest]).await.unwrap(), [digest]);
        put_bytes(below.as_ref(), Bytes::from_static(b"blob"))
            .await
            .unwrap();
        assert_eq!(index.find_missing(&[digest]).await.unwrap(), []);
    }

    #[tokio::test]
    async fn a_failed_read_corrects_it() {
        let (below, index) = stack();
        let digest = put_bytes(&index, Bytes::from_static(b"blob"))
            .await
            .unwrap();
        below.delete(&digest).await.unwrap();
        read_all(&index, &digest, 100).await.unwrap_err();
        assert_eq!(index.find_missing(&[digest]).await.unwrap(), [digest]);
    }

    #[tokio::test]
    async fn once_many_are_gone_nothing_is_known() {
        let (below, index) = stack();
        let losses = Losses::default();
        let index = index.with_losses(losses.clone());
        let blobs = [b"one" as &[u8], b"two"].map(|blob| {
            let (below, index) = (Arc::clone(&below), &index);
            async move {
                let digest = put_bytes(index, Bytes::from_static(blob)).await.unwrap();
                below.delete(&digest).await.unwrap();
                digest
            }
        });
        let digests = futures::future::join_all(blobs).await;
        assert_eq!(index.find_missing(&digests).await.unwrap(), []);
        losses.note();
        assert_eq!(index.find_missing(&digests).await.unwrap(), digests);
    }

    /// Deletes, and never says so.
    #[derive(Debug)]
    struct SilentStore(Arc<MemoryBlobStore>);

    #[async_trait]
    impl BlobStore for SilentStore {
        async fn get(&self, digest: &Digest, range: BlobRange) -> Result<BlobStream, StoreError> {
            self.0.get(digest, range).await
        }

        async fn put(&self, digest: &Digest, body: BlobStream) -> Result<(), StoreError> {
            self.0.put(digest, body).await
        }

        async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
            self.0.find_missing(digests).await
        }

        async fn delete(&self, digest: &Digest) -> Result<(), StoreError> {
            self.0.delete(digest).await?;
            std::future::pending().await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_deletion_that_is_not_waited_for_corrects_it() {
        let silent = SilentStore(Arc::new(MemoryBlobStore::new()));
        let index = ExistenceIndex::new(Arc::new(silent), 100, EXPIRY);
        let digest = put_bytes(&index, Bytes::from_static(b"blob"))
            .await
            .unwrap();
        let deleting = tokio::time::timeout(EXPIRY / 2, index.delete(&digest));
        assert!(deleting.await.is_err(), "nobody says that it is deleted");
        assert_eq!(index.find_missing(&[digest]).await.unwrap(), [digest]);
    }

    #[tokio::test]
    async fn it_is_bounded() {
        let (below, _) = stack();
        let index = ExistenceIndex::new(below.clone(), 2, EXPIRY);
        for fill in 0..10u8 {
            let digest = put_bytes(&index, Bytes::from(vec![fill])).await.unwrap();
            below.delete(&digest).await.unwrap();
        }
        let all: Vec<Digest> = (0..10u8).map(|fill| Digest::of(&[fill])).collect();
        assert_eq!(index.find_missing(&all).await.unwrap(), all[..8]);
    }

    #[test]
    fn present_is_what_is_not_missing() {
        let [a, b, c] = [b"a", b"b", b"c"].map(|bytes| Digest::of(bytes));
        assert_eq!(present_of(&[a, b, c, b], &[b, b]), [a, c]);
        assert_eq!(present_of(&[a, b], &[]), [a, b]);
        assert_eq!(present_of(&[a, b], &[a, b]), []);
    }
}
