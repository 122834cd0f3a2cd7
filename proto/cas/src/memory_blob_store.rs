//! Blobs in a map.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _};
use regatta_model::Digest;

use crate::whole_blob::{Collected, collect_up_to, slice_of};
use crate::{BlobRange, BlobStore, BlobStream, ListedBlobStore, StoreError, stream_of};

/// Keeps blobs in memory, up to a capacity: for tests, and for fleets that live as long as one process.
///
/// It does not look at the bytes, so it can also be keyed.
pub struct MemoryBlobStore {
    capacity_bytes: u64,
    shelf: Mutex<Shelf>,
}

#[derive(Default)]
struct Shelf {
    blobs: HashMap<Digest, Bytes>,
    used_bytes: u64,
}

impl MemoryBlobStore {
    /// An empty store that grows as far as memory allows.
    #[must_use]
    pub fn new() -> Self {
        Self::with_capacity_bytes(u64::MAX)
    }

    /// An empty store that refuses to hold more than `capacity_bytes`.
    #[must_use]
    pub fn with_capacity_bytes(capacity_bytes: u64) -> Self {
        Self {
            capacity_bytes,
            shelf: Mutex::default(),
        }
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        // Nothing panics while it holds this lock, and the map would be whole if it did.
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn full(&self) -> StoreError {
        StoreError::Full {
            detail: format!("the memory store may hold {} bytes", self.capacity_bytes),
        }
    }
}

impl Default for MemoryBlobStore {
    fn default() -> Self {
        Self::new()
    }
}

impl Shelf {
    fn insert(&mut self, digest: Digest, bytes: Bytes) {
        self.used_bytes += bytes.len() as u64;
        if let Some(replaced) = self.blobs.insert(digest, bytes) {
            self.used_bytes -= replaced.len() as u64;
        }
    }

    fn remove(&mut self, digest: &Digest) {
        if let Some(removed) = self.blobs.remove(digest) {
            self.used_bytes -= removed.len() as u64;
        }
    }
}

impl fmt::Debug for MemoryBlobStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shelf = self.shelf();
        formatter
            .debug_struct("MemoryBlobStore")
            .field("blobs", &shelf.blobs.len())
            .field("used_bytes", &shelf.used_bytes)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl BlobStore for MemoryBlobStore {
    async fn get(&self, digest: &Digest, range: BlobRange) -> Result<BlobStream, StoreError> {
        let bytes = self.shelf().blobs.get(digest).cloned();
        let bytes = bytes.ok_or(StoreError::NotFound { digest: *digest })?;
        slice_of(digest, &bytes, range).map(stream_of)
    }

    async fn put(&self, digest: &Digest, body: BlobStream) -> Result<(), StoreError> {
        let Collected::Whole(bytes) = collect_up_to(body, self.capacity_bytes).await? else {
            return Err(self.full());
        };
        let mut shelf = self.shelf();
        let replaced_bytes = shelf.blobs.get(digest).map_or(0, |blob| blob.len() as u64);
        let used_bytes = shelf.used_bytes - replaced_bytes + bytes.len() as u64;
        if used_bytes > self.capacity_bytes {
            return Err(self.full());
        }
        shelf.insert(*digest, bytes);
        Ok(())
    }

    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        let shelf = self.shelf();
        let missing = digests
            .iter()
            .filter(|digest| !shelf.blobs.contains_key(digest));
        Ok(missing.copied().collect())
    }

    async fn delete(&self, digest: &Digest) -> Result<(), StoreError> {
        self.shelf().remove(digest);
        Ok(())
    }
}

impl ListedBlobStore for MemoryBlobStore {
    fn list(&self) -> BoxStream<'static, Result<Digest, StoreError>> {
        let listed: Vec<Digest> = self.shelf().blobs.keys().copied().collect();
        stream::iter(listed).map(Ok).boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{conformance, put_bytes};

    #[tokio::test]
    async fn it_conforms() {
        let store = Arc::new(MemoryBlobStore::new());
        conformance::check_keyed(store.clone()).await;
        conformance::check_held_in_memory(store).await;
    }

    #[tokio::test]
    async fn it_refuses_more_than_its_capacity_and_forgets_what_is_deleted() {
        let store = MemoryBlobStore::with_capacity_bytes(10);
        let first = put_bytes(&store, Bytes::from_static(b"12345678"))
            .await
            .unwrap();
        let second = put_bytes(&store, Bytes::from_static(b"abc")).await;
        assert!(matches!(second, Err(StoreError::Full { .. })));
        store.delete(&first).await.unwrap();
        put_bytes(&store, Bytes::from_static(b"abc")).await.unwrap();
    }
}
