//! REAPI `ContentAddressableStorage`.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use prost::Message as _;
use regatta_cas::{BlobStore, ChunkedBlobStore, compressed, read_all, stream_of};
use regatta_model::Digest;
use regatta_wire::reapi::compressor::Value as Compressor;
use regatta_wire::reapi::content_addressable_storage_server::ContentAddressableStorage;
use regatta_wire::{reapi, rpc};
use tokio::sync::{Semaphore, SemaphorePermit};
use tonic::{Request, Response, Status, Streaming};

use super::chunking::ChunkedBlobs;
use super::compression::CompressedBlobs;
use super::tree_walk::TreeWalk;
use super::{TenantViews, digests_of, find_missing};
use crate::action_cache::tenant_of;
use crate::status::{self, Failure};

/// What gRPC peers accept as one message if nobody told them otherwise, in bytes.
const MAX_MESSAGE_SIZE_BYTES: usize = 4 << 20;
/// The blobs of one batch together, in bytes: a message less what its other fields may take.
pub(crate) const MAX_BATCH_TOTAL_SIZE_BYTES: u64 = (4 << 20) - (256 << 10);
/// What one blob of a batch costs besides its bytes: its digest and a status without words.
const OVERHEAD_PER_BLOB_BYTES: u64 = 160;
/// How many blobs of one batch are read or written at once.
const CONCURRENT_BLOBS: usize = 16;
/// How many bytes all batches under way may hold together, in KiB.
const BATCHES_IN_FLIGHT_KIB: u32 = 256 << 10;

/// Serves small blobs, batches and trees out of a store.
#[derive(Debug, Clone)]
pub(crate) struct ContentAddressableStorageService {
    blobs: TenantViews<dyn BlobStore>,
    compressed: CompressedBlobs,
    chunked: ChunkedBlobs,
    /// Has a permit for each KiB that batches may hold.
    batches: Arc<Semaphore>,
}

impl ContentAddressableStorageService {
    /// Serves `blobs` to every tenant alike: who knows a blob's digest may read it. What is made of chunks is
    /// kept in `chunked`, which is below them.
    pub(crate) fn new(
        blobs: TenantViews<dyn BlobStore>,
        chunked: TenantViews<ChunkedBlobStore>,
        compressed: CompressedBlobs,
    ) -> Self {
        Self {
            chunked: ChunkedBlobs::new(blobs.clone(), chunked),
            blobs,
            compressed,
            batches: Arc::new(Semaphore::new(BATCHES_IN_FLIGHT_KIB as usize)),
        }
    }

    /// Waits until there is room for a batch. The room is taken until the permit is dropped.
    async fn room_for(
        &self,
        sizes: impl Iterator<Item = u64> + Send,
    ) -> Result<SemaphorePermit<'_>, Failure> {
        let kib = sizes.sum::<u64>().div_ceil(1024).max(1);
        let kib = u32::try_from(kib).unwrap_or(u32::MAX);
        let room = self.batches.acquire_many(kib.min(BATCHES_IN_FLIGHT_KIB));
        room.await
            .map_err(|_| status::unavailable("the server is stopping", status::DEFAULT_RETRY_DELAY))
    }

    async fn store_one(
        &self,
        blobs: &dyn BlobStore,
        request: reapi::batch_update_blobs_request::Request,
    ) -> reapi::batch_update_blobs_response::Response {
        let digest = request.digest.clone();
        let status = match self.try_store(blobs, request).await {
            Ok(()) => status::ok(),
            Err(failure) => failure.into(),
        };
        reapi::batch_update_blobs_response::Response {
            digest,
            status: Some(status),
        }
    }

    async fn try_store(
        &self,
        blobs: &dyn BlobStore,
        request: reapi::batch_update_blobs_request::Request,
    ) -> Result<(), Failure> {
        let digest = status::digest_field(request.digest.as_ref(), "requests.digest")?;
        let body = stream_of(request.data);
        let stored = match Compressor::try_from(request.compressor) {
            Ok(Compressor::Identity) => blobs.put(&digest, body).await,
            Ok(Compressor::Zstd) => self.compressed.put(blobs, &digest, body).await,
            Ok(Compressor::Deflate | Compressor::Brotli) | Err(_) => {
                let description = "is neither IDENTITY nor ZSTD; see the capabilities";
                return Err(status::invalid_argument("requests.compressor", description));
            }
        };
        stored.map_err(|error| status::of_write(&error))
    }

    async fn read_one(
        &self,
        blobs: &dyn BlobStore,
        digest: Digest,
        may_compress: bool,
    ) -> reapi::batch_read_blobs_response::Response {
        let read = read_all(blobs, &digest, MAX_BATCH_TOTAL_SIZE_BYTES).await;
        let (data, status) = match read {
            Ok(data) => (data, status::ok()),
            Err(error) => (Bytes::new(), status::of_read(&error).into()),
        };
        let smaller = may_compress.then(|| compressed(&data)).flatten();
        let (data, compressor) = match smaller {
            Some(smaller) => (smaller, Compressor::Zstd),
            None => (data, Compressor::Identity),
        };
        reapi::batch_read_blobs_response::Response {
            digest: Some(digest.into()),
            data,
            compressor: compressor.into(),
            status: Some(status),
        }
    }
}

