//! Chunks into a blob.

use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use regatta_model::Digest;

use crate::{BlobRange, BlobStore, BlobStream};

/// How many chunks are opened ahead of the one that is read.
const OPENED_AHEAD: usize = 4;

/// The bytes of `chunks`, one chunk after the other. It ends with the error of the first that cannot be
/// read, [`crate::StoreError::NotFound`] if it is absent; whether the whole is what somebody expects is for
/// the reader to check.
#[must_use]
pub fn concatenated(store: Arc<dyn BlobStore>, chunks: Vec<Digest>) -> BlobStream {
    stream::iter(chunks)
        .map(move |chunk| {
            let store = Arc::clone(&store);
            async move { store.get(&chunk, BlobRange::ALL).await }
        })
        .buffered(OPENED_AHEAD)
        .try_flatten()
        .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemoryBlobStore, StoreError, put_bytes};
    use bytes::Bytes;

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
