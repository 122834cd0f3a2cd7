//! Compressed bodies (REAPI, `compressed-blobs/zstd`; RFC 8878).
//!
//! Neither direction trusts the other side or holds a body in memory: what is decompressed ends with an
//! error as soon as it is longer than its digest says, and the memory that a frame may ask for is bounded.

use std::io;

use ::zstd::stream::raw::{DParameter, Decoder, Encoder, InBuffer, Operation, OutBuffer};
use bytes::{Buf as _, Bytes};
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use regatta_model::Digest;

use crate::{BlobStream, StoreError};

/// Fast rather than small: level 1 compresses several hundred MB a second.
const LEVEL: i32 = 1;
/// The largest window of a frame that is accepted, as a power of two in bytes: RFC 8878 asks decoders to
/// support 8 MiB, and a frame that wants more would take that much memory.
const MAX_WINDOW_LOG: u32 = 23;
/// The largest piece that comes out, in bytes.
const PIECE_BYTES: usize = 128 << 10;
/// How many bytes of a blob tell whether it is worth compressing.
const SAMPLE_BYTES: usize = 16 << 10;
/// Blobs smaller than this are left as they are, in bytes.
const MIN_BYTES: usize = 1 << 10;

/// The largest that the compressed form of a blob can sensibly be, in bytes: incompressible bytes grow by
/// less than this, however many frames and blocks they are cut into.
#[must_use]
pub const fn largest_compressed(size_bytes: u64) -> u64 {
    size_bytes
        .saturating_add(size_bytes / 16)
        .saturating_add(64 << 10)
}

/// Compresses a body on its way.
#[must_use]
pub fn compressed_body(body: BlobStream) -> BlobStream {
    match Encoder::new(LEVEL) {
        Ok(encoder) => pieces(Coding::new(encoder, body)).boxed(),
        Err(error) => {
            let error = out_of_memory(&error);
            stream::once(std::future::ready(Err(error))).boxed()
        }
    }
}

/// Decompresses a body on its way. It ends with [`StoreError::Undecodable`] if it is no zstd frame, asks for
/// too large a window, or has more bytes than `digest` says; whether they are the right bytes is for
/// `checked_body` to find out.
#[must_use]
pub fn decompressed_body(digest: Digest, body: BlobStream) -> BlobStream {
    match Decompression::new(digest) {
        Ok(decompression) => pieces(Coding::new(decompression, body)).boxed(),
        Err(error) => stream::once(std::future::ready(Err(error))).boxed(),
    }
}

/// The compressed form of a small blob; `None` if that is not smaller.
#[must_use]
pub fn compressed(blob: &[u8]) -> Option<Bytes> {
    if blob.len() < MIN_BYTES {
        return None;
    }
    let compressed = ::zstd::bulk::compress(blob, LEVEL).ok()?;
    (compressed.len() < blob.len()).then(|| compressed.into())
}

/// Whether a blob that begins with `start` is worth compressing.
#[must_use]
pub fn is_worth_compressing(start: &[u8]) -> bool {
    let sample = &start[..start.len().min(SAMPLE_BYTES)];
    // A link is rarely so slow that less than a fifth would pay for the work on both sides.
    compressed(sample).is_some_and(|compressed| compressed.len() * 5 < sample.len() * 4)
}

/// What turns bytes into other bytes, a bounded portion at a time.
trait Code: Send + 'static {
    /// Takes from `input` what it can and gives at most [`PIECE_BYTES`].
    fn run(&mut self, input: &mut Bytes) -> Result<Step, StoreError>;
    /// After the last input: what is left, in portions.
    fn finish(&mut self) -> Result<Step, StoreError>;
}

struct Step {
    piece: Bytes,
    /// There is more without more input.
    has_more: bool,
}

impl Code for Encoder<'static> {
    fn run(&mut self, input: &mut Bytes) -> Result<Step, StoreError> {
        let mut space = vec![0; PIECE_BYTES];
        let (taken, given) = step_of(self, input, &mut space).map_err(|it| out_of_memory(&it))?;
        input.advance(taken);
        Ok(step(space, given, given == PIECE_BYTES))
    }

    fn finish(&mut self) -> Result<Step, StoreError> {
        let mut space = vec![0; PIECE_BYTES];
        let mut output = OutBuffer::around(space.as_mut_slice());
        let left = Operation::finish(self, &mut output, true).map_err(|it| out_of_memory(&it))?;
        let given = output.pos();
        Ok(step(space, given, left > 0))
    }
}

