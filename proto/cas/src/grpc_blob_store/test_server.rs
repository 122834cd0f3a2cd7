//! A REAPI server in this process, as small as the tests allow, with faults on demand.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use regatta_wire::bytestream::byte_stream_server::{ByteStream, ByteStreamServer};
use regatta_wire::bytestream::*;
use regatta_wire::reapi::capabilities_server::{Capabilities, CapabilitiesServer};
use regatta_wire::reapi::content_addressable_storage_server::{
    ContentAddressableStorage, ContentAddressableStorageServer,
};
use regatta_wire::reapi::*;
use regatta_wire::rpc;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Response, Status, Streaming};

use crate::{BlobRange, BlobStore, MemoryBlobStore, StoreError, VerifyingBlobStore};

type Answer<T> = Result<Response<T>, Status>;
type Id = regatta_model::Digest;

/// The server's state, which tests look at and turn faults on in.
#[derive(Debug)]
pub(super) struct TestServer {
    pub(super) blobs: VerifyingBlobStore,
    writes: Mutex<HashMap<String, Vec<u8>>>,
    /// How many calls are still to fail.
    pub(super) failures: AtomicUsize,
    /// How often each blob of a batch is still to fail by itself.
    pub(super) blob_failures: Mutex<HashMap<Id, usize>>,
    /// How many blobs came in batches, whatever became of them.
    pub(super) blobs_in_batches: AtomicUsize,
    /// Whether calls are taken and never answered.
    pub(super) silent: AtomicBool,
    /// How many calls were made.
    pub(super) calls: AtomicUsize,
    /// How blobs are to be cut, if chunks are taken.
    pub(super) cutting: Mutex<Option<FastCdc2020Params>>,
    /// What chunks are answered instead of being put together.
    pub(super) splice_failure: Mutex<Option<Code>>,
    /// How often chunks were to be put together.
    pub(super) splices: AtomicUsize,
    /// How many bytes of blobs came.
    pub(super) received_bytes: AtomicUsize,
}

/// Starts a server on a free port; it stops with the runtime.
pub(super) async fn start() -> (Arc<TestServer>, Channel) {
    let server = Arc::new(TestServer {
        blobs: VerifyingBlobStore::new(Arc::new(MemoryBlobStore::new())),
        writes: Mutex::default(),
        failures: AtomicUsize::new(0),
        blob_failures: Mutex::default(),
        blobs_in_batches: AtomicUsize::new(0),
        silent: AtomicBool::new(false),
        calls: AtomicUsize::new(0),
        cutting: Mutex::default(),
        splice_failure: Mutex::default(),
        splices: AtomicUsize::new(0),
        received_bytes: AtomicUsize::new(0),
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = Server::builder()
        .add_service(ContentAddressableStorageServer::new(Service(Arc::clone(
            &server,
        ))))
        .add_service(ByteStreamServer::new(Service(Arc::clone(&server))))
        .add_service(CapabilitiesServer::new(Service(Arc::clone(&server))))
        .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener));
    tokio::spawn(serving);
    let channel = Endpoint::from_shared(format!("http://{address}"))
        .unwrap()
        .connect_lazy();
    (server, channel)
}

struct Service(Arc<TestServer>);

impl TestServer {
    async fn begin(&self) -> Result<(), Status> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        if self.silent.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        match self.takes_fault() {
            true => Err(Status::unavailable("a fault")),
            false => Ok(()),
        }
    }

    /// Whether a blob of a batch is to be treated well.
    fn begin_blob(&self, id: &Id) -> Result<(), StoreError> {
        self.blobs_in_batches.fetch_add(1, Ordering::SeqCst);
        match self.blob_failures.lock().unwrap().get_mut(id) {
            Some(left) if *left > 0 => {
                *left -= 1;
                Err(StoreError::Unavailable {
                    detail: "a fault of one blob".to_owned(),
                })
            }
            _ => Ok(()),
        }
    }

    fn receive(&self, length_bytes: usize) {
        self.received_bytes
            .fetch_add(length_bytes, Ordering::SeqCst);
    }

    fn takes_fault(&self) -> bool {
        let less = |failures: usize| failures.checked_sub(1);
        self.failures
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less)
            .is_ok()
    }
}

