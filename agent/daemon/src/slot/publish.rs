//! The way of results into the store.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use regatta_cas::{BlobStore, BlobStream, StoreError, file_body, stream_of};
use regatta_model::Digest;

use super::collect::{BlobSource, Collected};
use super::output_spool::{Captured, CapturedBody};
use super::view::{Found, View, find};
use crate::retry::{STORE_RETRY_LIMIT, patiently};

/// How many blobs of an execution are stored at once.
const CONCURRENT_UPLOADS: usize = 8;
/// How many digests are asked for at once.
const PRESENCE_BATCH: usize = 1000;
/// Outputs of at most so many bytes together, which are sent at once, are sent unasked: that costs less
/// than asking.
const UNASKED_BYTES: u64 = 16 << 10;

/// Stores the blobs of outputs, as far as the store does not have them.
pub(crate) async fn publish_outputs(
    store: &Arc<dyn BlobStore>,
    view: &View,
    collected: &Collected,
) -> Result<(), StoreError> {
    let digests: Vec<Digest> = collected.blobs.keys().copied().collect();
    for batch in digests.chunks(PRESENCE_BATCH) {
        let bytes = batch.iter().map(Digest::size_bytes);
        let missing = match bytes.fold(0, u64::saturating_add) {
            ..=UNASKED_BYTES if batch.len() <= CONCURRENT_UPLOADS => batch.to_vec(),
            _ => patiently(STORE_RETRY_LIMIT, || store.find_missing(batch)).await?,
        };
        stream::iter(missing)
            .map(|digest| publish_blob(store, view, collected, digest).boxed())
            .buffer_unordered(CONCURRENT_UPLOADS)
            .try_collect::<()>()
            .await?;
    }
    Ok(())
}

async fn publish_blob(
    store: &Arc<dyn BlobStore>,
    view: &View,
    collected: &Collected,
    digest: Digest,
) -> Result<(), StoreError> {
    let Some(source) = collected.blobs.get(&digest) else {
        return Ok(());
    };
    patiently(STORE_RETRY_LIMIT, || async {
        store
            .put(&digest, body_of(source, view, digest).await?)
            .await
    })
    .await
}

async fn body_of(
    source: &BlobSource,
    view: &View,
    digest: Digest,
) -> Result<BlobStream, StoreError> {
    let path = match source {
        BlobSource::Memory(bytes) => return Ok(stream_of(bytes.clone())),
        BlobSource::View { path } => path.clone(),
    };
    let view = view.clone();
    let opened = tokio::task::spawn_blocking(move || match find(&view, &path)? {
        Found::File { file, .. } => Ok(file),
        Found::Nothing | Found::Directory(_) | Found::Symlink { .. } | Found::Special => {
            Err(io::Error::from(io::ErrorKind::NotFound))
        }
    });
    let file = opened
        .await
        .map_err(io::Error::other)
        .flatten()
        .map_err(unreadable)?;
    Ok(file_body(file, 0, digest.size_bytes()))
}

/// Stores an output stream.
pub(crate) async fn publish_captured(
    store: &Arc<dyn BlobStore>,
    captured: &Captured,
) -> Result<(), StoreError> {
    if captured.digest.is_empty_blob() {
        return Ok(());
    }
    patiently(STORE_RETRY_LIMIT, || async {
        let body = match &captured.body {
            CapturedBody::Memory(bytes) => stream_of(Bytes::clone(bytes)),
            CapturedBody::File(file) => {
                let file = file.try_clone().map_err(unreadable)?;
                file_body(file, 0, captured.digest.size_bytes())
            }
        };
        store.put(&captured.digest, body).await
    })
    .await
}

/// A file of this machine that cannot be read will not get better by waiting.
fn unreadable(error: io::Error) -> StoreError {
    StoreError::Full {
        detail: format!("a result on this machine cannot be read: {error}"),
    }
}
