//! Blobs that are large enough to be kept as chunks (decision 0010), and what becomes of them.

use std::time::Duration;

use bytes::Bytes;
use regatta_cas::ChunkingParams;
use regatta_model::Digest;

use crate::plan::{FAULTS_END, Fault, FaultKind, MENDED, StoragePlan, millis};
use crate::random::Random;

/// How long chunks are on average, in bytes: 500 times less than in earnest.
const AVERAGE_CHUNK_BYTES: u64 = 1 << 10;
/// What a client cuts into, in bytes: coordinators keep chunks of 256 to 4096.
const PIECE_BYTES: u64 = 896;
/// How many pieces a blob has: more than the largest chunk, which is never cut.
const PIECES: u64 = 6;
/// How many of them are the same in all blobs.
const PIECES_IN_COMMON: u64 = 4;

/// How often somebody does something with a large blob, where there are any.
const LARGE_USES: u32 = 12;
/// How many of them there are.
const LARGE_BLOBS: u64 = 3;

/// How coordinators cut.
pub(crate) fn chunking() -> ChunkingParams {
    ChunkingParams::new(AVERAGE_CHUNK_BYTES, 0)
        .unwrap_or_else(|| unreachable!("a power of two that REAPI allows"))
}

/// A large blob.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct LargeBlob {
    pub(crate) bytes: Bytes,
    pub(crate) digest: Digest,
    /// Into which a client cuts it.
    pub(crate) pieces: Vec<Bytes>,
    /// Their digests.
    pub(crate) chunks: Vec<Digest>,
}

/// What somebody does with one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LargeUse {
    /// Makes it of chunks, and uploads those that are missing.
    Splice,
    /// Uploads it as a whole unless it is there, and asks for its chunks.
    Split,
    /// Reads all of it.
    Read,
}

impl LargeBlob {
    /// Of those that are much alike, most pieces are the same.
    pub(crate) fn of(variant: u64) -> Self {
        let pieces = (0..PIECES).map(|number| {
            let version = if number < PIECES_IN_COMMON {
                0
            } else {
                variant
            };
            let mut random = Random::new(number << 8 | version, 6);
            let bytes = (0..PIECE_BYTES / 8).flat_map(|_| random.next().to_le_bytes());
            bytes.collect::<Bytes>()
        });
        let pieces: Vec<Bytes> = pieces.collect();
        let bytes = Bytes::from(pieces.concat());
        Self {
            digest: Digest::of(&bytes),
            chunks: pieces.iter().map(|piece| Digest::of(piece)).collect(),
            bytes,
            pieces,
        }
    }
}

/// Half of all seeds have large blobs.
pub(crate) fn large(
    random: &mut Random,
    storage: &mut StoragePlan,
    faults: &mut Vec<Fault>,
) -> Vec<(Duration, LargeBlob, LargeUse)> {
    if random.chance(500) {
        return Vec::new();
    }
    for limit in [&mut storage.max_bytes, &mut storage.tenant_bytes] {
        let more = random.between(0, 12_000);
        *limit = limit.map(|bytes| bytes + more);
    }
    if random.chance(400) {
        faults.push(Fault {
            at: random.millis(0, millis(FAULTS_END)),
            machine: 0,
            kind: FaultKind::CrashesAtList {
                after: random.chance(500),
            },
        });
    }
    let blobs: Vec<LargeBlob> = (0..LARGE_BLOBS).map(LargeBlob::of).collect();
    let uses = (0..LARGE_USES).map(|_| {
        let at = random.millis(1000, millis(MENDED));
        let kind = match random.below(5) {
            0 | 1 => LargeUse::Splice,
            2 | 3 => LargeUse::Split,
            _ => LargeUse::Read,
        };
        (at, blobs[random.index(blobs.len())].clone(), kind)
    });
    uses.collect()
}