fn status(error: &StoreError) -> Status {
    let code = match error {
        StoreError::NotFound { .. } => Code::NotFound,
        StoreError::OutOfRange { .. } => Code::OutOfRange,
        StoreError::Corrupt { .. } | StoreError::Undecodable { .. } => Code::InvalidArgument,
        StoreError::Full { .. } | StoreError::Exhausted { .. } => Code::ResourceExhausted,
        StoreError::Away { .. } | StoreError::Unavailable { .. } => Code::Unavailable,
    };
    Status::new(code, error.to_string())
}

fn rpc_status(result: Result<(), StoreError>) -> Option<rpc::Status> {
    let status = result.map_or_else(|error| status(&error), |()| Status::ok(""));
    Some(rpc::Status {
        code: status.code().into(),
        message: status.message().to_owned(),
        details: Vec::new(),
    })
}

fn id_of(digest: Option<Digest>) -> Result<Id, Status> {
    let digest = digest.ok_or_else(|| Status::invalid_argument("no digest"))?;
    Id::try_from(digest).map_err(|error| Status::invalid_argument(error.to_string()))
}

/// The digest at the end of a resource name.
fn id_in(name: &str) -> Result<Id, Status> {
    let (_, digest) = name
        .split_once("blobs/")
        .ok_or_else(|| Status::invalid_argument(name))?;
    digest.parse().map_err(|_| Status::invalid_argument(name))
}

#[tonic::async_trait]
impl ContentAddressableStorage for Service {
    async fn find_missing_blobs(
        &self,
        request: Request<FindMissingBlobsRequest>,
    ) -> Answer<FindMissingBlobsResponse> {
        self.0.begin().await?;
        let digests = request.into_inner().blob_digests.into_iter();
        let digests: Vec<Id> = digests
            .map(|digest| id_of(Some(digest)))
            .collect::<Result<_, _>>()?;
        let missing = self
            .0
            .blobs
            .find_missing(&digests)
            .await
            .map_err(|error| status(&error))?;
        // Backwards, to see that the client restores the order.
        let missing_blob_digests = missing.iter().rev().map(Into::into).collect();
        Ok(Response::new(FindMissingBlobsResponse {
            missing_blob_digests,
        }))
    }

    async fn batch_update_blobs(
        &self,
        request: Request<BatchUpdateBlobsRequest>,
    ) -> Answer<BatchUpdateBlobsResponse> {
        self.0.begin().await?;
        let mut responses = Vec::new();
        for request in request.into_inner().requests {
            let id = id_of(request.digest)?;
            self.0.receive(request.data.len());
            let put = match self.0.begin_blob(&id) {
                Ok(()) => self.0.blobs.put(&id, crate::stream_of(request.data)).await,
                Err(fault) => Err(fault),
            };
            responses.push(batch_update_blobs_response::Response {
                digest: Some(id.into()),
                status: rpc_status(put),
            });
        }
        Ok(Response::new(BatchUpdateBlobsResponse { responses }))
    }

    async fn batch_read_blobs(
        &self,
        request: Request<BatchReadBlobsRequest>,
    ) -> Answer<BatchReadBlobsResponse> {
        self.0.begin().await?;
        let mut responses = Vec::new();
        for digest in request.into_inner().digests {
            let id = id_of(Some(digest))?;
            let read = match self.0.begin_blob(&id) {
                Ok(()) => crate::read_all(&self.0.blobs, &id, u64::MAX).await,
                Err(fault) => Err(fault),
            };
            responses.push(batch_read_blobs_response::Response {
                digest: Some(id.into()),
                status: rpc_status(read.as_ref().map(drop).map_err(Clone::clone)),
                data: read.unwrap_or_default(),
                ..Default::default()
            });
        }
        Ok(Response::new(BatchReadBlobsResponse { responses }))
    }

    type GetTreeStream = BoxStream<'static, Result<GetTreeResponse, Status>>;

    async fn get_tree(&self, _: Request<GetTreeRequest>) -> Answer<Self::GetTreeStream> {
        Err(Status::unimplemented("not in tests"))
    }

    async fn split_blob(&self, _: Request<SplitBlobRequest>) -> Answer<SplitBlobResponse> {
        Err(Status::unimplemented("not in tests"))
    }

