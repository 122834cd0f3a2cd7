use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures::FutureExt as _;
use regatta_wire::reapi::chunking_function::Value as ChunkingFunction;

use super::*;
use crate::{MemoryBlobStore, VerifyingBlobStore, conformance, put_bytes, put_chunks};

struct Stack {
    below: Arc<MemoryBlobStore>,
    mappings: Arc<MemoryBlobStore>,
    store: Arc<ChunkedBlobStore>,
}

fn stack() -> Stack {
    let (below, mappings) = (
        Arc::<MemoryBlobStore>::default(),
        Arc::<MemoryBlobStore>::default(),
    );
    let verified = Arc::new(VerifyingBlobStore::new(below.clone()));
    Stack {
        store: Arc::new(ChunkedBlobStore::new(verified, mappings.clone())),
        below,
        mappings,
    }
}

fn noise(length: u32) -> Bytes {
    (0..length)
        .map(|at| {
            at.wrapping_mul(0x9e37_79b1)
                .rotate_left(at % 31)
                .to_be_bytes()[0]
        })
        .collect()
}

impl Stack {
    /// Stores a blob as a whole, then keeps it as chunks.
    async fn put_as_chunks(&self, blob: &Bytes) -> (Digest, ChunkMapping) {
        let digest = put_bytes(self.store.as_ref(), blob.clone()).await.unwrap();
        let mapping = self.cut(&digest, blob).await;
        self.store.keep_as_chunks(&digest, &mapping).await.unwrap();
        (digest, mapping)
    }

    async fn cut(&self, digest: &Digest, blob: &Bytes) -> ChunkMapping {
        let body = stream_of(blob.clone());
        let params = ChunkingParams::RECOMMENDED;
        let chunks = put_chunks(self.store.as_ref(), params, digest, body).await;
        ChunkMapping {
            chunks: chunks.unwrap(),
            function: ChunkingFunction::FastCdc2020,
        }
    }
}

#[tokio::test]
async fn it_conforms() {
    conformance::check_content_addressed(stack().store).await;
}

#[tokio::test]
async fn a_blob_stays_whole_if_a_chunk_of_it_is_none() {
    let (stack, blob) = (stack(), noise(5_000_000));
    let digest = put_bytes(stack.store.as_ref(), blob.clone()).await.unwrap();
    let mapping = stack.cut(&digest, &blob).await;
    let gone = mapping.chunks[1];
    stack.below.delete(&gone).await.unwrap();
    let kept = stack.store.keep_as_chunks(&digest, &mapping).await;
    let refused = kept.expect_err("a chunk is missing");
    assert!(
        matches!(refused, StoreError::NotFound { digest } if digest == gone),
        "{refused}"
    );
    assert_eq!(stack.below.find_missing(&[digest]).await.unwrap(), []);
}

