//! The blobs of another process.

mod batches;
mod chunked;
mod coalescer;
mod reading;
mod retry;
mod status;
mod writing;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use regatta_model::Digest;
use regatta_wire::bytestream::byte_stream_client::ByteStreamClient;
use regatta_wire::reapi::capabilities_client::CapabilitiesClient;
use regatta_wire::reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use regatta_wire::reapi::{self, digest_function};
use tonic::transport::{Channel, Endpoint};

use self::chunked::Chunking;
use self::coalescer::Coalescer;
use self::retry::with_retries;
use crate::whole_blob::{Collected, collect_up_to, is_whole};
use crate::{BlobChunks, BlobRange, BlobStore, BlobStream, StoreError, stream_of};

/// Blobs smaller than this travel in batches, in bytes.
const BATCHED_BELOW_BYTES: u64 = 1 << 20;
/// How many digests one presence request asks for: about 2 MiB of message, below the 4 MiB that servers
/// accept by default.
const FIND_CHUNK: usize = 20_000;
/// How many presence requests are under way at a time.
const FIND_CONCURRENCY: usize = 4;
/// The largest message that is accepted, in bytes: a batch and what is around it.
const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// The largest HTTP/2 frame that is taken, in bytes: each costs a call of the system on both sides, and the
/// 16 KiB that are usual make that most of the cost.
const FRAME_BYTES: u32 = 256 << 10;
/// How much of a stream, and of a connection, may be on its way unread, in bytes.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// Connections to `endpoint` fit for large blobs.
#[must_use]
pub fn for_blobs(endpoint: Endpoint) -> Endpoint {
    endpoint
        .tcp_nodelay(true)
        .max_frame_size(FRAME_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
}

/// The content-addressable storage of a REAPI server (REAPI, `ContentAddressableStorage`; ByteStream).
///
/// Small blobs that are put or got at the same time share requests; an idle store sends at once. Large ones
/// stream, and go on where they were when a connection breaks; of still larger ones, only the chunks travel that
/// the server lacks, if it offers to put chunks together. Requests that fail for a passing reason are
/// repeated a bounded number of times.
///
/// What is sent is verified before the server is told that it is complete. REAPI has no way to delete a
/// blob, so [`BlobStore::delete`] is refused.
#[derive(Clone)]
pub struct GrpcBlobStore {
    remote: Remote,
    puts: Arc<Coalescer<Bytes, ()>>,
    gets: Arc<Coalescer<(), Bytes>>,
    chunking: Arc<Chunking>,
}

/// The services of the server and how to name things to it.
#[derive(Clone)]
struct Remote {
    storage: ContentAddressableStorageClient<Channel>,
    bytes: ByteStreamClient<Channel>,
    capabilities: CapabilitiesClient<Channel>,
    instance_name: Arc<str>,
}

impl GrpcBlobStore {
    /// The blobs of the instance `instance_name` of the server at `channel`. Must be called in a tokio
    /// runtime, which then runs the batches until the last clone is dropped.
    #[must_use]
    pub fn new(channel: Channel, instance_name: impl Into<String>) -> Self {
        let remote = Remote {
            storage: ContentAddressableStorageClient::new(channel.clone())
                .max_decoding_message_size(MAX_MESSAGE_BYTES),
            bytes: ByteStreamClient::new(channel.clone())
                .max_decoding_message_size(MAX_MESSAGE_BYTES),
            capabilities: CapabilitiesClient::new(channel),
            instance_name: instance_name.into().into(),
        };
        let (putting, getting) = (remote.clone(), remote.clone());
        let puts = Coalescer::new(move |batch| batches::update(putting.clone(), batch));
        let gets = Coalescer::new(move |batch| batches::read(getting.clone(), batch));
        Self {
            remote,
            puts: Arc::new(puts),
            gets: Arc::new(gets),
            chunking: Arc::new(Chunking::new()),
        }
    }

    async fn put_small(&self, digest: &Digest, body: BlobStream) -> Result<(), StoreError> {
        let limit_bytes = digest.size_bytes();
        let bytes = match collect_up_to(body, limit_bytes).await? {
            Collected::Whole(bytes) => bytes,
            Collected::TooLarge { read, .. } => read.concat().into(),
        };
        let actual = Digest::of(&bytes);
        if actual != *digest {
            return Err(StoreError::Corrupt {
                expected: *digest,
                actual,
            });
        }
        self.puts.run(*digest, bytes).await
    }
}

impl Remote {
    fn read_name(&self, digest: &Digest) -> String {
        format!("{}blobs/{digest}", self.name_prefix())
    }

    fn write_name(&self, digest: &Digest, upload_id: uuid::Uuid) -> String {
        format!("{}uploads/{upload_id}/blobs/{digest}", self.name_prefix())
    }

    fn name_prefix(&self) -> String {
        match self.instance_name.as_ref() {
            "" => String::new(),
            name => format!("{name}/"),
        }
    }

    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        let request = reapi::FindMissingBlobsRequest {
            instance_name: self.instance_name.to_string(),
            blob_digests: digests.iter().map(Into::into).collect(),
            digest_function: digest_function::Value::Sha256.into(),
        };
        let answer = with_retries(|| {
            let (mut storage, request) = (self.storage.clone(), request.clone());
            async move { storage.find_missing_blobs(request).await }
        });
        let missing = answer
            .await
            .map_err(|status| status::store_error(None, &status))?;
        let missing = missing.into_inner().missing_blob_digests;
        let missing: Result<std::collections::HashSet<Digest>, _> =
            missing.into_iter().map(Digest::try_from).collect();
        let missing = missing.map_err(|error| StoreError::Unavailable {
            detail: format!("the server answered with a bad digest: {error}"),
        })?;
        // The order of the answer is the server's; the port promises that of the question.
        Ok(digests
            .iter()
            .filter(|digest| missing.contains(digest))
            .copied()
            .collect())
    }
}

