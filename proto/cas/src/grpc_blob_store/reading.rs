//! Large blobs from the server (ByteStream, `Read`).

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use regatta_model::Digest;
use regatta_wire::bytestream::{ReadRequest, ReadResponse};
use tonic::{Status, Streaming};

use super::Remote;
use super::retry::{MAX_ATTEMPTS, moving, wait_after};
use super::status::{is_passing, read_error, told_to_wait};
use crate::{BlobRange, BlobStream, StoreError, stream_of};

/// Streams a part of a blob. The first piece is awaited, so that an absent blob is known at once.
pub(super) async fn read(
    remote: &Remote,
    digest: &Digest,
    range: BlobRange,
) -> Result<BlobStream, StoreError> {
    let (offset, size_bytes) = (range.offset, digest.size_bytes());
    if offset > size_bytes {
        return Err(StoreError::OutOfRange {
            digest: *digest,
            offset,
        });
    }
    let left = range
        .length
        .map_or(u64::MAX, |length| length)
        .min(size_bytes - offset);
    let mut reading = Reading {
        remote: remote.clone(),
        digest: *digest,
        offset,
        left,
        answers: None,
        failed: 0,
    };
    if left == 0 {
        return reading
            .check_presence()
            .await
            .map(|()| stream_of(Bytes::new()));
    }
    let first = reading.next().await?;
    let rest = stream::unfold(Some(reading), |reading| async move {
        let mut reading = reading?;
        match reading.next().await {
            Ok(Some(piece)) => Some((Ok(piece), Some(reading))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    });
    Ok(stream::iter(first.map(Ok)).chain(rest).boxed())
}

struct Reading {
    remote: Remote,
    digest: Digest,
    offset: u64,
    left: u64,
    answers: Option<Streaming<ReadResponse>>,
    /// How often it broke since it last made progress.
    failed: u32,
}

impl Reading {
    /// The next piece; a read that breaks goes on where it was.
    async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        while self.left > 0 {
            match moving(self.next_of_this_call()).await.flatten() {
                Ok(Some(piece)) => {
                    self.failed = 0;
                    return Ok(Some(self.take(piece)));
                }
                Ok(None) => return Err(self.ended_early()),
                Err(status) => self.recover(&status).await?,
            }
        }
        Ok(None)
    }

    async fn next_of_this_call(&mut self) -> Result<Option<Bytes>, Status> {
        let answers = match &mut self.answers {
            Some(answers) => answers,
            None => {
                let request = self.request()?;
                let answers = self.remote.bytes.clone().read(request).await?.into_inner();
                self.answers.insert(answers)
            }
        };
        loop {
            match answers.message().await? {
                Some(answer) if answer.data.is_empty() => {}
                Some(answer) => return Ok(Some(answer.data)),
                None => return Ok(None),
            }
        }
    }

    fn request(&self) -> Result<ReadRequest, Status> {
        let number = |value: u64| {
            i64::try_from(value).map_err(|_| Status::out_of_range("no blob is that large"))
        };
        Ok(ReadRequest {
            resource_name: self.remote.read_name(&self.digest),
            read_offset: number(self.offset)?,
            read_limit: number(self.left)?,
        })
    }

    fn take(&mut self, mut piece: Bytes) -> Bytes {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX);
        piece.truncate(wanted);
        self.offset += piece.len() as u64;
        self.left -= piece.len() as u64;
        piece
    }

    async fn recover(&mut self, status: &Status) -> Result<(), StoreError> {
        self.answers = None;
        self.failed += 1;
        if !is_passing(status) || self.failed >= MAX_ATTEMPTS {
            return Err(read_error(&self.digest, self.offset, status));
        }
        tracing::debug!(digest = %self.digest, offset = self.offset, %status, "a read broke; going on");
        tokio::time::sleep(wait_after(self.failed, told_to_wait(status))).await;
        Ok(())
    }

    fn ended_early(&self) -> StoreError {
        StoreError::Unavailable {
            detail: format!(
                "the server ended blob {} at byte {}",
                self.digest, self.offset
            ),
        }
    }

    /// A read of nothing tells nothing: ByteStream takes a limit of zero for none.
    async fn check_presence(&self) -> Result<(), StoreError> {
        let missing = self.remote.find_missing(&[self.digest]).await?;
        match missing.is_empty() {
            true => Ok(()),
            false => Err(StoreError::NotFound {
                digest: self.digest,
            }),
        }
    }
}