struct Decompression {
    decoder: Decoder<'static>,
    digest: Digest,
    /// How many bytes may still come.
    left: u64,
    is_frame_complete: bool,
}

impl Decompression {
    fn new(digest: Digest) -> Result<Self, StoreError> {
        let mut decoder = Decoder::new().map_err(|error| out_of_memory(&error))?;
        decoder
            .set_parameter(DParameter::WindowLogMax(MAX_WINDOW_LOG))
            .map_err(|error| out_of_memory(&error))?;
        Ok(Self {
            decoder,
            digest,
            left: digest.size_bytes(),
            is_frame_complete: false,
        })
    }

    fn undecodable(&self, detail: impl ToString) -> StoreError {
        StoreError::Undecodable {
            digest: self.digest,
            detail: detail.to_string(),
        }
    }
}

impl Code for Decompression {
    fn run(&mut self, input: &mut Bytes) -> Result<Step, StoreError> {
        // One byte more than may come is enough to see that there is one.
        let room = usize::try_from(self.left.saturating_add(1)).unwrap_or(usize::MAX);
        let mut space = vec![0; room.min(PIECE_BYTES)];
        let mut output = OutBuffer::around(space.as_mut_slice());
        let mut source = InBuffer::around(input);
        let hint = self.decoder.run(&mut source, &mut output);
        let hint = hint.map_err(|error| self.undecodable(error))?;
        let (taken, given) = (source.pos(), output.pos());
        input.advance(taken);
        self.is_frame_complete = hint == 0;
        let Some(left) = self.left.checked_sub(given as u64) else {
            return Err(self.undecodable("it has more bytes than its digest says"));
        };
        self.left = left;
        let has_more = given == space.len() && !self.is_frame_complete;
        Ok(step(space, given, has_more))
    }

    fn finish(&mut self) -> Result<Step, StoreError> {
        match self.is_frame_complete {
            true => Ok(step(Vec::new(), 0, false)),
            false => Err(self.undecodable("it ends in the middle of a frame")),
        }
    }
}

fn step_of(
    operation: &mut impl Operation,
    input: &[u8],
    space: &mut [u8],
) -> io::Result<(usize, usize)> {
    let mut source = InBuffer::around(input);
    let mut output = OutBuffer::around(space);
    operation.run(&mut source, &mut output)?;
    Ok((source.pos(), output.pos()))
}

fn step(mut space: Vec<u8>, given: usize, has_more: bool) -> Step {
    space.truncate(given);
    if given < PIECE_BYTES / 2 {
        space.shrink_to_fit();
    }
    Step {
        piece: space.into(),
        has_more,
    }
}

fn out_of_memory(error: &io::Error) -> StoreError {
    StoreError::Unavailable {
        detail: format!("zstd: {error}"),
    }
}

/// A body with the code that it goes through.
struct Coding<C> {
    code: C,
    body: BlobStream,
    input: Bytes,
    has_more: bool,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    Finishing,
    Ended,
}

impl<C: Code> Coding<C> {
    fn new(code: C, body: BlobStream) -> Self {
        Self {
            code,
            body,
            input: Bytes::new(),
            has_more: false,
            state: State::Running,
        }
    }

    /// The next piece, which is not empty.
    async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        loop {
            let step = match self.state {
                State::Ended => return Ok(None),
                State::Running if self.has_more || !self.input.is_empty() => {
                    // Coding takes a while, and others want their turn.
                    tokio::task::consume_budget().await;
                    self.code.run(&mut self.input)?
                }
                State::Running => {
                    match self.body.try_next().await? {
                        Some(piece) => self.input = piece,
                        None => self.state = State::Finishing,
                    }
                    continue;
                }
                State::Finishing => {
                    let step = self.code.finish()?;
                    if !step.has_more {
                        self.state = State::Ended;
                    }
                    step
                }
            };
            self.has_more = step.has_more;
            if !step.piece.is_empty() {
                return Ok(Some(step.piece));
            }
        }
    }
}

