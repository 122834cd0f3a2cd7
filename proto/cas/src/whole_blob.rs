//! Small blobs as single values.

use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use regatta_model::Digest;

use crate::{BlobRange, BlobStore, BlobStream, StoreError};

/// The largest piece that this crate puts into a [`BlobStream`], in bytes: large enough that the cost of a
/// piece does not matter, small enough that a few hundred streams fit in memory.
pub const MAX_PIECE_BYTES: usize = 512 * 1024;

/// The stream of a blob that is in memory, in pieces that share its memory.
#[must_use]
pub fn stream_of(bytes: Bytes) -> BlobStream {
    stream::iter(Pieces { rest: bytes }.map(Ok)).boxed()
}

struct Pieces {
    rest: Bytes,
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.rest.is_empty() {
            return None;
        }
        Some(self.rest.split_to(self.rest.len().min(MAX_PIECE_BYTES)))
    }
}

/// The whole blob `digest`, if it has at most `limit_bytes`.
///
/// # Errors
/// [`StoreError::Full`] if the blob is larger than the limit, and every error of [`BlobStore::get`].
pub async fn read_all(
    store: &dyn BlobStore,
    digest: &Digest,
    limit_bytes: u64,
) -> Result<Bytes, StoreError> {
    let body = store.get(digest, BlobRange::ALL).await?;
    match collect_up_to(body, limit_bytes).await? {
        Collected::Whole(bytes) => Ok(bytes),
        Collected::TooLarge { .. } => Err(StoreError::Full {
            detail: format!("blob {digest} has more than the {limit_bytes} bytes that fit here"),
        }),
    }
}

/// Stores `bytes` under their digest.
///
/// # Errors
/// Those of [`BlobStore::put`].
pub async fn put_bytes(store: &dyn BlobStore, bytes: Bytes) -> Result<Digest, StoreError> {
    let digest = Digest::of(&bytes);
    store.put(&digest, stream_of(bytes)).await?;
    Ok(digest)
}

/// What became of collecting a stream.
pub(crate) enum Collected {
    /// All of it.
    Whole(Bytes),
    /// More than the limit: what was read, and the rest.
    TooLarge { read: Vec<Bytes>, rest: BlobStream },
}

/// Collects a stream that has at most `limit_bytes`.
pub(crate) async fn collect_up_to(
    mut body: BlobStream,
    limit_bytes: u64,
) -> Result<Collected, StoreError> {
    let mut read = Vec::new();
    let mut read_bytes = 0u64;
    while let Some(piece) = body.try_next().await? {
        read_bytes += piece.len() as u64;
        read.push(piece);
        if read_bytes > limit_bytes {
            return Ok(Collected::TooLarge { read, rest: body });
        }
    }
    Ok(Collected::Whole(joined(read)))
}

/// One value from many pieces; a single piece is not copied.
pub(crate) fn joined(mut pieces: Vec<Bytes>) -> Bytes {
    if pieces.len() <= 1 {
        return pieces.pop().unwrap_or_default();
    }
    let mut whole = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
    for piece in pieces {
        whole.extend_from_slice(&piece);
    }
    whole.freeze()
}

/// The part of `bytes` that `range` names, without copying.
pub(crate) fn slice_of(
    digest: &Digest,
    bytes: &Bytes,
    range: BlobRange,
) -> Result<Bytes, StoreError> {
    let (start, end) = bounds_of(digest, bytes.len() as u64, range)?;
    let index = |position| usize::try_from(position).unwrap_or(bytes.len());
    Ok(bytes.slice(index(start)..index(end)))
}

/// Where `range` begins and ends in a blob of `size_bytes`.
pub(crate) fn bounds_of(
    digest: &Digest,
    size_bytes: u64,
    range: BlobRange,
) -> Result<(u64, u64), StoreError> {
    if range.offset > size_bytes {
        return Err(StoreError::OutOfRange {
            digest: *digest,
            offset: range.offset,
        });
    }
    let end = range.length.map_or(size_bytes, |length| {
        range.offset.saturating_add(length).min(size_bytes)
    });
    Ok((range.offset, end))
}

/// Whether `range` asks for all of a blob of `size_bytes`.
pub(crate) fn is_whole(size_bytes: u64, range: BlobRange) -> bool {
    range.offset == 0 && range.length.is_none_or(|length| length >= size_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryBlobStore;

    #[tokio::test]
    async fn a_blob_larger_than_the_limit_is_refused() {
        let store = MemoryBlobStore::new();
        let digest = put_bytes(&store, Bytes::from(vec![7; 100])).await.unwrap();
        assert_eq!(read_all(&store, &digest, 100).await.unwrap().len(), 100);
        let refused = read_all(&store, &digest, 99).await;
        assert!(matches!(refused, Err(StoreError::Full { .. })));
    }

    #[tokio::test]
    async fn pieces_are_bounded_and_in_order() {
        let bytes: Bytes = (0..3 * MAX_PIECE_BYTES / 2)
            .map(|at| at.to_le_bytes()[0])
            .collect();
        let pieces: Vec<Bytes> = stream_of(bytes.clone()).try_collect().await.unwrap();
        assert_eq!(pieces.len(), 2);
        assert_eq!(joined(pieces), bytes);
    }

    #[track_caller]
    fn check_bounds(offset: u64, length: Option<u64>, expected: Option<(u64, u64)>) {
        let bounds = bounds_of(&Digest::EMPTY, 10, BlobRange { offset, length });
        assert_eq!(bounds.ok(), expected);
    }

    #[test]
    fn ranges_end_where_the_blob_ends() {
        check_bounds(0, None, Some((0, 10)));
        check_bounds(4, Some(3), Some((4, 7)));
        check_bounds(4, Some(u64::MAX), Some((4, 10)));
        check_bounds(10, None, Some((10, 10)));
        check_bounds(11, Some(0), None);
    }
}
