//! Chunks into a blob.

use std::sync::Arc;

use regatta_model::Digest;

use crate::chunked_blob_store::parts_in_order;
use crate::{BlobRange, BlobStore, BlobStream};

/// The bytes of `chunks`, one chunk after the other. It ends with the error of the first that cannot be
/// read, [`crate::StoreError::NotFound`] if it is absent; whether the whole is what somebody expects is for
/// the reader to check.
#[must_use]
pub fn concatenated(store: Arc<dyn BlobStore>, chunks: Vec<Digest>) -> BlobStream {
    let parts = chunks.into_iter().map(|chunk| (chunk, BlobRange::ALL));
    parts_in_order(store, parts.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemoryBlobStore, StoreError, put_bytes};
    use bytes::Bytes;
    use futures::{StreamExt as _, TryStreamExt as _};

    #[tokio::test]
    async fn chunks_come_in_order_until_one_is_missing() {
        let store = Arc::new(MemoryBlobStore::new());
        let mut chunks = Vec::new();
        for chunk in ["a", "bc", "", "a"] {
            chunks.push(put_bytes(store.as_ref(), chunk.into()).await.unwrap());
        }
        let whole: Vec<Bytes> = concatenated(store.clone(), chunks.clone())
            .try_collect()
            .await
            .unwrap();
        assert_eq!(whole.concat(), b"abca");
        chunks.insert(1, Digest::of(b"gone"));
        let mut broken = concatenated(store, chunks);
        assert_eq!(broken.next().await.unwrap().unwrap(), "a");
        let error = broken.next().await.unwrap().unwrap_err();
        assert!(
            matches!(error, StoreError::NotFound { digest } if digest == Digest::of(b"gone")),
            "{error}"
        );
    }
}