/// Refuses a batch whose answer, or whose request, no peer would accept.
fn check_batch_size(sizes: impl Iterator<Item = u64>, field: &str) -> Result<(), Failure> {
    let (mut payload, mut message) = (0u64, 0u64);
    for size in sizes {
        payload = payload.saturating_add(size);
        message = message
            .saturating_add(size)
            .saturating_add(OVERHEAD_PER_BLOB_BYTES);
    }
    if payload > MAX_BATCH_TOTAL_SIZE_BYTES || message > MAX_MESSAGE_SIZE_BYTES as u64 {
        let limit = MAX_BATCH_TOTAL_SIZE_BYTES;
        return Err(status::invalid_argument(
            field,
            format!("the batch has {payload} bytes of blobs, at most {limit} fit; use ByteStream"),
        ));
    }
    Ok(())
}

/// Takes the words out of an answer's statuses if it were too long for peers with them: there may be tens
/// of thousands. Each part still has its code.
fn fit_into_message<'a>(
    encoded_len: usize,
    statuses: impl Iterator<Item = &'a mut Option<rpc::Status>>,
) {
    if encoded_len > MAX_MESSAGE_SIZE_BYTES {
        statuses.flatten().for_each(status::without_words);
    }
}

type ChunkStream =
    Pin<Box<dyn Stream<Item = Result<reapi::GetChunkMappingResponse, Status>> + Send>>;
type TreeStream = Pin<Box<dyn Stream<Item = Result<reapi::GetTreeResponse, Status>> + Send>>;

#[tonic::async_trait]
impl ContentAddressableStorage for ContentAddressableStorageService {
    async fn find_missing_blobs(
        &self,
        request: Request<reapi::FindMissingBlobsRequest>,
    ) -> Result<Response<reapi::FindMissingBlobsResponse>, Status> {
        let request = request.into_inner();
        status::sha256_only(request.digest_function)?;
        let asked = digests_of(&request.blob_digests, "blob_digests")?;
        let mut seen = HashSet::with_capacity(asked.len());
        let unique = asked.iter().filter(|digest| seen.insert(**digest));
        let unique: Vec<Digest> = unique.copied().collect();
        let blobs = self.blobs.of(&tenant_of(&request.instance_name)?);
        let missing = find_missing(blobs.as_ref(), &unique)
            .await
            .map_err(|error| status::of_read(&error))?;
        // They come in the order of the question, whose messages make the answer.
        let mut missing = missing.iter().peekable();
        let messages = request.blob_digests.into_iter().zip(&asked);
        let missing_blob_digests = messages
            .filter(|(_, digest)| missing.next_if_eq(digest).is_some())
            .map(|(message, _)| message)
            .collect();
        Ok(Response::new(reapi::FindMissingBlobsResponse {
            missing_blob_digests,
        }))
    }

    async fn batch_update_blobs(
        &self,
        request: Request<reapi::BatchUpdateBlobsRequest>,
    ) -> Result<Response<reapi::BatchUpdateBlobsResponse>, Status> {
        let request = request.into_inner();
        status::sha256_only(request.digest_function)?;
        check_batch_size(
            request.requests.iter().map(|blob| blob.data.len() as u64),
            "requests",
        )?;
        let blobs = self.blobs.of(&tenant_of(&request.instance_name)?);
        let sizes = request.requests.iter().map(|blob| blob.data.len() as u64);
        let _room = self.room_for(sizes).await?;
        let responses = stream::iter(request.requests)
            .map(|blob| self.store_one(blobs.as_ref(), blob))
            .buffered(CONCURRENT_BLOBS)
            .collect()
            .await;
        let mut answer = reapi::BatchUpdateBlobsResponse { responses };
        let length = answer.encoded_len();
        fit_into_message(
            length,
            answer.responses.iter_mut().map(|part| &mut part.status),
        );
        Ok(Response::new(answer))
    }

