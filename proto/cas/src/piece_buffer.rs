//! Memory that files are read into.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// How long a piece of a file is, in bytes: it stays in a processor's cache on its way from the file into a
/// connection.
pub(crate) const PIECE_BYTES: usize = 256 << 10;
const _: () = assert!(PIECE_BYTES <= crate::MAX_PIECE_BYTES);
/// How many buffers are kept for whoever reads next. New memory would be filled with zeros first, page by
/// page, which takes longer than reading into it.
const KEPT_BUFFERS: usize = 8;
/// Pieces of at most so many bytes get memory of their own, which fits them.
const SMALL_BYTES: usize = PIECE_BYTES / 4;

static KEPT: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

fn kept() -> MutexGuard<'static, Vec<Vec<u8>>> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Memory for one piece. It is used again once nobody has the piece any more.
pub(crate) struct PieceBuffer {
    memory: Vec<u8>,
    wanted: usize,
}

impl PieceBuffer {
    /// Memory for `wanted` bytes, [`PIECE_BYTES`] at most. What is in it is of no meaning.
    pub(crate) fn take(wanted: usize) -> Self {
        let wanted = wanted.min(PIECE_BYTES);
        let memory = match wanted > SMALL_BYTES {
            true => kept().pop().unwrap_or_else(|| vec![0; PIECE_BYTES]),
            false => vec![0; wanted],
        };
        Self { memory, wanted }
    }

    /// The first `filled` bytes as a piece.
    pub(crate) fn into_bytes(mut self, filled: usize) -> Bytes {
        if self.memory.len() < PIECE_BYTES {
            let mut memory = std::mem::take(&mut self.memory);
            memory.truncate(filled);
            return Bytes::from(memory);
        }
        let filled = filled.min(self.wanted);
        Bytes::from_owner(self).slice(..filled)
    }
}

impl AsMut<[u8]> for PieceBuffer {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.memory[..self.wanted]
    }
}

impl AsRef<[u8]> for PieceBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.memory[..self.wanted]
    }
}

impl Drop for PieceBuffer {
    fn drop(&mut self) {
        if self.memory.len() < PIECE_BYTES {
            return;
        }
        let mut kept = kept();
        if kept.len() < KEPT_BUFFERS {
            kept.push(std::mem::take(&mut self.memory));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_has_what_was_read_into_it_until_it_goes() {
        for wanted in [
            1,
            SMALL_BYTES,
            SMALL_BYTES + 1,
            PIECE_BYTES,
            PIECE_BYTES + 1,
        ] {
            let held: Vec<Bytes> = (0..2 * KEPT_BUFFERS)
                .map(|at| {
                    let mut buffer = PieceBuffer::take(wanted);
                    let mark = at.to_le_bytes()[0];
                    buffer.as_mut().fill(mark);
                    let filled = buffer.as_ref().len();
                    assert_eq!(filled, wanted.min(PIECE_BYTES));
                    buffer.into_bytes(filled - at % 2 * (filled / 2))
                })
                .collect();
            for (at, piece) in held.iter().enumerate() {
                assert!(piece.iter().all(|byte| *byte == at.to_le_bytes()[0]));
            }
            drop(held);
            assert!(kept().len() <= KEPT_BUFFERS);
        }
    }
}
