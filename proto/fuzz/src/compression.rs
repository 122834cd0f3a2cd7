//! Bodies that arrive compressed.

use std::io::Read as _;

use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use regatta_cas::{
    BlobStream, MAX_PIECE_BYTES, StoreError, compressed, compressed_body, decompressed_body,
    largest_compressed,
};
use regatta_model::Digest;

/// The window that the product accepts, as a power of two in bytes (RFC 8878, section 3.1.1.1.2).
const MAX_WINDOW_LOG: u32 = 23;
/// How large a blob is that is compressed here, in bytes.
const MAX_BLOB_BYTES: usize = 1 << 20;

/// Compresses and decompresses: what went in comes out, however it is cut into pieces; and whatever is
/// decompressed never yields more than its digest says.
pub fn compression(data: &[u8]) {
    let input = Unstructured::new(data);
    // Too short an input says nothing.
    let _short = match data.first() {
        Some(kind) if kind % 2 == 0 => foreign(input),
        _ => own(input),
    };
}

/// Bytes that somebody sends as a compressed blob.
fn foreign(mut input: Unstructured<'_>) -> Result<()> {
    let _kind = input.arbitrary::<u8>()?;
    let size_bytes = u64::from(input.arbitrary::<u16>()?);
    let piece_bytes = usize::from(input.arbitrary::<u8>()?).max(1);
    let sent = Bytes::copy_from_slice(input.take_rest());
    check_received(&sent, size_bytes, piece_bytes);
    // What follows a frame's header, without the luck that finding a header takes.
    let framed = [b"\x28\xb5\x2f\xfd", sent.as_ref()].concat();
    check_received(&framed.into(), size_bytes, piece_bytes);
    Ok(())
}

/// A blob of our own, and what damage on the way does to it.
fn own(mut input: Unstructured<'_>) -> Result<()> {
    let _kind = input.arbitrary::<u8>()?;
    let repeats = usize::from(input.arbitrary::<u16>()?);
    let piece_bytes = usize::from(input.arbitrary::<u16>()?).max(1);
    let less = u64::from(input.arbitrary::<u8>()?).max(1);
    let damage: [(u16, u8); 2] = input.arbitrary()?;
    let pattern = input.take_rest();
    let repeats = repeats.min(MAX_BLOB_BYTES / pattern.len().max(1));
    let blob = Bytes::from(pattern.repeat(repeats));
    let size_bytes = blob.len() as u64;
    let digest = Digest::of(&blob);
    let sent = collected(compressed_body(cut(&blob, piece_bytes)));
    let sent = sent.expect("compressing never fails");
    assert!(sent.len() as u64 <= largest_compressed(size_bytes));
    let received = collected(decompressed_body(digest, cut(&sent, piece_bytes)));
    assert_eq!(received.expect("it was compressed here"), blob);
    if let Some(small) = compressed(&blob) {
        assert!(small.len() < blob.len());
        let received = collected(decompressed_body(digest, cut(&small, piece_bytes)));
        assert_eq!(received.expect("it was compressed here"), blob);
    }
    if let Some(declared) = size_bytes.checked_sub(less) {
        assert!(
            check_received(&sent, declared, piece_bytes).is_none(),
            "more than declared"
        );
    }
    let cut_off = sent.slice(..sent.len() - 1);
    assert!(
        check_received(&cut_off, size_bytes, piece_bytes).is_none(),
        "cut off"
    );
    let mut damaged = sent.to_vec();
    for (place, bits) in damage {
        let place = usize::from(place) % damaged.len();
        damaged[place] ^= bits;
    }
    check_received(&damaged.into(), size_bytes, piece_bytes);
    Ok(())
}

/// Decompresses what was sent, in whole and in pieces, and compares with zstd's own decoder.
fn check_received(sent: &Bytes, size_bytes: u64, piece_bytes: usize) -> Option<Bytes> {
    let digest = Digest::new([0; 32], size_bytes);
    let decompress = |piece_bytes| {
        let (received, outcome) = drained(decompressed_body(digest, cut(sent, piece_bytes)));
        assert!(received.len() as u64 <= size_bytes, "more than declared");
        match outcome {
            Ok(()) => Some(received),
            Err(StoreError::Undecodable { .. }) => None,
            Err(other) => panic!("{other}"),
        }
    };
    let whole = decompress(sent.len().max(1));
    let pieces = decompress(piece_bytes);
    // zstd forgives some damage, such as a compressed block of no bytes, in one way of reading and not in
    // the other. So one may refuse what another takes, but never take it for something else.
    let received = [whole, pieces, reference(sent, size_bytes)];
    let mut taken = received.into_iter().flatten();
    let first = taken.next();
    for other in taken {
        assert_eq!(Some(&other), first.as_ref(), "it depends on how it is read");
    }
    first
}

/// What zstd's own reader makes of a body of at most `size_bytes`.
fn reference(sent: &[u8], size_bytes: u64) -> Option<Bytes> {
    if sent.is_empty() {
        return None;
    }
    let mut decoder = zstd::stream::read::Decoder::with_buffer(sent).ok()?;
    decoder.window_log_max(MAX_WINDOW_LOG).ok()?;
    let mut received = Vec::new();
    decoder
        .take(size_bytes + 1)
        .read_to_end(&mut received)
        .ok()?;
    (received.len() as u64 <= size_bytes).then(|| received.into())
}

fn cut(bytes: &Bytes, piece_bytes: usize) -> BlobStream {
    let piece_bytes = piece_bytes.max(bytes.len() / 256);
    let pieces = bytes
        .chunks(piece_bytes)
        .map(|piece| Ok(bytes.slice_ref(piece)));
    stream::iter(pieces.collect::<Vec<_>>()).boxed()
}

fn collected(body: BlobStream) -> std::result::Result<Bytes, StoreError> {
    let (bytes, outcome) = drained(body);
    outcome.map(|()| bytes)
}

/// All that a body gives, even if it ends with an error.
fn drained(mut body: BlobStream) -> (Bytes, std::result::Result<(), StoreError>) {
    let mut bytes = Vec::new();
    let outcome = async {
        while let Some(piece) = body.try_next().await? {
            assert!(!piece.is_empty() && piece.len() <= MAX_PIECE_BYTES);
            bytes.extend_from_slice(&piece);
        }
        Ok(())
    };
    let outcome = outcome.now_or_never().expect("nothing waits here");
    if outcome.is_err() {
        let next = body.next().now_or_never().expect("nothing waits here");
        assert!(next.is_none(), "a body ends after its first error");
    }
    (bytes.into(), outcome)
}
