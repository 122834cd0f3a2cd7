//! A store whose deletions a test has part in.

use super::*;

/// What is done ahead of a deletion.
type OnDelete = Box<dyn Fn(Digest) -> BoxFuture<'static, ()> + Send + Sync>;

/// Deletes once the test has done something of its own.
pub(super) struct WatchedDeletions {
    store: regatta_cas::MemoryBlobStore,
    on_delete: OnDelete,
}

impl WatchedDeletions {
    /// An empty one.
    pub(super) fn with(
        on_delete: impl Fn(Digest) -> BoxFuture<'static, ()> + Send + Sync + 'static,
    ) -> Arc<dyn BlobStore> {
        Arc::new(Self {
            store: regatta_cas::MemoryBlobStore::new(),
            on_delete: Box::new(on_delete),
        })
    }
}

impl fmt::Debug for WatchedDeletions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("WatchedDeletions")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl BlobStore for WatchedDeletions {
    async fn get(&self, digest: &Digest, range: BlobRange) -> Result<BlobStream, StoreError> {
        self.store.get(digest, range).await
    }

    async fn put(&self, digest: &Digest, body: BlobStream) -> Result<(), StoreError> {
        self.store.put(digest, body).await
    }

    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        self.store.find_missing(digests).await
    }

    async fn delete(&self, digest: &Digest) -> Result<(), StoreError> {
        (self.on_delete)(*digest).await;
        self.store.delete(digest).await
    }
}