fn pieces<C: Code>(coding: Coding<C>) -> impl Stream<Item = Result<Bytes, StoreError>> + Send {
    stream::unfold(coding, |mut coding| async move {
        let next = coding.next().await;
        if next.is_err() {
            coding.state = State::Ended;
        }
        next.transpose().map(|next| (next, coding))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream_of;
    use crate::whole_blob::joined;
    use futures::FutureExt as _;
    use proptest::prelude::*;

    fn collected(body: BlobStream) -> Result<Bytes, StoreError> {
        let pieces = body.try_collect::<Vec<Bytes>>().now_or_never();
        pieces.expect("nothing waits here").map(joined)
    }

    fn cut(bytes: &Bytes, piece_bytes: usize) -> BlobStream {
        let pieces: Vec<_> = bytes
            .chunks(piece_bytes)
            .map(|piece| Ok(bytes.slice_ref(piece)))
            .collect();
        stream::iter(pieces).boxed()
    }

    fn decompressed(digest: Digest, compressed: Bytes) -> Result<Bytes, StoreError> {
        collected(decompressed_body(digest, stream_of(compressed)))
    }

    #[track_caller]
    fn check_undecodable(digest: Digest, compressed: Bytes) {
        let refused = decompressed(digest, compressed);
        assert!(
            matches!(refused, Err(StoreError::Undecodable { .. })),
            "{:?}",
            refused.map(|bytes| bytes.len())
        );
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(
            start in proptest::collection::vec(any::<u8>(), 0..300),
            repeats in 0usize..3000,
            piece_bytes in 1usize..100_000,
        ) {
            let blob = Bytes::from(start.repeat(repeats));
            // Not too many pieces.
            let piece_bytes = piece_bytes.max(blob.len() / 100);
            let compressed = collected(compressed_body(cut(&blob, piece_bytes))).unwrap();
            prop_assert!(compressed.len() as u64 <= largest_compressed(blob.len() as u64));
            let body = decompressed_body(Digest::of(&blob), cut(&compressed, piece_bytes));
            prop_assert_eq!(collected(body).unwrap(), blob);
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let digest = Digest::new([0; 32], 1000);
            if let Ok(blob) = decompressed(digest, [&b"\x28\xb5\x2f\xfd"[..], &bytes].concat().into()) {
                prop_assert!(blob.len() <= 1000);
            }
        }
    }

    #[test]
    fn a_bomb_is_refused_at_its_first_byte_too_many() {
        let zeros = Bytes::from(vec![0; 64 << 20]);
        let bomb = collected(compressed_body(stream_of(zeros))).unwrap();
        assert!(bomb.len() < 64 << 10);
        let mut body = decompressed_body(Digest::new([0; 32], 1000), stream_of(bomb));
        let first = body.next().now_or_never().expect("nothing waits here");
        assert!(matches!(first, Some(Err(StoreError::Undecodable { .. }))));
        assert!(body.next().now_or_never().expect("no wait").is_none());
    }

    #[test]
    fn a_window_that_takes_too_much_memory_is_refused() {
        let blob = vec![7; 100];
        let compressed = |window_log| {
            let mut encoder = Encoder::new(LEVEL).unwrap();
            let parameter = ::zstd::stream::raw::CParameter::WindowLog(window_log);
            encoder.set_parameter(parameter).unwrap();
            let coding = Coding::new(encoder, stream_of(blob.clone().into()));
            collected(pieces(coding).boxed()).unwrap()
        };
        let digest = Digest::of(&blob);
        assert_eq!(
            decompressed(digest, compressed(MAX_WINDOW_LOG)).unwrap(),
            blob
        );
        check_undecodable(digest, compressed(MAX_WINDOW_LOG + 1));
    }

    #[test]
    fn what_is_cut_off_or_no_frame_is_refused() {
        let blob = Bytes::from(vec![7; 1000]);
        let compressed = collected(compressed_body(stream_of(blob.clone()))).unwrap();
        let digest = Digest::of(&blob);
        check_undecodable(digest, compressed.slice(..compressed.len() - 1));
        check_undecodable(digest, Bytes::new());
        check_undecodable(digest, blob);
        // Several frames are one body.
        let frame = |part: &[u8]| ::zstd::bulk::compress(part, LEVEL).unwrap();
        let frames = [frame(b"ab"), frame(b"c")].concat();
        assert_eq!(
            decompressed(Digest::of(b"abc"), frames.into()).unwrap(),
            "abc"
        );
    }

    #[test]
    fn only_what_gets_smaller_is_compressed() {
        assert_eq!(compressed(&[7; MIN_BYTES - 1]), None);
        assert!(compressed(&[7; MIN_BYTES]).is_some_and(|it| it.len() < 100));
        let noise: Vec<u8> = (0u32..1000)
            .flat_map(|n| Digest::of(&n.to_le_bytes()).hash().to_vec())
            .collect();
        assert_eq!(compressed(&noise), None);
        assert!(!is_worth_compressing(&noise));
        assert!(is_worth_compressing(&b"some text, ".repeat(1000)));
    }
}
