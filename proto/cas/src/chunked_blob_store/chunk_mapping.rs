//! What a blob is made of.

use bytes::Bytes;
use prost::Message as _;
use regatta_model::Digest;
use regatta_wire::reapi::SplitBlobResponse;
use regatta_wire::reapi::chunking_function::Value as ChunkingFunction;

use crate::{BlobRange, MAX_CHUNKS};

/// The most that an encoded mapping has, in bytes: 80 are enough for a chunk.
pub(super) const MAX_MAPPING_BYTES: u64 = 80 * MAX_CHUNKS as u64 + 100;

/// The chunks that make up a blob, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkMapping {
    /// The chunks. One that occurs twice is in it twice.
    pub chunks: Vec<Digest>,
    /// How they were cut.
    pub function: ChunkingFunction,
}

impl ChunkMapping {
    /// The form in which it is stored: the answer to `SplitBlob` (REAPI, `SplitBlobResponse`).
    pub(super) fn encode(&self) -> Bytes {
        let message = SplitBlobResponse {
            chunk_digests: self.chunks.iter().map(Into::into).collect(),
            chunking_function: self.function.into(),
        };
        message.encode_to_vec().into()
    }

    /// The stored mapping of `digest`; `None` if it is damaged. Damage that this does not see names chunks
    /// that do not exist.
    pub(super) fn decode(encoded: &Bytes, digest: &Digest) -> Option<Self> {
        let message = SplitBlobResponse::decode(encoded.clone()).ok()?;
        let function = message.chunking_function();
        let chunks = message.chunk_digests.iter().map(Digest::try_from);
        let chunks: Vec<Digest> = chunks.collect::<Result<_, _>>().ok()?;
        let sizes = chunks.iter().map(Digest::size_bytes);
        let size_bytes = sizes.fold(0, u64::saturating_add);
        (size_bytes == digest.size_bytes()).then_some(Self { chunks, function })
    }

    /// The parts of chunks that have the bytes of the blob from `start` to `end`.
    pub(super) fn parts(&self, start: u64, end: u64) -> Vec<(Digest, BlobRange)> {
        let mut begin = 0u64;
        let mut parts = Vec::new();
        for chunk in &self.chunks {
            let chunk_end = begin + chunk.size_bytes();
            let (from, to) = (start.max(begin), end.min(chunk_end));
            if from < to {
                let is_whole = (from, to) == (begin, chunk_end);
                let part = BlobRange {
                    offset: from - begin,
                    length: Some(to - from),
                };
                parts.push((*chunk, if is_whole { BlobRange::ALL } else { part }));
            }
            begin = chunk_end;
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(chunks: &[&str]) -> (Digest, ChunkMapping) {
        let digest = Digest::of(chunks.concat().as_bytes());
        let chunks = chunks.iter().map(|chunk| Digest::of(chunk.as_bytes()));
        let function = ChunkingFunction::FastCdc2020;
        let chunks = chunks.collect();
        (digest, ChunkMapping { chunks, function })
    }

    #[test]
    fn a_mapping_reads_back_unless_it_is_damaged() {
        let (digest, mapping) = mapping(&["one", "two", "one"]);
        let encoded = mapping.encode();
        assert_eq!(ChunkMapping::decode(&encoded, &digest), Some(mapping));
        let other = Digest::new(*digest.hash(), digest.size_bytes() + 1);
        assert_eq!(ChunkMapping::decode(&encoded, &other), None);
        let short = encoded.slice(..encoded.len() / 2);
        assert_eq!(ChunkMapping::decode(&short, &digest), None);
        let zeros = Bytes::from(vec![0; encoded.len()]);
        assert_eq!(ChunkMapping::decode(&zeros, &digest), None);
        assert_eq!(ChunkMapping::decode(&Bytes::new(), &digest), None);
    }

    #[test]
    fn the_longest_mapping_fits() {
        let chunk = Digest::new([7; 32], u64::MAX >> 1);
        let chunks = vec![chunk; MAX_CHUNKS];
        let function = ChunkingFunction::FastCdc2020;
        let encoded = ChunkMapping { chunks, function }.encode();
        assert!(
            encoded.len() as u64 <= MAX_MAPPING_BYTES,
            "{}",
            encoded.len()
        );
    }

    #[test]
    fn parts_cover_what_is_asked_for() {
        let pieces = ["one", "", "three", "two"];
        let (_, mapping) = mapping(&pieces);
        let whole = pieces.concat();
        for start in 0..=whole.len() {
            for end in start..=whole.len() {
                let parts = mapping.parts(start as u64, end as u64);
                let text: String = parts
                    .iter()
                    .map(|(chunk, range)| part(&pieces, chunk, *range))
                    .collect();
                assert_eq!(text, whole[start..end], "{start}..{end}");
            }
        }
        let (_, all) = mapping.parts(0, 11)[0];
        assert_eq!(all, BlobRange::ALL);
    }

    fn part(pieces: &[&str], chunk: &Digest, range: BlobRange) -> String {
        let piece = pieces
            .iter()
            .find(|piece| Digest::of(piece.as_bytes()) == *chunk);
        let piece = piece.unwrap();
        let start = usize::try_from(range.offset).unwrap();
        let length = range.length.map(|length| usize::try_from(length).unwrap());
        piece[start..length.map_or(piece.len(), |length| start + length)].to_owned()
    }
}
