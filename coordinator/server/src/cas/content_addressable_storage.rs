//! REAPI `ContentAddressableStorage`.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use prost::Message as _;
use regatta_cas::{BlobStore, StoreError, read_all, stream_of};
use regatta_model::Digest;
use regatta_wire::reapi;
use regatta_wire::reapi::compressor::Value as Compressor;
use regatta_wire::reapi::content_addressable_storage_server::ContentAddressableStorage;
use tonic::{Request, Response, Status, Streaming};

use super::directories::{DirectoryError, read_directory, references};
use super::find_missing;
use super::input_trees::MAX_DIRECTORIES;
use crate::status::{self, Failure};

/// What gRPC peers accept as one message if nobody told them otherwise, in bytes.
const MAX_MESSAGE_SIZE_BYTES: usize = 4 << 20;
/// The blobs of one batch together, in bytes: a message less what its other fields may take.
pub(crate) const MAX_BATCH_TOTAL_SIZE_BYTES: u64 = (4 << 20) - (256 << 10);
/// What one blob of a batch costs besides its bytes, digest and status included.
const OVERHEAD_PER_BLOB_BYTES: u64 = 128;
/// How many blobs of one batch are read or written at once.
const CONCURRENT_BLOBS: usize = 16;
/// How much of a tree is sent in one message, in bytes; a single larger directory goes alone.
const TREE_PAGE_BYTES: usize = 1 << 20;

/// Serves small blobs, batches and trees out of a store.
#[derive(Debug, Clone)]
pub(crate) struct ContentAddressableStorageService {
    blobs: Arc<dyn BlobStore>,
}

impl ContentAddressableStorageService {
    /// Serves `blobs` to every tenant alike: who knows a blob's digest may read it.
    pub(crate) fn new(blobs: Arc<dyn BlobStore>) -> Self {
        Self { blobs }
    }

    async fn store_one(
        &self,
        request: reapi::batch_update_blobs_request::Request,
    ) -> reapi::batch_update_blobs_response::Response {
        let digest = request.digest.clone();
        let status = match self.try_store(request).await {
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
        request: reapi::batch_update_blobs_request::Request,
    ) -> Result<(), Failure> {
        let digest = status::digest_field(request.digest.as_ref(), "requests.digest")?;
        if request.compressor != i32::from(Compressor::Identity) {
            return Err(status::invalid_argument(
                "requests.compressor",
                "none is supported",
            ));
        }
        let body = stream_of(request.data);
        self.blobs
            .put(&digest, body)
            .await
            .map_err(|error| status::of_write(&error))
    }

    async fn read_one(&self, digest: Digest) -> reapi::batch_read_blobs_response::Response {
        let read = read_all(self.blobs.as_ref(), &digest, MAX_BATCH_TOTAL_SIZE_BYTES).await;
        let (data, status) = match read {
            Ok(data) => (data, status::ok()),
            Err(error) => (Bytes::new(), status::of_read(&error).into()),
        };
        reapi::batch_read_blobs_response::Response {
            digest: Some(digest.into()),
            data,
            status: Some(status),
            ..Default::default()
        }
    }
}

/// Reads every digest of a request's list.
fn digests_of(messages: &[reapi::Digest], field: &str) -> Result<Vec<Digest>, Failure> {
    let parse = |(index, message)| {
        Digest::try_from(message)
            .map_err(|error| status::invalid_digest(&format!("{field}[{index}]"), &error))
    };
    messages.iter().enumerate().map(parse).collect()
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
        let mut digests = digests_of(&request.blob_digests, "blob_digests")?;
        let mut seen = HashSet::with_capacity(digests.len());
        digests.retain(|digest| seen.insert(*digest));
        let missing = find_missing(self.blobs.as_ref(), &digests)
            .await
            .map_err(|error| status::of_read(&error))?;
        let missing_blob_digests = missing.into_iter().map(reapi::Digest::from).collect();
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
        let responses = stream::iter(request.requests)
            .map(|blob| self.store_one(blob))
            .buffered(CONCURRENT_BLOBS)
            .collect()
            .await;
        Ok(Response::new(reapi::BatchUpdateBlobsResponse { responses }))
    }

    async fn batch_read_blobs(
        &self,
        request: Request<reapi::BatchReadBlobsRequest>,
    ) -> Result<Response<reapi::BatchReadBlobsResponse>, Status> {
        let request = request.into_inner();
        status::sha256_only(request.digest_function)?;
        let digests = digests_of(&request.digests, "digests")?;
        check_batch_size(digests.iter().map(Digest::size_bytes), "digests")?;
        let responses = stream::iter(digests)
            .map(|digest| self.read_one(digest))
            .buffered(CONCURRENT_BLOBS)
            .collect()
            .await;
        Ok(Response::new(reapi::BatchReadBlobsResponse { responses }))
    }

    type GetTreeStream = TreeStream;

