//! Small blobs close by.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, stream};
use regatta_model::Digest;

use crate::lru_map::LruMap;
use crate::single_flight::SingleFlight;
use crate::whole_blob::{Collected, collect_up_to, slice_of};
use crate::{BlobRange, BlobStore, BlobStream, SpooledBlob, StoreError, stream_of};

/// What an entry costs besides its bytes, roughly, in bytes: so that a million tiny blobs are counted too.
const ENTRY_OVERHEAD_BYTES: u64 = 200;

/// Keeps small blobs of a content-addressed store in memory, the least recently used ones going first. Tiers
/// in front of several views of one store may share their memory.
///
/// Presence is never answered from here, so that the store below learns of every use. Concurrent readers
/// of one absent blob cause one read below.
pub struct MemoryTier {
    store: Arc<dyn BlobStore>,
    max_blob_bytes: u64,
    shelf: Arc<Shelf>,
    /// `None` for a blob that turned out too large to keep.
    fetches: Arc<SingleFlight<Digest, Option<Bytes>>>,
}

struct Shelf {
    capacity_bytes: u64,
    blobs: Mutex<LruMap<Digest, Bytes>>,
}

impl MemoryTier {
    /// Keeps up to `capacity_bytes` of the blobs of `store` that have at most `max_blob_bytes` each.
    #[must_use]
    pub fn new(store: Arc<dyn BlobStore>, capacity_bytes: u64, max_blob_bytes: u64) -> Self {
        let shelf = Shelf {
            capacity_bytes,
            blobs: Mutex::new(LruMap::new()),
        };
        Self {
            store,
            max_blob_bytes,
            shelf: Arc::new(shelf),
            fetches: Arc::new(SingleFlight::new()),
        }
    }

    /// The same memory in front of another view of the same blobs.
    #[must_use]
    pub fn above(&self, store: Arc<dyn BlobStore>) -> Self {
        Self {
            store,
            max_blob_bytes: self.max_blob_bytes,
            shelf: Arc::clone(&self.shelf),
            fetches: Arc::clone(&self.fetches),
        }
    }

    /// Forgets a blob that is gone from the store.
    pub fn forget(&self, digest: &Digest) {
        self.shelf.blobs().remove(digest);
    }

    async fn fetch(&self, digest: Digest) -> Result<Option<Bytes>, StoreError> {
        let (store, shelf) = (Arc::clone(&self.store), Arc::clone(&self.shelf));
        let limit_bytes = self.max_blob_bytes;
        let work = async move {
            let body = store.get(&digest, BlobRange::ALL).await?;
            let Collected::Whole(bytes) = collect_up_to(body, limit_bytes).await? else {
                return Ok(None);
            };
            shelf.keep(digest, &bytes);
            Ok(Some(bytes))
        };
        self.fetches.run(digest, || work.boxed()).await
    }
}

impl Shelf {
    fn blobs(&self) -> MutexGuard<'_, LruMap<Digest, Bytes>> {
        self.blobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, digest: Digest, bytes: &Bytes) {
        let mut blobs = self.blobs();
        // Copied, because the bytes may be a small part of a large buffer that they would keep alive.
        blobs.insert(digest, Bytes::copy_from_slice(bytes), cost_of(bytes));
        while blobs.weight() > self.capacity_bytes {
            blobs.pop_oldest();
        }
    }
}

fn cost_of(bytes: &Bytes) -> u64 {
    bytes.len() as u64 + ENTRY_OVERHEAD_BYTES
}

