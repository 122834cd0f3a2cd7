//! Large blobs to the server (ByteStream, `Write` and `QueryWriteStatus`).

use std::collections::VecDeque;

use bytes::Bytes;
use futures::TryStreamExt as _;
use regatta_model::Digest;
use regatta_wire::bytestream::{QueryWriteStatusRequest, WriteRequest, WriteResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status};

use super::Remote;
use super::retry::{MAX_ATTEMPTS, answered, moving, wait_after, with_retries};
use super::status::{is_passing, store_error, told_to_wait};
use crate::{BlobStream, MAX_PIECE_BYTES, StoreError, checked_body};

/// How many pieces wait to be sent.
const SEND_QUEUE: usize = 2;
/// How much of what was sent is kept, in bytes, because the server may not have it when a call breaks. More
/// than this is not on its way: the windows of HTTP/2 and the queue are smaller.
const REPLAY_BYTES: usize = 8 << 20;

/// Sends a blob that is verified on its way: the end is announced only if every byte was right.
pub(super) async fn write(
    remote: &Remote,
    digest: &Digest,
    body: BlobStream,
) -> Result<(), StoreError> {
    let name = remote.write_name(digest, uuid::Uuid::new_v4());
    let source = Source::new(checked_body(*digest, body));
    let mut writing = Writing {
        remote,
        digest: *digest,
        name,
        source,
    };
    let mut failed = 0;
    let mut offset = 0;
    loop {
        let status = match writing.call(offset).await? {
            Ok(()) => return Ok(()),
            Err(status) => status,
        };
        failed += 1;
        if !is_passing(&status) || failed >= MAX_ATTEMPTS {
            return Err(store_error(Some(digest), &status));
        }
        tracing::debug!(%digest, offset, %status, "a write broke; going on");
        tokio::time::sleep(wait_after(failed, told_to_wait(&status))).await;
        let committed = writing.committed().await?;
        if committed > offset {
            failed = 0;
        }
        offset = committed;
    }
}

struct Writing<'a> {
    remote: &'a Remote,
    digest: Digest,
    name: String,
    source: Source,
}

impl Writing<'_> {
    /// Sends everything from `offset` on in one call. The outer error is final.
    async fn call(&mut self, offset: u64) -> Result<Result<(), Status>, StoreError> {
        self.source.rewind(offset)?;
        let (sender, receiver) = mpsc::channel(SEND_QUEUE);
        let mut bytes = self.remote.bytes.clone();
        let mut calling = Box::pin(async move {
            bytes
                .write(ReceiverStream::new(receiver))
                .await
                .map(Response::into_inner)
        });
        tokio::select! {
            biased;
            // Also if the server has the blob already, and need not be sent the rest.
            answer = &mut calling => return Ok(answer.and_then(|answer| self.check(&answer))),
            fed = self.feed(sender) => fed?,
        }
        let answer = answered(calling).await;
        Ok(answer.and_then(|answer| self.check(&answer)))
    }

    /// Passes pieces on until the end. If the body fails, the error ends the call without an end being
    /// announced, and the server shows nothing.
    async fn feed(&mut self, sender: mpsc::Sender<WriteRequest>) -> Result<(), StoreError> {
        let mut first = true;
        loop {
            let write_offset = self.source.offset;
            let piece = self.source.next().await?;
            let finish_write = piece.is_none();
            let request = WriteRequest {
                resource_name: if first {
                    self.name.clone()
                } else {
                    String::new()
                },
                write_offset: i64::try_from(write_offset).unwrap_or(i64::MAX),
                finish_write,
                data: piece.unwrap_or_default(),
            };
            first = false;
            // A closed queue means that the call has ended; its answer says why.
            let sent = moving(sender.send(request)).await;
            let closed = sent
                .map_err(|status| store_error(Some(&self.digest), &status))?
                .is_err();
            if finish_write || closed {
                return Ok(());
            }
        }
    }

    fn check(&self, answer: &WriteResponse) -> Result<(), Status> {
        if u64::try_from(answer.committed_size) == Ok(self.digest.size_bytes()) {
            return Ok(());
        }
        let committed = answer.committed_size;
        Err(Status::aborted(format!(
            "the server ended the write at byte {committed}"
        )))
    }

    /// How much the server has.
    async fn committed(&mut self) -> Result<u64, StoreError> {
        let answer = with_retries(|| {
            let mut bytes = self.remote.bytes.clone();
            let request = QueryWriteStatusRequest {
                resource_name: self.name.clone(),
            };
            async move { bytes.query_write_status(request).await }
        });
        match answer.await {
            Ok(answer) => Ok(u64::try_from(answer.into_inner().committed_size).unwrap_or(0)),
            Err(status) => match store_error(Some(&self.digest), &status) {
                // The server forgot the write, or never heard of it.
                StoreError::NotFound { .. } => Ok(0),
                error => Err(error),
            },
        }
    }
}

