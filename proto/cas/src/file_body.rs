//! Files as streams.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use rustix::io::{ReadWriteFlags, preadv2};
use tokio::task::JoinHandle;

use crate::piece_buffer::{PIECE_BYTES, PieceBuffer};
use crate::{BlobStream, StoreError};

/// Streams `length` bytes of a file from `offset` on, or as far as the file goes if that is sooner.
///
/// What the system has in memory is read at once. What it has to fetch from a disk is read by another
/// thread, the next piece while the consumer works on the last one; no more than that is read ahead. It must
/// be polled within a tokio runtime.
#[must_use]
pub fn file_body(file: File, offset: u64, length: u64) -> BlobStream {
    let cursor = Cursor {
        file: Arc::new(file),
        offset,
        left: length,
        ahead: None,
    };
    stream::unfold(cursor, |mut cursor| async move {
        let piece = cursor.next().await?;
        if piece.is_err() {
            cursor.left = 0;
        }
        Some((piece, cursor))
    })
    .boxed()
}

struct Cursor {
    file: Arc<File>,
    offset: u64,
    left: u64,
    ahead: Option<JoinHandle<io::Result<Bytes>>>,
}

impl Cursor {
    async fn next(&mut self) -> Option<Result<Bytes, StoreError>> {
        let piece = match self.read().await? {
            Ok(piece) => piece,
            Err(error) => return Some(Err(unreadable(&error))),
        };
        if piece.is_empty() {
            self.left = 0;
            return None;
        }
        self.offset += piece.len() as u64;
        self.left = self.left.saturating_sub(piece.len() as u64);
        Some(Ok(piece))
    }

    async fn read(&mut self) -> Option<io::Result<Bytes>> {
        let wanted = wanted(self.left)?;
        let reading = match self.ahead.take() {
            Some(reading) => reading,
            None => match read_from_memory(&self.file, self.offset, wanted) {
                Some(piece) => return Some(Ok(piece)),
                None => self.begin(self.offset, wanted),
            },
        };
        let piece = reading.await.map_err(io::Error::other).flatten();
        if let Ok(piece) = &piece {
            let read = piece.len() as u64;
            if let Some(next) = wanted_after(self.left, read) {
                self.ahead = Some(self.begin(self.offset + read, next));
            }
        }
        Some(piece)
    }

    fn begin(&self, offset: u64, wanted: usize) -> JoinHandle<io::Result<Bytes>> {
        let file = Arc::clone(&self.file);
        tokio::task::spawn_blocking(move || read_piece(&file, offset, wanted))
    }
}

/// How long the next piece is of what is left; `None` if nothing is.
fn wanted(left: u64) -> Option<usize> {
    let wanted = usize::try_from(left).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
    (wanted > 0).then_some(wanted)
}

/// The same after a piece of `read` bytes; a piece of none was the last.
fn wanted_after(left: u64, read: u64) -> Option<usize> {
    if read == 0 {
        return None;
    }
    wanted(left.saturating_sub(read))
}

/// What comes next in a file, if the system has any of it in memory and says so.
fn read_from_memory(file: &File, offset: u64, wanted: usize) -> Option<Bytes> {
    let mut piece = PieceBuffer::take(wanted);
    let into = &mut [IoSliceMut::new(piece.as_mut())];
    match preadv2(file, into, offset, ReadWriteFlags::NOWAIT) {
        // What is the matter shows when it is read by waiting for it.
        Ok(0) | Err(_) => None,
        Ok(read) => Some(piece.into_bytes(read)),
    }
}

fn read_piece(file: &File, offset: u64, wanted: usize) -> io::Result<Bytes> {
    let mut piece = PieceBuffer::take(wanted);
    let mut filled = 0;
    while filled < wanted {
        match file.read_at(&mut piece.as_mut()[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(piece.into_bytes(filled))
}

fn unreadable(error: &io::Error) -> StoreError {
    StoreError::Unavailable {
        detail: format!("reading a file: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use futures::TryStreamExt as _;

    use super::*;
    use crate::MAX_PIECE_BYTES;

    async fn read(content: &[u8], offset: u64, length: u64) -> Vec<u8> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        let pieces: Vec<Bytes> = file_body(file, offset, length).try_collect().await.unwrap();
        assert!(pieces.iter().all(|piece| piece.len() <= MAX_PIECE_BYTES));
        pieces.concat()
    }

    #[tokio::test]
    async fn it_streams_parts_of_files() {
        let content: Vec<u8> = (0..MAX_PIECE_BYTES * 3 + 5)
            .map(|at| at.to_le_bytes()[1])
            .collect();
        assert_eq!(read(&content, 0, u64::MAX).await, content);
        assert_eq!(read(&content, 0, content.len() as u64).await, content);
        assert_eq!(read(&content, 3, 7).await, content[3..10]);
        assert_eq!(read(&content, 3, 0).await, b"");
        assert_eq!(read(b"", 0, 10).await, b"");
    }
}
