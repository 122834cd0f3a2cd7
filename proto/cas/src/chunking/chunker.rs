//! Bytes into chunks.

use std::fmt;

use bytes::{Buf as _, Bytes, BytesMut};

use super::ChunkingParams;
use super::params::Cutter;

/// Cuts one blob into chunks. Where it cuts depends on the bytes alone, not on the pieces they come in.
///
/// It holds no more than the largest chunk and one piece. Push a piece, then take chunks until there is
/// none; after the last piece, the rest is in [`Chunker::finish`].
pub struct Chunker {
    cutter: Cutter,
    waiting: BytesMut,
}

impl Chunker {
    /// Cuts a blob by `params`.
    #[must_use]
    pub fn new(params: ChunkingParams) -> Self {
        Self {
            cutter: params.cutter(),
            waiting: BytesMut::new(),
        }
    }

    /// Adds what comes next in the blob.
    pub fn push(&mut self, piece: &[u8]) {
        self.waiting.extend_from_slice(piece);
    }

    /// The next chunk, if what is still to come cannot change it.
    pub fn next_chunk(&mut self) -> Option<Bytes> {
        if self.waiting.len() < self.cutter.params.max_bytes() {
            return None;
        }
        Some(self.cut())
    }

    /// The last chunks, when the blob has ended.
    #[must_use]
    pub fn finish(mut self) -> Vec<Bytes> {
        let mut chunks = Vec::new();
        while !self.waiting.is_empty() {
            chunks.push(self.cut());
        }
        chunks
    }

    /// Copies the chunk out, so that the memory of one does not hang on that of its neighbours.
    fn cut(&mut self) -> Bytes {
        let length_bytes = self.cutter.first_cut(&self.waiting);
        let chunk = Bytes::copy_from_slice(&self.waiting[..length_bytes]);
        self.waiting.advance(length_bytes);
        chunk
    }
}

impl fmt::Debug for Chunker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Chunker")
            .field("params", &self.cutter.params)
            .field("waiting_bytes", &self.waiting.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;
    use regatta_model::Digest;

    use super::*;

    /// Chunks of a few KiB, so that short blobs have many.
    const SMALL: u64 = 1 << 10;

    fn chunks_of(params: ChunkingParams, pieces: &[&[u8]]) -> Vec<Bytes> {
        let mut chunker = Chunker::new(params);
        let mut chunks = Vec::new();
        for piece in pieces {
            chunker.push(piece);
            while let Some(chunk) = chunker.next_chunk() {
                chunks.push(chunk);
            }
            let waiting_bytes = chunker.waiting.len();
            assert!(waiting_bytes < params.max_bytes(), "{waiting_bytes} wait");
        }
        chunks.extend(chunker.finish());
        chunks
    }

    fn noise(length: usize, seed: u64) -> Vec<u8> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        };
        std::iter::repeat_with(next).take(length).collect()
    }

    /// Noise, runs of one byte, or a mixture.
    fn blobs() -> impl Strategy<Value = Vec<u8>> {
        let part = prop_oneof![
            (0..40_000usize, any::<u64>()).prop_map(|(length, seed)| noise(length, seed)),
            (0..20_000usize, any::<u8>()).prop_map(|(length, byte)| vec![byte; length]),
        ];
        proptest::collection::vec(part, 0..4).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn chunks_make_up_the_blob_within_bounds(
            blob in blobs(),
            seed in prop_oneof![Just(0), any::<u32>()],
            piece_bytes in 1..10_000usize,
        ) {
            let params = ChunkingParams::new(SMALL, seed).unwrap();
            let pieces: Vec<&[u8]> = blob.chunks(piece_bytes).collect();
            let chunks = chunks_of(params, &pieces);
            prop_assert!(chunks.concat() == blob);
            prop_assert!(chunks.len() as u64 <= params.most_chunks(blob.len() as u64));
            if let Some((last, others)) = chunks.split_last() {
                let bounds = params.min_bytes()..=params.max_bytes();
                prop_assert!(others.iter().all(|chunk| bounds.contains(&chunk.len())));
                prop_assert!(!last.is_empty() && last.len() <= params.max_bytes());
            }
            prop_assert_eq!(chunks, chunks_of(params, &[&blob]), "pieces make no difference");
        }

        #[test]
        fn an_insertion_changes_few_chunks(
            seed in any::<u64>(),
            at in 0..400_000usize,
            inserted in proptest::collection::vec(any::<u8>(), 1..100),
        ) {
            let params = ChunkingParams::new(SMALL, 0).unwrap();
            let before = noise(400_000, seed);
            let mut after = before.clone();
            after.splice(at..at, inserted);
            let known: HashSet<Digest> =
                chunks_of(params, &[&before]).iter().map(|chunk| Digest::of(chunk)).collect();
            let chunks = chunks_of(params, &[&after]);
            let new = chunks.iter().filter(|chunk| !known.contains(&Digest::of(chunk))).count();
            // Some 400 chunks; fixed sizes would change half of them on average.
            prop_assert!(new <= 50, "{new} of {} chunks are new", chunks.len());
        }
    }

    /// Another program, in another language, made these: one byte at a time, as the paper defines it, with a
    /// table computed anew from MD5.
    #[test]
    fn the_cuts_are_those_of_the_specification() {
        let check = |seed, expected: &[usize]| {
            let params = ChunkingParams::new(SMALL, seed).unwrap();
            let chunks = chunks_of(params, &[&noise(20_000, 1)]);
            let lengths: Vec<usize> = chunks.iter().map(Bytes::len).collect();
            assert_eq!(lengths, expected, "seed {seed}");
        };
        check(
            0,
            &[
                864, 1338, 1086, 1342, 1134, 427, 389, 1049, 1305, 1048, 1095, 1310, 1108, 1109,
                350, 1057, 1255, 1352, 1099, 283,
            ],
        );
        check(
            666,
            &[
                1137, 1151, 1056, 1619, 1079, 1112, 1523, 1078, 2316, 1226, 1202, 1141, 1093, 1079,
                832, 1356,
            ],
        );
    }

    #[test]
    fn an_empty_blob_has_no_chunks_and_a_short_one_is_its_own() {
        let params = ChunkingParams::RECOMMENDED;
        assert_eq!(chunks_of(params, &[]), Vec::<Bytes>::new());
        assert_eq!(chunks_of(params, &[b"short"]), ["short"]);
    }
}
