//! What every [`BlobStore`] keeps, as a suite of checks that panic when it does not.
//!
//! A store passes [`check_content_addressed`] if it verifies what it is given, else [`check_keyed`]; and
//! [`check_streaming`] (or [`check_streaming_within`] a bound of its own) if it sends large blobs on without
//! holding them, else [`check_held_in_memory`].
//! A suite may run on a store that has other blobs; it needs a tokio runtime.

mod concurrency;
mod held_body;
mod unfinished_writes;

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use regatta_model::Digest;

use self::concurrency::{
    check_concurrent_writers_all_succeed, check_concurrent_writes_do_not_mix,
    check_small_blobs_in_crowds,
};
use self::held_body::HeldBody;
use self::unfinished_writes::{
    check_a_dropped_write_leaves_nothing, check_a_failing_body_leaves_nothing,
    check_nothing_is_visible_before_the_end,
};
use crate::{
    BlobRange, BlobStore, MAX_PIECE_BYTES, Spool, SpooledBlob, StoreError, read_all, stream_of,
};

/// Sizes on both sides of every limit that a store is likely to have, in bytes.
const SIZES: [usize; 6] = [
    1,
    1000,
    MAX_PIECE_BYTES,
    (1 << 20) - 1,
    (1 << 20) + 1,
    (9 << 20) + 7,
];
/// How much of a large blob a streaming store may hold while it passes, in bytes.
const HELD_BYTES: usize = 12 << 20;
type Store = Arc<dyn BlobStore>;

/// Checks a store that refuses bytes that do not have the digest they come under.
pub async fn check_content_addressed(store: Store) {
    check_every_store(&store).await;
    for size in SIZES {
        check_wrong_bytes_are_refused(&store, size).await;
        check_wrong_files_are_refused(&store, size).await;
    }
}

/// Checks a store that takes any bytes under any digest.
pub async fn check_keyed(store: Store) {
    check_every_store(&store).await;
    for size in SIZES {
        check_the_last_write_wins(&store, size).await;
    }
    check_concurrent_writes_do_not_mix(&store).await;
}

/// Checks that a large blob passes through the store in bounded memory.
pub async fn check_streaming(store: Store) {
    check_streaming_within(store, HELD_BYTES).await;
}

/// The same, for a store that needs to hold more: up to `held_bytes`, of a blob of twice the size.
pub async fn check_streaming_within(store: Store, held_bytes: usize) {
    let peak_bytes = pass_large_blob(&store, 2 * held_bytes).await;
    assert!(
        peak_bytes <= held_bytes,
        "the store held {peak_bytes} bytes of a large blob"
    );
}

/// Checks that a store that holds its blobs in memory takes large ones.
pub async fn check_held_in_memory(store: Store) {
    pass_large_blob(&store, 2 * HELD_BYTES).await;
}

async fn check_every_store(store: &Store) {
    for size in SIZES {
        check_absent_is_not_found(store, size).await;
        check_it_reads_back(store, size).await;
        check_a_spooled_blob_reads_back(store, size).await;
        check_ranges(store, size).await;
        check_a_failing_body_leaves_nothing(store, size).await;
        check_a_dropped_write_leaves_nothing(store, size).await;
        check_nothing_is_visible_before_the_end(store, size).await;
        check_a_blob_can_be_forgotten(store, size).await;
    }
    check_find_missing_keeps_the_order(store).await;
    check_concurrent_writers_all_succeed(store).await;
    check_small_blobs_in_crowds(store).await;
}

/// A blob that no other check has.
fn blob(size: usize) -> (Digest, Bytes) {
    let mut bytes = vec![0u8; size];
    let seed = uuid::Uuid::new_v4();
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = seed.as_bytes()[at % 16] ^ at.to_le_bytes()[at / 16 % 3];
    }
    // A blob of one byte cannot be unlike all others, so small ones are made a little larger.
    bytes.extend_from_slice(seed.as_bytes());
    let bytes = Bytes::from(bytes);
    (Digest::of(&bytes), bytes)
}

async fn put(store: &Store, digest: &Digest, bytes: &Bytes) {
    let put = store.put(digest, stream_of(bytes.clone())).await;
    put.expect("the store takes a good blob");
}

