//! A body that knows how much of it is in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use regatta_model::{Digest, DigestHasher};

use crate::BlobStream;

const PIECE_BYTES: usize = 256 * 1024;

/// A large blob whose pieces come into being when they are asked for, and are counted while they live.
#[derive(Debug)]
pub(super) struct HeldBody {
    size: usize,
    seed: u8,
    held: Arc<Held>,
}

/// How much of a body is alive.
#[derive(Debug, Default)]
pub(super) struct Held {
    now: AtomicUsize,
    peak: AtomicUsize,
}

struct Piece {
    bytes: Vec<u8>,
    held: Arc<Held>,
}

impl HeldBody {
    pub(super) fn new(size: usize) -> Self {
        let seed = uuid::Uuid::new_v4().as_bytes()[0];
        Self {
            size,
            seed,
            held: Arc::default(),
        }
    }

    pub(super) fn held(&self) -> Arc<Held> {
        Arc::clone(&self.held)
    }

    pub(super) fn digest(&self) -> Digest {
        let mut hasher = DigestHasher::new();
        for at in 0..self.size.div_ceil(PIECE_BYTES) {
            hasher.update(&self.bytes_of(at));
        }
        hasher.finish()
    }

    pub(super) fn into_stream(self) -> BlobStream {
        let pieces = self.size.div_ceil(PIECE_BYTES);
        stream::iter(0..pieces)
            .map(move |at| Ok(self.piece(at)))
            .boxed()
    }

    fn bytes_of(&self, at: usize) -> Vec<u8> {
        let length = PIECE_BYTES.min(self.size - at * PIECE_BYTES);
        let mut bytes = vec![at.to_le_bytes()[0] ^ self.seed; length];
        bytes[..2].copy_from_slice(&[self.seed, at.to_le_bytes()[1]]);
        bytes
    }

    fn piece(&self, at: usize) -> Bytes {
        let bytes = self.bytes_of(at);
        let now = self.held.now.fetch_add(bytes.len(), Ordering::SeqCst) + bytes.len();
        self.held.peak.fetch_max(now, Ordering::SeqCst);
        Bytes::from_owner(Piece {
            bytes,
            held: Arc::clone(&self.held),
        })
    }
}

impl Held {
    pub(super) fn peak_bytes(&self) -> usize {
        self.peak.load(Ordering::SeqCst)
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.held.now.fetch_sub(self.bytes.len(), Ordering::SeqCst);
    }
}