    async fn get_tree(
        &self,
        request: Request<reapi::GetTreeRequest>,
    ) -> Result<Response<TreeStream>, Status> {
        let request = request.into_inner();
        status::sha256_only(request.digest_function)?;
        let root = status::digest_field(request.root_digest.as_ref(), "root_digest")?;
        let page_size = page_size_of(request.page_size)?;
        let skip = skip_of(&request.page_token)?;
        let directory = read_directory(self.blobs.as_ref(), &root)
            .await
            .map_err(of_directory)?;
        let mut walk = TreeWalk::new(Arc::clone(&self.blobs), root, directory, page_size);
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
        _: Request<reapi::SplitBlobRequest>,
    ) -> Result<Response<reapi::SplitBlobResponse>, Status> {
        Err(status::unimplemented("blobs are not split; see the capabilities").into())
    }

    async fn splice_blob(
        &self,
        _: Request<reapi::SpliceBlobRequest>,
    ) -> Result<Response<reapi::SpliceBlobResponse>, Status> {
        Err(status::unimplemented("blobs are not spliced; see the capabilities").into())
    }

    type GetChunkMappingStream = ChunkStream;

    async fn get_chunk_mapping(
        &self,
        _: Request<reapi::GetChunkMappingRequest>,
    ) -> Result<Response<ChunkStream>, Status> {
        Err(status::unimplemented("blobs are not split; see the capabilities").into())
    }

    async fn register_chunk_mapping(
        &self,
        _: Request<Streaming<reapi::RegisterChunkMappingRequest>>,
    ) -> Result<Response<reapi::RegisterChunkMappingResponse>, Status> {
        Err(status::unimplemented("blobs are not spliced; see the capabilities").into())
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

fn of_directory(error: DirectoryError) -> Failure {
    match &error {
        DirectoryError::Store(error) => status::of_read(error),
        DirectoryError::NotADirectory { .. }
        | DirectoryError::BadName { .. }
        | DirectoryError::BadDigest { .. }
        | DirectoryError::TooLarge { .. } => {
            status::invalid_argument("root_digest", status::with_sources(&error))
        }
    }
}

/// A walk through a tree, breadth first, each directory once.
struct TreeWalk {
    blobs: Arc<dyn BlobStore>,
    /// The next directory, read ahead so that the last page is known to be the last.
    next: Option<reapi::Directory>,
    queue: std::collections::VecDeque<Digest>,
    seen: HashSet<Digest>,
    page_size: usize,
    sent: usize,
}

impl TreeWalk {
    fn new(
        blobs: Arc<dyn BlobStore>,
        root: Digest,
        directory: reapi::Directory,
        page_size: usize,
    ) -> Self {
        let mut walk = Self {
            blobs,
            next: None,
            queue: std::collections::VecDeque::new(),
            seen: HashSet::from([root]),
            page_size,
            sent: 0,
        };
        // A malformed root is sent as it is: whoever asks for it can see what is wrong.
        walk.queue_children(&root, &directory);
        walk.next = Some(directory);
        walk
    }

    async fn skip(&mut self, count: usize) -> Result<(), Failure> {
        while self.sent < count {
            if self.take().await?.is_none() {
                return Err(status::invalid_argument(
                    "page_token",
                    "is beyond the tree's end",
                ));
            }
        }
        Ok(())
    }

    async fn page(&mut self) -> Result<reapi::GetTreeResponse, Failure> {
        let (mut directories, mut size) = (Vec::new(), 0);
        while directories.len() < self.page_size && size < TREE_PAGE_BYTES {
            let Some(directory) = self.take().await? else {
                break;
            };
            size += directory.encoded_len();
            directories.push(directory);
        }
        let next_page_token = match self.next {
            Some(_) => self.sent.to_string(),
            None => String::new(),
        };
        Ok(reapi::GetTreeResponse {
            directories,
            next_page_token,
        })
    }

    async fn take(&mut self) -> Result<Option<reapi::Directory>, Failure> {
        let Some(directory) = self.next.take() else {
            return Ok(None);
        };
        self.sent += 1;
        while self.next.is_none() {
            let Some(digest) = self.queue.pop_front() else {
                break;
            };
            self.next = self.read(&digest).await?;
        }
        Ok(Some(directory))
    }

    /// A directory; `None` if it is missing, which is no error (REAPI, `GetTree`).
    async fn read(&mut self, digest: &Digest) -> Result<Option<reapi::Directory>, Failure> {
        match read_directory(self.blobs.as_ref(), digest).await {
            Ok(directory) => {
                self.queue_children(digest, &directory);
                self.check_size()?;
                Ok(Some(directory))
            }
            Err(DirectoryError::Store(StoreError::NotFound { .. })) => Ok(None),
            Err(error) => Err(of_directory(error)),
        }
    }

    fn queue_children(&mut self, digest: &Digest, directory: &reapi::Directory) {
        let children = references(digest, directory)
            .unwrap_or_default()
            .directories;
        let new: Vec<_> = children
            .into_iter()
            .filter(|child| self.seen.insert(*child))
            .collect();
        self.queue.extend(new);
    }

    fn check_size(&self) -> Result<(), Failure> {
        if self.seen.len() > MAX_DIRECTORIES {
            let limit = MAX_DIRECTORIES;
            let description = format!("the tree has more than {limit} directories");
            return Err(status::invalid_argument("root_digest", description));
        }
        Ok(())
    }
}