    async fn splice_blob(&self, request: Request<SpliceBlobRequest>) -> Answer<SpliceBlobResponse> {
        self.0.begin().await?;
        self.0.splices.fetch_add(1, Ordering::SeqCst);
        if let Some(code) = *self.0.splice_failure.lock().unwrap() {
            return Err(Status::new(code, "a fault of splices"));
        }
        let request = request.into_inner();
        let id = id_of(request.blob_digest)?;
        let mut whole = Vec::new();
        for chunk in request.chunk_digests {
            let chunk = id_of(Some(chunk))?;
            let read = crate::read_all(&self.0.blobs, &chunk, u64::MAX).await;
            whole.extend_from_slice(&read.map_err(|error| status(&error))?);
        }
        let put = self.0.blobs.put(&id, crate::stream_of(whole.into())).await;
        put.map_err(|error| status(&error))?;
        Ok(Response::new(SpliceBlobResponse {
            blob_digest: Some(id.into()),
        }))
    }

    type GetChunkMappingStream = BoxStream<'static, Result<GetChunkMappingResponse, Status>>;

    async fn get_chunk_mapping(
        &self,
        _: Request<GetChunkMappingRequest>,
    ) -> Answer<Self::GetChunkMappingStream> {
        Err(Status::unimplemented("not in tests"))
    }

    async fn register_chunk_mapping(
        &self,
        _: Request<Streaming<RegisterChunkMappingRequest>>,
    ) -> Answer<RegisterChunkMappingResponse> {
        Err(Status::unimplemented("not in tests"))
    }
}

#[tonic::async_trait]
impl Capabilities for Service {
    async fn get_capabilities(
        &self,
        _: Request<GetCapabilitiesRequest>,
    ) -> Answer<ServerCapabilities> {
        self.0.begin().await?;
        let cutting = *self.0.cutting.lock().unwrap();
        let cutting = cutting.ok_or_else(|| Status::unimplemented("there are no chunks"))?;
        Ok(Response::new(ServerCapabilities {
            cache_capabilities: Some(CacheCapabilities {
                splice_blob_support: true,
                fast_cdc_2020_params: Some(cutting),
                ..Default::default()
            }),
            ..Default::default()
        }))
    }
}

#[tonic::async_trait]
impl ByteStream for Service {
    type ReadStream = BoxStream<'static, Result<ReadResponse, Status>>;

    async fn read(&self, request: Request<ReadRequest>) -> Answer<Self::ReadStream> {
        self.0.begin().await?;
        let request = request.into_inner();
        let id = id_in(&request.resource_name)?;
        let limit = u64::try_from(request.read_limit).unwrap();
        let range = BlobRange {
            offset: u64::try_from(request.read_offset).unwrap(),
            length: (limit > 0).then_some(limit),
        };
        let body = self
            .0
            .blobs
            .get(&id, range)
            .await
            .map_err(|error| status(&error))?;
        let server = Arc::clone(&self.0);
        let answers = body.map_err(|error| status(&error)).and_then(move |data| {
            let broken = server.takes_fault();
            std::future::ready(match broken {
                true => Err(Status::unavailable("a fault in the middle")),
                false => Ok(ReadResponse { data }),
            })
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn write(&self, request: Request<Streaming<WriteRequest>>) -> Answer<WriteResponse> {
        self.0.begin().await?;
        let mut pieces = request.into_inner();
        let mut name = String::new();
        while let Some(piece) = pieces.try_next().await? {
            if name.is_empty() {
                name = piece.resource_name;
            }
            let mut written = self
                .0
                .writes
                .lock()
                .unwrap()
                .remove(&name)
                .unwrap_or_default();
            if usize::try_from(piece.write_offset) != Ok(written.len()) {
                return Err(Status::invalid_argument("a gap"));
            }
            written.extend_from_slice(&piece.data);
            self.0.receive(piece.data.len());
            if piece.finish_write {
                let committed_size = i64::try_from(written.len()).unwrap();
                let put = self
                    .0
                    .blobs
                    .put(&id_in(&name)?, crate::stream_of(written.into()))
                    .await;
                put.map_err(|error| status(&error))?;
                return Ok(Response::new(WriteResponse { committed_size }));
            }
            self.0.writes.lock().unwrap().insert(name.clone(), written);
            if self.0.takes_fault() {
                return Err(Status::unavailable("a fault in the middle"));
            }
        }
        Err(Status::aborted("no end"))
    }

    async fn query_write_status(
        &self,
        request: Request<QueryWriteStatusRequest>,
    ) -> Answer<QueryWriteStatusResponse> {
        let writes = self.0.writes.lock().unwrap();
        let written = writes.get(&request.into_inner().resource_name);
        let written = written.ok_or_else(|| Status::not_found("no such write"))?;
        let committed_size = i64::try_from(written.len()).unwrap();
        Ok(Response::new(QueryWriteStatusResponse {
            committed_size,
            complete: false,
        }))
    }
}