async fn get(store: &Store, digest: &Digest) -> Bytes {
    let got = read_all(store.as_ref(), digest, u64::MAX).await;
    got.expect("the store has the blob")
}

async fn assert_absent(store: &Store, digest: &Digest) {
    let got = store.get(digest, BlobRange::ALL).await;
    // A store on another machine may tell in the stream, which must then begin with it.
    let error = match got {
        Ok(mut body) => body.next().await.expect("absence is not emptiness").err(),
        Err(error) => Some(error),
    };
    let named = matches!(&error, Some(StoreError::NotFound { digest: named }) if named == digest);
    assert!(named, "expected that the blob is absent, got {error:?}");
    let missing = store
        .find_missing(&[*digest])
        .await
        .expect("presence is known");
    assert_eq!(missing, [*digest], "an absent blob is missing");
}

async fn check_absent_is_not_found(store: &Store, size: usize) {
    let (digest, _) = blob(size);
    assert_absent(store, &digest).await;
}

async fn check_it_reads_back(store: &Store, size: usize) {
    let (digest, bytes) = blob(size);
    put(store, &digest, &bytes).await;
    // Not assert_eq: nobody wants to read megabytes.
    assert!(
        get(store, &digest).await == bytes,
        "{size} bytes come back as they went in"
    );
    let missing = store
        .find_missing(&[digest])
        .await
        .expect("presence is known");
    assert!(missing.is_empty(), "what was stored is not missing");
    put(store, &digest, &bytes).await;
    assert!(
        get(store, &digest).await == bytes,
        "writing the same again changes nothing"
    );
}

/// What was written to a file, hashed as it came or not.
fn spooled(bytes: &[u8], is_hashed: bool) -> SpooledBlob {
    let file = tempfile::tempfile().expect("a temporary file");
    let mut spool = Spool::new(file, is_hashed);
    spool.append(bytes).expect("room for a temporary file");
    spool.seal()
}

async fn check_a_spooled_blob_reads_back(store: &Store, size: usize) {
    for is_hashed in [true, false] {
        let (digest, bytes) = blob(size);
        // The last of several writes wins, whatever their kind.
        for _ in 0..2 {
            let put = store
                .put_spooled(&digest, &spooled(&bytes, is_hashed))
                .await;
            put.expect("the store takes a good blob from a file");
            assert_eq!(get(store, &digest).await, bytes, "{size} bytes from a file");
        }
        assert_eq!(store.find_missing(&[digest]).await.expect("an answer"), []);
    }
}

async fn get_range(store: &Store, digest: &Digest, range: BlobRange) -> Result<Bytes, StoreError> {
    let pieces: Vec<Bytes> = store.get(digest, range).await?.try_collect().await?;
    Ok(pieces.concat().into())
}

async fn check_ranges(store: &Store, size: usize) {
    let (digest, bytes) = blob(size);
    put(store, &digest, &bytes).await;
    let end = bytes.len();
    for (offset, length) in [
        (0, None),
        (0, Some(0)),
        (0, Some(1)),
        (0, Some(end)),
        (0, Some(end + 1)),
        (1, None),
        (1, Some(end / 2)),
        (end / 2, Some(end)),
        (end - 1, Some(1)),
        (end, None),
        (end, Some(1)),
    ] {
        let range = BlobRange {
            offset: offset as u64,
            length: length.map(|length| length as u64),
        };
        let got = get_range(store, &digest, range).await;
        let until = length.map_or(end, |length| (offset + length).min(end));
        let same = got.as_ref().is_ok_and(|got| *got == bytes[offset..until]);
        assert!(
            same,
            "{range:?} of {end} bytes: {:?}",
            got.map(|got| got.len())
        );
    }
    let beyond = BlobRange {
        offset: end as u64 + 1,
        length: None,
    };
    let refused = get_range(store, &digest, beyond).await.map(|got| got.len());
    assert!(
        matches!(refused, Err(StoreError::OutOfRange { .. })),
        "a range beyond the end is refused: {refused:?}"
    );
}

