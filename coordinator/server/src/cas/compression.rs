//! Blobs that come compressed (REAPI, `compressed-blobs/zstd`).

use std::sync::Arc;

use regatta_cas::{BlobStore, BlobStream, StoreError, decompressed_body};
use regatta_model::Digest;
use tokio::sync::Semaphore;

/// How many bodies are decompressed at once: each may take a window of 8 MiB.
const CONCURRENT_DECOMPRESSIONS: usize = 32;

/// Stores what comes compressed, a bounded number at a time.
#[derive(Debug, Clone)]
pub(crate) struct CompressedBlobs {
    places: Arc<Semaphore>,
}

impl CompressedBlobs {
    /// Nothing is stored yet.
    pub(crate) fn new() -> Self {
        Self {
            places: Arc::new(Semaphore::new(CONCURRENT_DECOMPRESSIONS)),
        }
    }

    /// Stores the blob that `compressed` becomes in `blobs`, once it has turned out to be the right one.
    pub(crate) async fn put(
        &self,
        blobs: &dyn BlobStore,
        digest: &Digest,
        compressed: BlobStream,
    ) -> Result<(), StoreError> {
        let place = self.places.acquire().await;
        let _place = place.map_err(|_| StoreError::Unavailable {
            detail: "the server is stopping".to_owned(),
        })?;
        blobs
            .put(digest, decompressed_body(*digest, compressed))
            .await
    }
}