impl fmt::Debug for MemoryTier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("MemoryTier")
            .field("store", &self.store)
            .field("capacity_bytes", &self.shelf.capacity_bytes)
            .field("used_bytes", &self.shelf.blobs().weight())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl BlobStore for MemoryTier {
    async fn get(&self, digest: &Digest, range: BlobRange) -> Result<BlobStream, StoreError> {
        let kept = self.shelf.blobs().touch(digest).cloned();
        if let Some(bytes) = kept {
            return slice_of(digest, &bytes, range).map(stream_of);
        }
        if digest.size_bytes() > self.max_blob_bytes {
            return self.store.get(digest, range).await;
        }
        match self.fetch(*digest).await? {
            Some(bytes) => slice_of(digest, &bytes, range).map(stream_of),
            None => self.store.get(digest, range).await,
        }
    }

    async fn put(&self, digest: &Digest, body: BlobStream) -> Result<(), StoreError> {
        if digest.size_bytes() > self.max_blob_bytes {
            return self.store.put(digest, body).await;
        }
        match collect_up_to(body, self.max_blob_bytes).await? {
            Collected::Whole(bytes) => {
                self.store.put(digest, stream_of(bytes.clone())).await?;
                self.shelf.keep(*digest, &bytes);
                Ok(())
            }
            Collected::TooLarge { read, rest } => {
                let body = stream::iter(read.into_iter().map(Ok)).chain(rest);
                self.store.put(digest, body.boxed()).await
            }
        }
    }

    async fn put_spooled(&self, digest: &Digest, blob: &SpooledBlob) -> Result<(), StoreError> {
        // What is read next is kept then; it need not be read again now.
        self.store.put_spooled(digest, blob).await
    }

    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        self.store.find_missing(digests).await
    }

    async fn delete(&self, digest: &Digest) -> Result<(), StoreError> {
        self.forget(digest);
        self.store.delete(digest).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemoryBlobStore, VerifyingBlobStore, conformance, put_bytes, read_all};

    fn stack(capacity_bytes: u64) -> (Arc<MemoryBlobStore>, MemoryTier) {
        let store = Arc::new(MemoryBlobStore::new());
        (store.clone(), MemoryTier::new(store, capacity_bytes, 4096))
    }

    #[tokio::test]
    async fn it_conforms() {
        let (below, _) = stack(0);
        let verifying = Arc::new(VerifyingBlobStore::new(below));
        for max_blob_bytes in [0, 4096, 1 << 30] {
            let tier = MemoryTier::new(verifying.clone(), 1 << 20, max_blob_bytes);
            conformance::check_content_addressed(Arc::new(tier)).await;
        }
    }

    #[tokio::test]
    async fn what_was_read_or_written_is_read_from_memory() {
        let (below, tier) = stack(1 << 20);
        let written = put_bytes(&tier, Bytes::from_static(b"written"))
            .await
            .unwrap();
        let read = put_bytes(below.as_ref(), Bytes::from_static(b"read"))
            .await
            .unwrap();
        read_all(&tier, &read, 100).await.unwrap();
        for digest in [written, read] {
            below.delete(&digest).await.unwrap();
            read_all(&tier, &digest, 100).await.unwrap();
            assert_eq!(tier.find_missing(&[digest]).await.unwrap(), [digest]);
        }
    }

    #[tokio::test]
    async fn tiers_that_share_their_memory_forget_together() {
        let (below, tier) = stack(1 << 20);
        let other = tier.above(below.clone());
        let shared = put_bytes(&tier, Bytes::from_static(b"shared"))
            .await
            .unwrap();
        below.delete(&shared).await.unwrap();
        read_all(&other, &shared, 100).await.unwrap();
        tier.forget(&shared);
        let gone = read_all(&other, &shared, 100).await;
        assert!(matches!(gone, Err(StoreError::NotFound { .. })));
    }

    #[tokio::test]
    async fn the_least_recently_used_goes_first() {
        let (below, tier) = stack(2 * (1000 + ENTRY_OVERHEAD_BYTES));
        let mut digests = Vec::new();
        for fill in 0..2u8 {
            digests.push(
                put_bytes(&tier, Bytes::from(vec![fill; 1000]))
                    .await
                    .unwrap(),
            );
        }
        read_all(&tier, &digests[0], 1000).await.unwrap();
        digests.push(put_bytes(&tier, Bytes::from(vec![2; 1000])).await.unwrap());
        for digest in &digests {
            below.delete(digest).await.unwrap();
        }
        read_all(&tier, &digests[0], 1000).await.unwrap();
        let evicted = read_all(&tier, &digests[1], 1000).await;
        assert!(matches!(evicted, Err(StoreError::NotFound { .. })));
        read_all(&tier, &digests[2], 1000).await.unwrap();
    }
}