#[tokio::test]
async fn a_blob_is_kept_once_and_any_part_of_it_can_be_read() {
    let (stack, blob) = (stack(), noise(5_000_000));
    let (digest, mapping) = stack.put_as_chunks(&blob).await;
    assert!(mapping.chunks.len() > 2, "{}", mapping.chunks.len());
    assert_eq!(stack.below.find_missing(&[digest]).await.unwrap(), [digest]);
    assert_eq!(stack.store.find_missing(&[digest]).await.unwrap(), []);
    assert_eq!(stack.store.mapping(&digest).await.unwrap(), Some(mapping));
    assert!(
        read_all(stack.store.as_ref(), &digest, u64::MAX)
            .await
            .unwrap()
            == blob
    );
    for (offset, length) in [
        (0, None),
        (3_000_000, None),
        (1, Some(4_000_000)),
        (5_000_000, None),
        (7, Some(0)),
    ] {
        let body = stack
            .store
            .get(&digest, BlobRange { offset, length })
            .await
            .unwrap();
        let pieces: Vec<Bytes> = body.try_collect().await.unwrap();
        let start = usize::try_from(offset).unwrap();
        let end = length.map_or(blob.len(), |length| {
            start + usize::try_from(length).unwrap()
        });
        assert!(pieces.concat() == blob[start..end], "{offset} {length:?}");
    }
    let beyond = BlobRange {
        offset: 5_000_001,
        length: None,
    };
    let refused = stack.store.get(&digest, beyond).await.err();
    assert!(
        matches!(refused, Some(StoreError::OutOfRange { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_blob_that_lacks_a_chunk_is_missing_until_it_comes_again() {
    let (stack, blob) = (stack(), noise(5_000_000));
    let (digest, mapping) = stack.put_as_chunks(&blob).await;
    stack.below.delete(&mapping.chunks[1]).await.unwrap();
    assert_eq!(stack.store.find_missing(&[digest]).await.unwrap(), [digest]);
    assert_eq!(stack.store.mapping(&digest).await.unwrap(), None);
    let read = read_all(stack.store.as_ref(), &digest, u64::MAX).await;
    assert!(
        matches!(&read, Err(StoreError::NotFound { digest: named }) if *named == digest),
        "{read:?}"
    );
    put_bytes(stack.store.as_ref(), blob.clone()).await.unwrap();
    assert_eq!(stack.store.find_missing(&[digest]).await.unwrap(), []);
    assert!(
        read_all(stack.store.as_ref(), &digest, u64::MAX)
            .await
            .unwrap()
            == blob
    );
}

#[tokio::test]
async fn a_damaged_chunk_is_an_error_and_then_the_blob_is_missing() {
    let (stack, blob) = (stack(), noise(5_000_000));
    let (digest, mapping) = stack.put_as_chunks(&blob).await;
    let chunk = mapping.chunks[1];
    stack
        .below
        .put(&chunk, stream_of(Bytes::from_static(b"bad")))
        .await
        .unwrap();
    let read = read_all(stack.store.as_ref(), &digest, u64::MAX).await;
    assert!(
        matches!(&read, Err(StoreError::Corrupt { expected, .. }) if *expected == chunk),
        "{read:?}"
    );
    assert_eq!(
        stack.store.find_missing(&[digest, chunk]).await.unwrap(),
        [digest, chunk]
    );
}

#[tokio::test]
async fn a_damaged_mapping_is_none() {
    let (stack, blob) = (stack(), noise(5_000_000));
    let (digest, _) = stack.put_as_chunks(&blob).await;
    stack
        .mappings
        .put(&digest, stream_of(Bytes::from_static(b"bad")))
        .await
        .unwrap();
    assert_eq!(stack.store.find_missing(&[digest]).await.unwrap(), [digest]);
    let read = read_all(stack.store.as_ref(), &digest, u64::MAX).await;
    assert!(matches!(read, Err(StoreError::NotFound { .. })), "{read:?}");
}

#[tokio::test]
async fn a_forgotten_blob_leaves_its_chunks() {
    let (stack, blob) = (stack(), noise(5_000_000));
    let (digest, mapping) = stack.put_as_chunks(&blob).await;
    stack.store.delete(&digest).await.unwrap();
    assert_eq!(stack.store.find_missing(&[digest]).await.unwrap(), [digest]);
    assert_eq!(stack.store.find_missing(&mapping.chunks).await.unwrap(), []);
}

#[tokio::test]
async fn a_blob_that_is_its_own_chunk_stays() {
    let (stack, blob) = (stack(), noise(100_000));
    let (digest, mapping) = stack.put_as_chunks(&blob).await;
    assert_eq!(mapping.chunks, [digest]);
    assert_eq!(stack.store.find_missing(&[digest]).await.unwrap(), []);
    assert_eq!(stack.below.find_missing(&[digest]).await.unwrap(), []);
}

#[tokio::test]
async fn what_is_missing_keeps_its_order() {
    let (stack, blob) = (stack(), noise(5_000_000));
    let (digest, _) = stack.put_as_chunks(&blob).await;
    let large = |seed| Digest::new([seed; 32], 1 << 20);
    let small = |seed| Digest::new([seed; 32], 1 << 10);
    let asked = [large(9), small(1), digest, large(3), small(7)];
    let expected = [large(9), small(1), large(3), small(7)];
    assert_eq!(stack.store.find_missing(&asked).await.unwrap(), expected);
}

/// What a store was asked to do, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Done {
    AskedFor(Digest),
    Read(Digest),
    Deleted(Digest),
    Settled,
}

#[derive(Debug, Default)]
struct Recording {
    store: MemoryBlobStore,
    done: std::sync::Mutex<Vec<Done>>,
    cannot_settle: bool,
}

impl Recording {
    fn note(&self, done: Done) {
        self.done.lock().unwrap().push(done);
    }

    fn take(&self) -> Vec<Done> {
        std::mem::take(&mut *self.done.lock().unwrap())
    }
}

#[async_trait]
impl BlobStore for Recording {
    async fn get(&self, digest: &Digest, range: BlobRange) -> Result<BlobStream, StoreError> {
        let found = self.store.get(digest, range).await?;
        self.note(Done::Read(*digest));
        Ok(found)
    }

    async fn put(&self, digest: &Digest, body: BlobStream) -> Result<(), StoreError> {
        self.store.put(digest, body).await
    }

    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        digests
            .iter()
            .for_each(|digest| self.note(Done::AskedFor(*digest)));
        self.store.find_missing(digests).await
    }

    async fn delete(&self, digest: &Digest) -> Result<(), StoreError> {
        self.note(Done::Deleted(*digest));
        self.store.delete(digest).await
    }
}

#[async_trait]
impl Durability for Recording {
    async fn settle(&self) -> Result<(), StoreError> {
        self.note(Done::Settled);
        match self.cannot_settle {
            true => Err(StoreError::Unavailable {
                detail: "the disk".to_owned(),
            }),
            false => Ok(()),
        }
    }
}

async fn cut_in(store: &ChunkedBlobStore, blob: &Bytes) -> (Digest, ChunkMapping) {
    let digest = put_bytes(store, blob.clone()).await.unwrap();
    let body = stream_of(blob.clone());
    let chunks = put_chunks(store, ChunkingParams::RECOMMENDED, &digest, body).await;
    let mapping = ChunkMapping {
        chunks: chunks.unwrap(),
        function: ChunkingFunction::FastCdc2020,
    };
    (digest, mapping)
}

#[tokio::test]
async fn a_part_of_a_blob_costs_the_chunks_that_have_it() {
    let below = Arc::new(Recording::default());
    let store = ChunkedBlobStore::new(below.clone(), Arc::new(MemoryBlobStore::new()));
    let blob = noise(9_000_000);
    let (digest, mapping) = cut_in(&store, &blob).await;
    store.keep_as_chunks(&digest, &mapping).await.unwrap();
    assert!(mapping.chunks.len() > 6, "{}", mapping.chunks.len());
    below.take();
    let offset = mapping.chunks[0].size_bytes() + 10;
    let length = Some(20);
    let body = store.get(&digest, BlobRange { offset, length }).await;
    let pieces: Vec<Bytes> = body.unwrap().try_collect().await.unwrap();
    let start = usize::try_from(offset).unwrap();
    assert!(pieces.concat() == blob[start..start + 20]);
    let chunk = mapping.chunks[1];
    assert_eq!(below.take(), [Done::AskedFor(chunk), Done::Read(chunk)]);
    // What the part does not need may be missing; the blob is, then.
    below.store.delete(&mapping.chunks[3]).await.unwrap();
    let body = store.get(&digest, BlobRange { offset, length }).await;
    assert!(body.is_ok());
    let whole = store.get(&digest, BlobRange::ALL).await.map(drop);
    assert!(matches!(whole, Err(StoreError::NotFound { digest: named }) if named == digest));
}

#[tokio::test]
async fn a_whole_is_forgotten_only_once_its_chunks_are_safe() {
    for cannot_settle in [false, true] {
        let below = Arc::new(Recording {
            cannot_settle,
            ..Recording::default()
        });
        let store = ChunkedBlobStore::new(below.clone(), Arc::new(MemoryBlobStore::new()));
        let store = store.with_durability(below.clone());
        let (digest, mapping) = cut_in(&store, &noise(5_000_000)).await;
        below.take();
        let kept = store.keep_as_chunks(&digest, &mapping).await;
        assert_eq!(kept.is_err(), cannot_settle);
        let done = below.take();
        let done = done.iter().filter(|it| !matches!(it, Done::AskedFor(_)));
        let expected = [Done::Settled, Done::Deleted(digest)];
        let expected = &expected[..if cannot_settle { 1 } else { 2 }];
        assert!(done.eq(expected), "{cannot_settle}");
    }
}

#[tokio::test]
async fn a_blob_that_came_in_chunks_waits_for_no_disk() {
    let below = Arc::new(Recording {
        cannot_settle: true,
        ..Recording::default()
    });
    let stored = noise(5_000_000);
    let (digest, writer) = (Digest::of(&stored), below.clone());
    let is_told = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&is_told);
    // Somebody brings the whole at the last moment.
    let on_split = move |blob: &Digest, _: &[Digest]| {
        told.store(*blob == digest, Ordering::SeqCst);
        put_bytes(&writer.store, stored.clone()).now_or_never();
        Some(Box::new(Leaving) as Box<dyn LeavingWhole>)
    };
    let store = ChunkedBlobStore::new(below.clone(), Arc::new(MemoryBlobStore::new()));
    let store = store.with_durability(below.clone());
    let store = store.with_splits_observed(Arc::new(on_split));
    let (_, mapping) = cut_in(&store, &noise(5_000_000)).await;
    below.store.delete(&digest).await.unwrap();
    below.take();
    store.keep_as_chunks(&digest, &mapping).await.unwrap();
    assert!(is_told.load(Ordering::SeqCst));
    let done = below.take();
    let asked = |it: &Done| matches!(it, Done::AskedFor(_));
    assert!(done.iter().all(asked), "{done:?}");
    assert_eq!(below.store.find_missing(&[digest]).await.unwrap(), []);
}

struct Leaving;

impl LeavingWhole for Leaving {
    fn gone(self: Box<Self>) {
        panic!("nothing was forgotten");
    }
}
