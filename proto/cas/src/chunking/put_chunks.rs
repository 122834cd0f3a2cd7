//! A blob into a store, chunk by chunk.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use regatta_model::Digest;

use super::{Chunker, ChunkingParams};
use crate::{BlobStore, BlobStream, StoreError, checked_body, stream_of};

/// How many bytes of chunks are asked about at once.
const WINDOW_BYTES: usize = 8 << 20;
/// How many of these are under way at a time: one is asked about while another is sent.
const WINDOWS_IN_FLIGHT: usize = 2;
/// How many chunks of one are on their way at a time.
const PUT_CONCURRENCY: usize = 8;

/// Cuts `body`, which must be the blob `digest`, and stores those chunks that `store` does not have. The
/// chunks' digests come in the order in which they make up the blob.
///
/// At most [`WINDOWS_IN_FLIGHT`] and one windows of [`WINDOW_BYTES`] are in memory.
///
/// # Errors
/// [`StoreError::Corrupt`] if the body is another blob, whatever error it ended with, and those of the
/// store. The chunks that were stored before stay.
pub async fn put_chunks(
    store: &dyn BlobStore,
    params: ChunkingParams,
    digest: &Digest,
    body: BlobStream,
) -> Result<Vec<Digest>, StoreError> {
    let chunks: Vec<Vec<Digest>> = windows(params, checked_body(*digest, body))
        .map_ok(|window| put_window(store, window))
        .try_buffered(WINDOWS_IN_FLIGHT)
        .try_collect()
        .await?;
    Ok(chunks.concat())
}

/// Neighbouring chunks, with their digests.
type Window = Vec<(Digest, Bytes)>;

async fn put_window(store: &dyn BlobStore, window: Window) -> Result<Vec<Digest>, StoreError> {
    let digests: Vec<Digest> = window.iter().map(|(digest, _)| *digest).collect();
    let different: BTreeSet<Digest> = digests.iter().copied().collect();
    let different: Vec<Digest> = different.into_iter().collect();
    let missing = store.find_missing(&different).await?;
    let mut chunks: BTreeMap<Digest, Bytes> = window.into_iter().collect();
    let missing = missing
        .into_iter()
        .filter_map(|digest| chunks.remove(&digest).map(|chunk| (digest, chunk)));
    stream::iter(missing.collect::<Window>())
        .map(|(digest, chunk)| async move { store.put(&digest, stream_of(chunk)).await })
        .buffer_unordered(PUT_CONCURRENCY)
        .try_collect::<()>()
        .await?;
    Ok(digests)
}

/// The chunks of a blob in windows.
fn windows(
    params: ChunkingParams,
    body: BlobStream,
) -> impl Stream<Item = Result<Window, StoreError>> + Send {
    let cutting = Cutting {
        chunker: Some(Chunker::new(params)),
        body,
        last: VecDeque::new(),
    };
    stream::try_unfold(cutting, |mut cutting| async move {
        let window = cutting.window().await?;
        Ok((!window.is_empty()).then_some((window, cutting)))
    })
}

struct Cutting {
    /// `None` when the body has ended.
    chunker: Option<Chunker>,
    body: BlobStream,
    /// The chunks that the end of the body made known.
    last: VecDeque<Bytes>,
}

impl Cutting {
    /// The next window; none of an ended blob has no chunks.
    async fn window(&mut self) -> Result<Window, StoreError> {
        let (mut window, mut window_bytes) = (Window::new(), 0);
        while window_bytes < WINDOW_BYTES
            && let Some(chunk) = self.chunk().await?
        {
            window_bytes += chunk.len();
            window.push((Digest::of(&chunk), chunk));
        }
        Ok(window)
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, StoreError> {
        while let Some(chunker) = &mut self.chunker {
            if let Some(chunk) = chunker.next_chunk() {
                return Ok(Some(chunk));
            }
            match self.body.try_next().await? {
                Some(piece) => chunker.push(&piece),
                None => {
                    self.last = self
                        .chunker
                        .take()
                        .map(Chunker::finish)
                        .unwrap_or_default()
                        .into()
                }
            }
        }
        Ok(self.last.pop_front())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemoryBlobStore, concatenated, read_all};
    use std::sync::Arc;

    fn blob() -> Bytes {
        // Zeros in the middle make chunks that are all the same.
        let noise = |seed: u32| {
            (0..5_000_000u32).map(move |at| (at ^ seed).wrapping_mul(0x9e37_79b1).to_be_bytes()[0])
        };
        noise(1).chain(vec![0; 20 << 20]).chain(noise(2)).collect()
    }

    #[tokio::test]
    async fn the_chunks_make_up_the_blob() {
        let (store, blob) = (Arc::new(MemoryBlobStore::new()), blob());
        let digest = Digest::of(&blob);
        let params = ChunkingParams::RECOMMENDED;
        let put = put_chunks(store.as_ref(), params, &digest, stream_of(blob.clone()));
        let chunks = put.await.unwrap();
        let whole: Vec<Bytes> = concatenated(store.clone(), chunks)
            .try_collect()
            .await
            .unwrap();
        assert!(whole.concat() == blob);
        assert_eq!(store.find_missing(&[digest]).await.unwrap(), [digest]);
    }

    #[tokio::test]
    async fn another_blob_is_refused() {
        let store = MemoryBlobStore::new();
        let params = ChunkingParams::RECOMMENDED;
        let put = put_chunks(
            &store,
            params,
            &Digest::of(b"right"),
            stream_of("wrong".into()),
        )
        .await;
        assert!(matches!(put, Err(StoreError::Corrupt { .. })), "{put:?}");
        let read = read_all(&store, &Digest::of(b"wrong"), 10).await;
        assert!(matches!(read, Err(StoreError::NotFound { .. })), "{read:?}");
    }
}
