//! Output of commands: inline or in the store, whole or its last part.

use bytes::Bytes;
use futures::TryStreamExt as _;
use regatta_cas::{BlobRange, BlobStore, StoreError, read_all};
use regatta_model::Digest;
use regatta_wire::reapi;

/// The whole of an output that has at most `limit_bytes`.
pub(super) async fn whole(
    blobs: &dyn BlobStore,
    inline: &Bytes,
    digest: Option<&reapi::Digest>,
    limit_bytes: u64,
) -> Result<Bytes, StoreError> {
    match stored(inline, digest) {
        Some(digest) => read_all(blobs, &digest, limit_bytes).await,
        None => Ok(inline.clone()),
    }
}

/// The last `limit_bytes` of an output; a copy, so that it does not keep the rest in memory.
pub(super) async fn tail(
    blobs: &dyn BlobStore,
    inline: &Bytes,
    digest: Option<&reapi::Digest>,
    limit_bytes: u64,
) -> Result<Bytes, StoreError> {
    let Some(digest) = stored(inline, digest) else {
        let limit = usize::try_from(limit_bytes).unwrap_or(usize::MAX);
        let start = inline.len().saturating_sub(limit);
        return Ok(Bytes::copy_from_slice(&inline[start..]));
    };
    let offset = digest.size_bytes().saturating_sub(limit_bytes);
    read_from(blobs, &digest, offset).await
}

/// The last `limit_bytes` of an output, for people. Output that cannot be read is left out: where it is
/// only shown, its absence decides nothing.
pub(super) async fn tail_to_show(
    blobs: &dyn BlobStore,
    inline: &Bytes,
    digest: Option<&reapi::Digest>,
    limit_bytes: u64,
) -> Bytes {
    let tail = tail(blobs, inline, digest, limit_bytes).await;
    tail.unwrap_or_else(|error| {
        tracing::warn!(%error, "an output cannot be read");
        Bytes::new()
    })
}

/// Where an output is, if it is not inline.
fn stored(inline: &Bytes, digest: Option<&reapi::Digest>) -> Option<Digest> {
    let digest: Digest = digest?.try_into().ok()?;
    (inline.is_empty() && !digest.is_empty_blob()).then_some(digest)
}

async fn read_from(
    blobs: &dyn BlobStore,
    digest: &Digest,
    offset: u64,
) -> Result<Bytes, StoreError> {
    let body = blobs
        .get(
            digest,
            BlobRange {
                offset,
                length: None,
            },
        )
        .await?;
    let pieces: Vec<Bytes> = body.try_collect().await?;
    Ok(pieces.concat().into())
}

#[cfg(test)]
mod tests {
    use regatta_cas::MemoryBlobStore;

    use super::*;

    #[tokio::test]
    async fn a_tail_is_a_copy_and_an_error_is_told() {
        let blobs = MemoryBlobStore::new();
        let inline = Bytes::from("x".repeat(1000));
        let end = tail(&blobs, &inline, None, 10).await.expect("is there");
        assert_eq!(end.len(), 10);
        assert!(inline.is_unique(), "the tail holds on to all of it");
        let gone: reapi::Digest = Digest::of(b"gone").into();
        let missing = tail(&blobs, &Bytes::new(), Some(&gone), 10).await;
        assert!(missing.is_err());
        let shown = tail_to_show(&blobs, &Bytes::new(), Some(&gone), 10).await;
        assert!(shown.is_empty());
    }
}