/// A body whose last pieces can be had again.
struct Source {
    body: BlobStream,
    /// Where the next piece begins, in bytes.
    offset: u64,
    /// What was taken from the body, the newest last.
    kept: VecDeque<Bytes>,
    kept_bytes: usize,
    /// How much of the newest is to be given out again, in bytes.
    again_bytes: usize,
    /// How the body ended.
    ended: Option<Result<(), StoreError>>,
}

impl Source {
    fn new(body: BlobStream) -> Self {
        Self {
            body,
            offset: 0,
            kept: VecDeque::new(),
            kept_bytes: 0,
            again_bytes: 0,
            ended: None,
        }
    }

    /// Goes back to `offset`.
    fn rewind(&mut self, offset: u64) -> Result<(), StoreError> {
        let taken = self.offset + self.again_bytes as u64;
        let back = taken
            .checked_sub(offset)
            .and_then(|back| usize::try_from(back).ok());
        let Some(back) = back.filter(|back| *back <= self.kept_bytes) else {
            let detail =
                format!("the server wants the blob from byte {offset} on, which is gone here");
            return Err(StoreError::Unavailable { detail });
        };
        self.again_bytes = back;
        self.offset = offset;
        Ok(())
    }

    async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        if self.again_bytes == 0 && !self.take_from_body().await? {
            return Ok(None);
        }
        Ok(self.give_out())
    }

    /// The next bytes that are kept and were not given out.
    fn give_out(&mut self) -> Option<Bytes> {
        let mut skip = self.kept_bytes - self.again_bytes;
        for piece in &self.kept {
            if skip >= piece.len() {
                skip -= piece.len();
                continue;
            }
            let until = piece.len().min(skip + MAX_PIECE_BYTES);
            let bytes = piece.slice(skip..until);
            self.again_bytes -= bytes.len();
            self.offset += bytes.len() as u64;
            return Some(bytes);
        }
        None
    }

    /// Takes a piece from the body. Whether there was one.
    async fn take_from_body(&mut self) -> Result<bool, StoreError> {
        if let Some(ended) = &self.ended {
            return ended.clone().map(|()| false);
        }
        let next = match self.body.try_next().await {
            Ok(next) => next,
            Err(error) => {
                self.ended = Some(Err(error.clone()));
                return Err(error);
            }
        };
        let Some(piece) = next else {
            self.ended = Some(Ok(()));
            return Ok(false);
        };
        self.again_bytes += piece.len();
        self.kept_bytes += piece.len();
        self.kept.push_back(piece);
        self.forget_oldest();
        // A piece of no bytes is no piece; the caller asks again.
        if self.again_bytes == 0 {
            return Box::pin(self.take_from_body()).await;
        }
        Ok(true)
    }

    fn forget_oldest(&mut self) {
        while let Some(oldest) = self.kept.front() {
            let left = self.kept_bytes - oldest.len();
            if left < REPLAY_BYTES.max(self.again_bytes) {
                return;
            }
            self.kept_bytes = left;
            self.kept.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream_of;

    async fn rest_of(source: &mut Source) -> Vec<u8> {
        let mut rest = Vec::new();
        while let Some(piece) = source.next().await.unwrap() {
            rest.extend_from_slice(&piece);
        }
        rest
    }

    #[tokio::test]
    async fn a_source_goes_back_as_far_as_it_remembers() {
        let bytes: Bytes = (0..3 * REPLAY_BYTES)
            .map(|at| at.to_le_bytes()[1])
            .collect();
        let mut source = Source::new(stream_of(bytes.clone()));
        assert!(rest_of(&mut source).await == bytes);
        for offset in [bytes.len(), bytes.len() - 1, bytes.len() - REPLAY_BYTES] {
            source.rewind(offset as u64).unwrap();
            assert!(rest_of(&mut source).await == bytes[offset..]);
        }
        source.rewind(bytes.len() as u64 + 1).unwrap_err();
        source.rewind(0).unwrap_err();
        source.rewind(bytes.len() as u64 - 5).unwrap();
        source.rewind(bytes.len() as u64 - 9).unwrap();
        assert_eq!(rest_of(&mut source).await.len(), 9);
    }
}