    async fn batch_read_blobs(
        &self,
        request: Request<reapi::BatchReadBlobsRequest>,
    ) -> Result<Response<reapi::BatchReadBlobsResponse>, Status> {
        let request = request.into_inner();
        status::sha256_only(request.digest_function)?;
        let digests = digests_of(&request.digests, "digests")?;
        let blobs = self.blobs.of(&tenant_of(&request.instance_name)?);
        let may_compress = request
            .acceptable_compressors
            .contains(&Compressor::Zstd.into());
        check_batch_size(digests.iter().map(Digest::size_bytes), "digests")?;
        let _room = self
            .room_for(digests.iter().map(Digest::size_bytes))
            .await?;
        let responses = stream::iter(digests)
            .map(|digest| self.read_one(blobs.as_ref(), digest, may_compress))
            .buffered(CONCURRENT_BLOBS)
            .collect()
            .await;
        let mut answer = reapi::BatchReadBlobsResponse { responses };
        let length = answer.encoded_len();
        fit_into_message(
            length,
            answer.responses.iter_mut().map(|part| &mut part.status),
        );
        Ok(Response::new(answer))
    }

    type GetTreeStream = TreeStream;

    async fn get_tree(
        &self,
        request: Request<reapi::GetTreeRequest>,
    ) -> Result<Response<TreeStream>, Status> {
        let request = request.into_inner();
        status::sha256_only(request.digest_function)?;
        let root = status::digest_field(request.root_digest.as_ref(), "root_digest")?;
        let blobs = self.blobs.of(&tenant_of(&request.instance_name)?);
        let page_size = page_size_of(request.page_size)?;
        let skip = skip_of(&request.page_token)?;
        let mut walk = TreeWalk::start(blobs, root, page_size).await?;
        walk.skip(skip).await?;
        let pages = stream::unfold(Some(walk), |walk| async move {
            let mut walk = walk?;
            match walk.page().await {
                Ok(page) if page.next_page_token.is_empty() => Some((Ok(page), None)),
                Ok(page) => Some((Ok(page), Some(walk))),
                Err(failure) => Some((Err(Status::from(failure)), None)),
            }
        });
        Ok(Response::new(pages.boxed()))
    }

    async fn split_blob(
        &self,
        request: Request<reapi::SplitBlobRequest>,
    ) -> Result<Response<reapi::SplitBlobResponse>, Status> {
        let request = request.into_inner();
        let chunked = self.chunked.of(&tenant_of(&request.instance_name)?);
        let split = chunked.split(request).await?;
        Ok(Response::new(split))
    }

    async fn splice_blob(
        &self,
        request: Request<reapi::SpliceBlobRequest>,
    ) -> Result<Response<reapi::SpliceBlobResponse>, Status> {
        let request = request.into_inner();
        let chunked = self.chunked.of(&tenant_of(&request.instance_name)?);
        let spliced = chunked.splice(request).await?;
        Ok(Response::new(spliced))
    }

    type GetChunkMappingStream = ChunkStream;

    async fn get_chunk_mapping(
        &self,
        _: Request<reapi::GetChunkMappingRequest>,
    ) -> Result<Response<ChunkStream>, Status> {
        Err(status::unimplemented("this is of version 2.13; use SplitBlob of version 2.12").into())
    }

    async fn register_chunk_mapping(
        &self,
        _: Request<Streaming<reapi::RegisterChunkMappingRequest>>,
    ) -> Result<Response<reapi::RegisterChunkMappingResponse>, Status> {
        Err(status::unimplemented("this is of version 2.13; use SpliceBlob of version 2.12").into())
    }
}

fn page_size_of(page_size: i32) -> Result<usize, Failure> {
    match usize::try_from(page_size) {
        Ok(0) => Ok(usize::MAX),
        Ok(size) => Ok(size),
        Err(_) => Err(status::invalid_argument(
            "page_size",
            "must not be negative",
        )),
    }
}

/// A page token says how many directories came before the page: a tree never changes, nor does the order
/// in which it is walked.
fn skip_of(page_token: &str) -> Result<usize, Failure> {
    if page_token.is_empty() {
        return Ok(0);
    }
    page_token
        .parse()
        .map_err(|_| status::invalid_argument("page_token", "was not given by this server"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;
    use regatta_cas::MemoryBlobStore;

    #[tokio::test]
    async fn batches_wait_for_room() {
        let blobs: Arc<dyn BlobStore> = Arc::new(MemoryBlobStore::new());
        let compressed = CompressedBlobs::new();
        let mappings = Arc::new(MemoryBlobStore::new());
        let chunked = Arc::new(ChunkedBlobStore::new(Arc::clone(&blobs), mappings));
        let service =
            ContentAddressableStorageService::new(blobs.into(), chunked.into(), compressed);
        let most = u64::from(BATCHES_IN_FLIGHT_KIB) * 1024;
        let room = service.room_for([most - 1024, 1].into_iter()).await;
        let mut waiting = Box::pin(service.room_for([1].into_iter()));
        assert!((&mut waiting).now_or_never().is_none());
        drop(room);
        assert!(waiting.await.is_ok());
        // One that is larger than all room is refused for its size elsewhere, and does not wait for ever.
        assert!(service.room_for([u64::MAX].into_iter()).await.is_ok());
    }
}