async fn check_a_blob_can_be_forgotten(store: &Store, size: usize) {
    let (digest, bytes) = blob(size);
    put(store, &digest, &bytes).await;
    // A store on another machine may have no way to forget; then it must say so and keep the blob.
    match store.delete(&digest).await {
        Ok(()) => {
            assert_absent(store, &digest).await;
            store
                .delete(&digest)
                .await
                .expect("forgetting the absent succeeds");
            put(store, &digest, &bytes).await;
        }
        Err(error) => {
            assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
        }
    }
    assert!(get(store, &digest).await == bytes, "the blob is there");
}

async fn check_find_missing_keeps_the_order(store: &Store) {
    let blobs: Vec<(Digest, Bytes)> = (0..100).map(|size| blob(size * 10)).collect();
    for (digest, bytes) in blobs.iter().step_by(3) {
        put(store, digest, bytes).await;
    }
    let all: Vec<Digest> = blobs.iter().map(|(digest, _)| *digest).rev().collect();
    let expected: Vec<Digest> = all
        .iter()
        .enumerate()
        .filter(|(at, _)| (99 - at) % 3 != 0)
        .map(|(_, digest)| *digest)
        .collect();
    let missing = store.find_missing(&all).await.expect("presence is known");
    assert_eq!(
        missing, expected,
        "missing blobs come in the order of the question"
    );
    assert_eq!(
        store.find_missing(&[]).await.expect("presence is known"),
        []
    );
}

async fn check_wrong_bytes_are_refused(store: &Store, size: usize) {
    let (digest, bytes) = blob(size);
    let mut flipped = bytes.to_vec();
    flipped[size / 2] ^= 1;
    let longer = [bytes.as_ref(), b"x"].concat();
    let shorter = bytes.slice(..bytes.len() - 1);
    for wrong in [
        Bytes::from(flipped),
        Bytes::from(longer),
        shorter,
        Bytes::new(),
    ] {
        let length = wrong.len();
        let refused = store.put(&digest, stream_of(wrong)).await;
        let named = matches!(
            &refused,
            Err(StoreError::Corrupt { expected, actual }) if *expected == digest && *actual != digest
        );
        assert!(named, "{length} wrong bytes as {digest}: {refused:?}");
        assert_absent(store, &digest).await;
    }
    put(store, &digest, &bytes).await;
    assert!(
        get(store, &digest).await == bytes,
        "the right bytes are taken afterwards"
    );
}

async fn check_wrong_files_are_refused(store: &Store, size: usize) {
    for is_hashed in [true, false] {
        let (digest, bytes) = blob(size);
        let mut wrong = bytes.to_vec();
        wrong[0] ^= 1;
        let put = store
            .put_spooled(&digest, &spooled(&wrong, is_hashed))
            .await;
        assert!(
            matches!(put, Err(StoreError::Corrupt { .. })),
            "{size} bytes: {put:?}"
        );
        assert_absent(store, &digest).await;
    }
}

async fn check_the_last_write_wins(store: &Store, size: usize) {
    let (key, first) = blob(size);
    for value in [first, blob(size / 3).1, blob(size * 2).1] {
        put(store, &key, &value).await;
        let read = get(store, &key).await;
        assert!(
            read == value,
            "wrote {} bytes, read {}",
            value.len(),
            read.len()
        );
    }
}

/// Writes and reads a blob, and says how much of it the store held at a time.
async fn pass_large_blob(store: &Store, size_bytes: usize) -> usize {
    let body = HeldBody::new(size_bytes);
    let digest = body.digest();
    let held = body.held();
    store
        .put(&digest, body.into_stream())
        .await
        .expect("the store takes a large blob");
    let mut hasher = regatta_model::DigestHasher::new();
    let mut reading = store
        .get(&digest, BlobRange::ALL)
        .await
        .expect("the blob is there");
    while let Some(piece) = reading.next().await {
        let piece = piece.expect("the blob reads to its end");
        assert!(
            piece.len() <= 4 << 20,
            "a piece of {} bytes is not a piece",
            piece.len()
        );
        hasher.update(&piece);
    }
    assert_eq!(hasher.finish(), digest, "the blob came through whole");
    held.peak_bytes()
}
