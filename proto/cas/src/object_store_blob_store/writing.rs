//! Streams into objects.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::FuturesUnordered;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt as _, PutPayload, UploadPart};
use regatta_model::Digest;

use super::failure::read_error;
use super::upload_shape::UploadShape;
use crate::{BlobStream, StoreError};

/// Writes `body` to the object at `path`: in one request if it is small, else in parts.
pub(super) async fn write(
    objects: &Arc<dyn ObjectStore>,
    path: &Path,
    digest: &Digest,
    body: BlobStream,
    shape: UploadShape,
) -> Result<(), StoreError> {
    let mut parts = Parts::new(body, shape.part_bytes(digest.size_bytes()));
    let first = parts.next().await?;
    if parts.is_ended() {
        let put = objects.put(path, payload_of(first)).await;
        return put.map(drop).map_err(read_error);
    }
    let upload = objects.put_multipart(path).await.map_err(read_error)?;
    let mut upload = Upload {
        upload: Some(upload),
    };
    upload.send(first, parts, shape.parts_in_flight).await?;
    upload.complete().await
}

fn payload_of(pieces: Vec<Bytes>) -> PutPayload {
    pieces.into_iter().collect()
}

/// Cuts a stream into parts of one size, the last excepted. Nothing is copied.
struct Parts {
    body: BlobStream,
    part_bytes: usize,
    read: VecDeque<Bytes>,
    read_bytes: usize,
    body_ended: bool,
}

impl Parts {
    fn new(body: BlobStream, part_bytes: usize) -> Self {
        Self {
            body,
            part_bytes,
            read: VecDeque::new(),
            read_bytes: 0,
            body_ended: false,
        }
    }

    /// Whether there are no more parts. Known only after `next`, which reads ahead to tell.
    fn is_ended(&self) -> bool {
        self.body_ended && self.read_bytes == 0
    }

    async fn next(&mut self) -> Result<Vec<Bytes>, StoreError> {
        // One byte more than the part, to know whether it is the last.
        while self.read_bytes <= self.part_bytes && !self.body_ended {
            match self.body.try_next().await? {
                Some(piece) => {
                    self.read_bytes += piece.len();
                    self.read.push_back(piece);
                }
                None => self.body_ended = true,
            }
        }
        Ok(self.cut())
    }

    fn cut(&mut self) -> Vec<Bytes> {
        let mut part = Vec::new();
        let mut wanted = self.part_bytes.min(self.read_bytes);
        self.read_bytes -= wanted;
        while wanted > 0 {
            let Some(mut piece) = self.read.pop_front() else {
                break;
            };
            if piece.len() > wanted {
                self.read.push_front(piece.split_off(wanted));
            }
            wanted -= piece.len();
            part.push(piece);
        }
        part
    }
}

/// An upload under way. Unless it is completed, it is aborted, also when its task is dropped.
struct Upload {
    upload: Option<Box<dyn MultipartUpload>>,
}

impl Upload {
    fn put_part(&mut self, part: Vec<Bytes>) -> Option<UploadPart> {
        Some(self.upload.as_mut()?.put_part(payload_of(part)))
    }

    async fn send(
        &mut self,
        first: Vec<Bytes>,
        mut parts: Parts,
        in_flight: usize,
    ) -> Result<(), StoreError> {
        let mut sending = FuturesUnordered::new();
        sending.extend(self.put_part(first));
        while !parts.is_ended() {
            // Parts make progress while the next one is read.
            let mut next = std::pin::pin!(parts.next());
            let part = loop {
                tokio::select! {
                    part = &mut next => break part?,
                    Some(sent) = sending.next() => sent.map_err(read_error)?,
                }
            };
            if sending.len() >= in_flight {
                sending.try_next().await.map_err(read_error)?;
            }
            sending.extend(self.put_part(part));
        }
        sending.try_collect::<()>().await.map_err(read_error)
    }

    async fn complete(mut self) -> Result<(), StoreError> {
        let Some(upload) = self.upload.as_mut() else {
            return Ok(());
        };
        upload.complete().await.map_err(read_error)?;
        self.upload = None;
        Ok(())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let Some(mut upload) = self.upload.take() else {
            return;
        };
        // A bucket keeps, and bills, the parts of an upload that nobody aborts.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = upload.abort().await {
                    tracing::warn!(%error, "could not abort an upload");
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;

    async fn check(pieces: &[usize], part_bytes: usize, expected: &[usize]) {
        let pieces: Vec<_> = pieces
            .iter()
            .map(|len| Ok(Bytes::from(vec![1; *len])))
            .collect();
        let mut parts = Parts::new(stream::iter(pieces).boxed(), part_bytes);
        let mut found = Vec::new();
        loop {
            let part = parts.next().await.unwrap();
            found.push(part.iter().map(Bytes::len).sum::<usize>());
            if parts.is_ended() {
                break;
            }
        }
        assert_eq!(found, expected);
    }

    #[tokio::test]
    async fn parts_have_one_size_but_for_the_last() {
        check(&[], 10, &[0]).await;
        check(&[10], 10, &[10]).await;
        check(&[3, 3, 3, 3], 5, &[5, 5, 2]).await;
        check(&[20, 0, 1], 10, &[10, 10, 1]).await;
        check(&[5, 5, 5, 5], 10, &[10, 10]).await;
    }
}
