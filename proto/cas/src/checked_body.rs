//! Hashing bytes on their way.

use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use regatta_model::{Digest, DigestHasher};

use crate::{BlobStream, StoreError};

/// Passes `body` on and ends it with [`StoreError::Corrupt`] unless its bytes are those of `expected`.
///
/// The last piece is held back until the digest is known to match, so a reader that counts bytes never has
/// a complete blob that is wrong. Of a body that is too long, `actual` is the digest of what was read.
#[must_use]
pub fn checked_body(expected: Digest, body: BlobStream) -> BlobStream {
    pieces(Check {
        expected,
        body,
        hasher: DigestHasher::new(),
        state: State::Reading,
    })
    .boxed()
}

struct Check {
    expected: Digest,
    body: BlobStream,
    hasher: DigestHasher,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Reading,
    Ended,
}

fn pieces(check: Check) -> impl Stream<Item = Result<Bytes, StoreError>> + Send + 'static {
    stream::unfold(check, |mut check| async move {
        if check.state == State::Ended {
            return None;
        }
        let next = check.next().await;
        if !matches!(next, Some(Ok(_))) {
            check.state = State::Ended;
        }
        next.map(|next| (next, check))
    })
}

impl Check {
    async fn next(&mut self) -> Option<Result<Bytes, StoreError>> {
        match self.body.try_next().await {
            Ok(Some(piece)) => Some(self.take(piece)),
            Ok(None) => self.verdict().err().map(Err),
            Err(error) => Some(Err(error)),
        }
    }

    fn take(&mut self, piece: Bytes) -> Result<Bytes, StoreError> {
        self.hasher.update(&piece);
        if self.hasher.size_bytes() >= self.expected.size_bytes() {
            self.verdict()?;
        }
        Ok(piece)
    }

    fn verdict(&self) -> Result<(), StoreError> {
        let actual = self.hasher.clone().finish();
        if actual == self.expected {
            return Ok(());
        }
        Err(StoreError::Corrupt {
            expected: self.expected,
            actual,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream_of;

    async fn check(expected: &[u8], sent: &'static [&'static [u8]]) -> Result<usize, StoreError> {
        let body = stream::iter(sent)
            .map(|piece| Ok(Bytes::from_static(piece)))
            .boxed();
        let pieces: Vec<Bytes> = checked_body(Digest::of(expected), body)
            .try_collect()
            .await?;
        Ok(pieces.len())
    }

    #[tokio::test]
    async fn right_bytes_pass() {
        assert_eq!(check(b"abcd", &[b"ab", b"cd"]).await.unwrap(), 2);
        assert_eq!(check(b"", &[]).await.unwrap(), 0);
        assert_eq!(check(b"ab", &[b"ab", b""]).await.unwrap(), 2);
    }

    #[tokio::test]
    async fn wrong_short_and_long_bytes_are_corrupt() {
        let wrong: [&'static [&'static [u8]]; 4] = [&[b"abcx"], &[b"abc"], &[b"abcd", b"e"], &[]];
        for sent in wrong {
            assert!(matches!(
                check(b"abcd", sent).await,
                Err(StoreError::Corrupt { .. })
            ));
        }
    }

    #[tokio::test]
    async fn the_last_piece_of_a_wrong_blob_never_arrives() {
        let body = stream_of(Bytes::from_static(b"wrong"));
        let mut checked = checked_body(Digest::of(b"right"), body);
        assert!(matches!(
            checked.next().await,
            Some(Err(StoreError::Corrupt { .. }))
        ));
        assert!(checked.next().await.is_none());
    }
}