impl fmt::Debug for GrpcBlobStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("GrpcBlobStore")
            .field("instance_name", &self.remote.instance_name)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl BlobStore for GrpcBlobStore {
    async fn get(&self, digest: &Digest, range: BlobRange) -> Result<BlobStream, StoreError> {
        let size_bytes = digest.size_bytes();
        if size_bytes < BATCHED_BELOW_BYTES && is_whole(size_bytes, range) {
            return self.gets.run(*digest, ()).await.map(stream_of);
        }
        reading::read(&self.remote, digest, range).await
    }

    async fn put(&self, digest: &Digest, body: BlobStream) -> Result<(), StoreError> {
        if digest.size_bytes() < BATCHED_BELOW_BYTES {
            return self.put_small(digest, body).await;
        }
        match self.chunking.params_for(&self.remote, digest).await {
            Some(params) => chunked::put(self, params, digest, body).await,
            None => writing::write(&self.remote, digest, body).await,
        }
    }

    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        let chunks: Vec<Vec<Digest>> = digests.chunks(FIND_CHUNK).map(<[_]>::to_vec).collect();
        let missing: Vec<Vec<Digest>> = stream::iter(chunks)
            .map(|chunk| async move { self.remote.find_missing(&chunk).await })
            .buffered(FIND_CONCURRENCY)
            .try_collect()
            .await?;
        Ok(missing.concat())
    }

    async fn delete(&self, _digest: &Digest) -> Result<(), StoreError> {
        let detail = "a REAPI server deletes no blob on request".to_owned();
        Err(StoreError::Unavailable { detail })
    }
}

#[async_trait]
impl BlobChunks for GrpcBlobStore {
    async fn chunks_of(&self, digest: &Digest) -> Result<Option<Vec<Digest>>, StoreError> {
        self.chunking.chunks_of(&self.remote, digest).await
    }
}

#[cfg(test)]
mod test_server;
#[cfg(test)]
mod tests;
