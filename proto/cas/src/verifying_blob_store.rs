//! Nothing wrong gets in, nothing wrong gets out.

use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt as _;
use regatta_model::Digest;

use crate::whole_blob::is_whole;
use crate::{BlobRange, BlobStore, BlobStream, StoreError, checked_body};

/// Makes a store content-addressed: bytes that do not have the digest they come under never become
/// visible, and a blob that went bad in the store is deleted when it is read, so that it can be uploaded
/// again.
///
/// A write is refused by ending the body below with [`StoreError::Corrupt`], after which the port forbids
/// the store to show anything. Reads of a part of a blob are passed on unverified.
#[derive(Debug)]
pub struct VerifyingBlobStore {
    store: Arc<dyn BlobStore>,
}

impl VerifyingBlobStore {
    /// Verifies what goes in and out of `store`.
    #[must_use]
    pub fn new(store: Arc<dyn BlobStore>) -> Self {
        Self { store }
    }
}

/// Deletes the blob below when its stream proves it corrupt, before the reader learns of it.
fn deleting_if_corrupt(store: Arc<dyn BlobStore>, digest: Digest, body: BlobStream) -> BlobStream {
    body.then(move |piece| {
        let store = Arc::clone(&store);
        async move {
            if let Err(StoreError::Corrupt { actual, .. }) = &piece {
                delete_corrupt(store.as_ref(), &digest, actual).await;
            }
            piece
        }
    })
    .boxed()
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
        // Asking for no length lets bytes beyond the expected end be seen.
        let body = self.store.get(digest, BlobRange::ALL).await?;
        let checked = checked_body(*digest, body);
        Ok(deleting_if_corrupt(
            Arc::clone(&self.store),
            *digest,
            checked,
        ))
    }

    async fn put(&self, digest: &Digest, body: BlobStream) -> Result<(), StoreError> {
        self.store.put(digest, checked_body(*digest, body)).await
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
    use crate::{MemoryBlobStore, conformance, read_all, stream_of};
    use bytes::Bytes;

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
}
