//! The blob of no bytes.

use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt as _;
use regatta_model::Digest;

use crate::{BlobRange, BlobStore, BlobStream, SpooledBlob, StoreError, checked_body, stream_of};

/// Answers for the empty blob, which every content-addressed store has without being given it (REAPI,
/// `ContentAddressableStorage`), and passes every other blob on.
#[derive(Debug)]
pub struct EmptyBlobStore {
    store: Arc<dyn BlobStore>,
}

impl EmptyBlobStore {
    /// Adds the empty blob to `store`.
    #[must_use]
    pub fn new(store: Arc<dyn BlobStore>) -> Self {
        Self { store }
    }
}

/// Reads a body that must have no bytes.
async fn drain(body: BlobStream) -> Result<(), StoreError> {
    let mut body = checked_body(Digest::EMPTY, body);
    while let Some(piece) = body.next().await {
        piece?;
    }
    Ok(())
}

#[async_trait]
impl BlobStore for EmptyBlobStore {
    async fn get(&self, digest: &Digest, range: BlobRange) -> Result<BlobStream, StoreError> {
        if !digest.is_empty_blob() {
            return self.store.get(digest, range).await;
        }
        if range.offset > 0 {
            return Err(StoreError::OutOfRange {
                digest: *digest,
                offset: range.offset,
            });
        }
        Ok(stream_of(bytes::Bytes::new()))
    }

    async fn put(&self, digest: &Digest, body: BlobStream) -> Result<(), StoreError> {
        if digest.is_empty_blob() {
            return drain(body).await;
        }
        self.store.put(digest, body).await
    }

    async fn put_spooled(&self, digest: &Digest, blob: &SpooledBlob) -> Result<(), StoreError> {
        if digest.is_empty_blob() {
            return drain(blob.body()?).await;
        }
        self.store.put_spooled(digest, blob).await
    }

    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        if !digests.iter().any(Digest::is_empty_blob) {
            return self.store.find_missing(digests).await;
        }
        let others: Vec<Digest> = digests
            .iter()
            .filter(|digest| !digest.is_empty_blob())
            .copied()
            .collect();
        self.store.find_missing(&others).await
    }

    async fn delete(&self, digest: &Digest) -> Result<(), StoreError> {
        if digest.is_empty_blob() {
            return Ok(());
        }
        self.store.delete(digest).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemoryBlobStore, conformance, read_all};
    use bytes::Bytes;

    fn stack() -> (Arc<MemoryBlobStore>, EmptyBlobStore) {
        let store = Arc::new(MemoryBlobStore::new());
        (store.clone(), EmptyBlobStore::new(store))
    }

    #[tokio::test]
    async fn it_conforms() {
        conformance::check_keyed(Arc::new(stack().1)).await;
    }

    #[tokio::test]
    async fn the_empty_blob_is_there_and_is_never_stored() {
        let (below, store) = stack();
        let empty = Digest::EMPTY;
        assert_eq!(read_all(&store, &empty, 0).await.unwrap(), Bytes::new());
        store.put(&empty, stream_of(Bytes::new())).await.unwrap();
        store.delete(&empty).await.unwrap();
        let other = Digest::of(b"other");
        let missing = store.find_missing(&[empty, other, empty]).await.unwrap();
        assert_eq!(missing, [other]);
        assert_eq!(below.find_missing(&[empty]).await.unwrap(), [empty]);
    }

    #[tokio::test]
    async fn bytes_are_not_the_empty_blob() {
        let (_, store) = stack();
        let put = store
            .put(&Digest::EMPTY, stream_of(Bytes::from_static(b"x")))
            .await;
        assert!(matches!(put, Err(StoreError::Corrupt { .. })));
        let range = BlobRange {
            offset: 1,
            length: None,
        };
        let got = store.get(&Digest::EMPTY, range).await.map(drop);
        assert!(matches!(got, Err(StoreError::OutOfRange { .. })));
    }
}
