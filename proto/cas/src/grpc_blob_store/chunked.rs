//! Large blobs to and from the server as those of their chunks that the other side lacks (REAPI,
//! `SpliceBlob` and `SplitBlob`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use regatta_model::Digest;
use regatta_wire::reapi::{self, chunking_function, digest_function};
use tokio::sync::{OnceCell, Semaphore};
use tonic::Status;

use super::retry::with_retries;
use super::status::{is_refusal, is_there_already, is_unimplemented, read_error, splice_error};
use super::{GrpcBlobStore, Remote, writing};
use crate::{BlobStream, ChunkingParams, MAX_CHUNKS, StoreError, concatenated, put_chunks};

/// Blobs smaller than this are sent as they are, in bytes. No chunk is that large.
const CHUNKED_FROM_BYTES: u64 = 8 << 20;
/// How many blobs are cut and sent at a time, at some 30 MiB of memory each; many of their chunks are on
/// their way at once.
const CONCURRENT_BLOBS: usize = 2;

/// What is known of the server's will to take chunks.
pub(super) struct Chunking {
    offered: OnceCell<Offer>,
    /// Whether it refused what it offered.
    refused: AtomicBool,
    turns: Semaphore,
}

/// What the server offers.
#[derive(Debug, Clone, Copy, Default)]
struct Offer {
    /// How to cut the blobs that it puts together, if it does.
    splicing: Option<ChunkingParams>,
    /// Whether it says what its blobs are made of.
    splitting: bool,
}

impl Chunking {
    pub(super) fn new() -> Self {
        Self {
            offered: OnceCell::new(),
            refused: AtomicBool::new(false),
            turns: Semaphore::new(CONCURRENT_BLOBS),
        }
    }

    /// How to cut a blob; `None` if it is better sent as a whole. The first large blob asks the server.
    pub(super) async fn params_for(
        &self,
        remote: &Remote,
        digest: &Digest,
    ) -> Option<ChunkingParams> {
        if digest.size_bytes() < CHUNKED_FROM_BYTES || self.refused.load(Ordering::Relaxed) {
            return None;
        }
        let params = self.offer(remote).await.splicing?;
        let fits = params.most_chunks(digest.size_bytes()) <= MAX_CHUNKS as u64;
        fits.then_some(params)
    }

    async fn offer(&self, remote: &Remote) -> Offer {
        match self.offered.get_or_try_init(|| offered_by(remote)).await {
            Ok(offer) => *offer,
            Err(status) => {
                tracing::debug!(%status, "the server does not say whether it takes chunks");
                Offer::default()
            }
        }
    }

    /// What a blob is made of; `None` if it is better got as a whole.
    pub(super) async fn chunks_of(
        &self,
        remote: &Remote,
        digest: &Digest,
    ) -> Result<Option<Vec<Digest>>, StoreError> {
        if digest.size_bytes() < CHUNKED_FROM_BYTES || !self.offer(remote).await.splitting {
            return Ok(None);
        }
        let split = split(remote, digest).await;
        let split = split.map_err(|status| read_error(digest, 0, &status))?;
        let chunks = split.chunk_digests.into_iter().map(Digest::try_from);
        let chunks: Result<Vec<Digest>, _> = chunks.collect();
        let chunks = chunks.map_err(|error| StoreError::Unavailable {
            detail: format!("the server answered with a bad digest: {error}"),
        })?;
        let sizes = chunks.iter().map(Digest::size_bytes);
        let is_whole = sizes.fold(0, u64::saturating_add) == digest.size_bytes();
        Ok(is_whole.then_some(chunks))
    }
}

async fn split(remote: &Remote, digest: &Digest) -> Result<reapi::SplitBlobResponse, Status> {
    let request = reapi::SplitBlobRequest {
        instance_name: remote.instance_name.to_string(),
        blob_digest: Some(digest.into()),
        digest_function: digest_function::Value::Sha256.into(),
        ..Default::default()
    };
    let split = with_retries(|| {
        let (mut storage, request) = (remote.storage.clone(), request.clone());
        async move { storage.split_blob(request).await }
    });
    Ok(split.await?.into_inner())
}

/// What the server offers. An error says nothing about the next time.
async fn offered_by(remote: &Remote) -> Result<Offer, Status> {
    let answer = with_retries(|| {
        let mut capabilities = remote.capabilities.clone();
        let request = reapi::GetCapabilitiesRequest {
            instance_name: remote.instance_name.to_string(),
        };
        async move { capabilities.get_capabilities(request).await }
    });
    let cache = match answer.await {
        Ok(answer) => answer.into_inner().cache_capabilities,
        Err(status) if is_unimplemented(&status) => return Ok(Offer::default()),
        Err(status) => return Err(status),
    };
    let cache = cache.unwrap_or_default();
    let params = cache.fast_cdc_2020_params;
    let params = params.filter(|_| cache.splice_blob_support);
    Ok(Offer {
        splicing: params
            .and_then(|params| ChunkingParams::new(params.avg_chunk_size_bytes, params.seed)),
        splitting: cache.split_blob_support,
    })
}

/// Sends what the server lacks of a blob and has it put together. If the server refuses to, after all, the
/// blob goes there as a whole, from the chunks that are there.
pub(super) async fn put(
    store: &GrpcBlobStore,
    params: ChunkingParams,
    digest: &Digest,
    body: BlobStream,
) -> Result<(), StoreError> {
    let turn = store.chunking.turns.acquire().await;
    let _turn = turn.map_err(|_| StoreError::Unavailable {
        detail: "the client has been shut down".to_owned(),
    })?;
    // A blob that is there may be there without its chunks.
    if store.remote.find_missing(&[*digest]).await?.is_empty() {
        return Ok(());
    }
    let chunks = put_chunks(store, params, digest, body).await?;
    match splice(&store.remote, digest, &chunks).await {
        Err(status) if is_refusal(&status) => {
            tracing::warn!(%digest, %status, "the server refuses chunks that it offers to take; sending whole blobs");
            store.chunking.refused.store(true, Ordering::Relaxed);
            let body = concatenated(Arc::new(store.clone()), chunks);
            writing::write(&store.remote, digest, body).await
        }
        Err(status) if !is_there_already(&status) => Err(splice_error(digest, &status)),
        Ok(()) | Err(_) => Ok(()),
    }
}

async fn splice(remote: &Remote, digest: &Digest, chunks: &[Digest]) -> Result<(), Status> {
    let request = reapi::SpliceBlobRequest {
        instance_name: remote.instance_name.to_string(),
        blob_digest: Some(digest.into()),
        chunk_digests: chunks.iter().map(Into::into).collect(),
        digest_function: digest_function::Value::Sha256.into(),
        chunking_function: chunking_function::Value::FastCdc2020.into(),
    };
    let spliced = with_retries(|| {
        let (mut storage, request) = (remote.storage.clone(), request.clone());
        async move { storage.splice_blob(request).await }
    });
    spliced.await.map(drop)
}

#[cfg(test)]
mod tests;
