//! Files as streams.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use tokio::task::JoinHandle;

use crate::{BlobStream, MAX_PIECE_BYTES, StoreError};

/// Streams `length` bytes of a file from `offset` on, or as far as the file goes if that is sooner.
///
/// The next piece is read while the consumer works on the last one; no more than that is read ahead. It
/// must be polled within a tokio runtime.
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
    ahead: Option<JoinHandle<std::io::Result<Bytes>>>,
}

impl Cursor {
    async fn next(&mut self) -> Option<Result<Bytes, StoreError>> {
        let reading = match self.ahead.take() {
            Some(reading) => reading,
            None => self.read_ahead()?,
        };
        let piece = match reading.await {
            Ok(Ok(piece)) => piece,
            Ok(Err(error)) => return Some(Err(unreadable(&error))),
            Err(error) => return Some(Err(unreadable(&std::io::Error::other(error)))),
        };
        if piece.is_empty() {
            self.left = 0;
            return None;
        }
        self.offset += piece.len() as u64;
        self.left = self.left.saturating_sub(piece.len() as u64);
        self.ahead = self.read_ahead();
        Some(Ok(piece))
    }

    fn read_ahead(&self) -> Option<JoinHandle<std::io::Result<Bytes>>> {
        let wanted =
            usize::try_from(self.left).map_or(MAX_PIECE_BYTES, |left| left.min(MAX_PIECE_BYTES));
        if wanted == 0 {
            return None;
        }
        let (file, offset) = (Arc::clone(&self.file), self.offset);
        Some(tokio::task::spawn_blocking(move || {
            read_piece(&file, offset, wanted)
        }))
    }
}

fn read_piece(file: &File, offset: u64, wanted: usize) -> std::io::Result<Bytes> {
    let mut piece = vec![0; wanted];
    let mut filled = 0;
    while filled < wanted {
        match file.read_at(&mut piece[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    piece.truncate(filled);
    Ok(Bytes::from(piece))
}

fn unreadable(error: &std::io::Error) -> StoreError {
    StoreError::Unavailable {
        detail: format!("reading a file: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use futures::TryStreamExt as _;

    use super::*;

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
