//! A CAS over memory, as small as a store of the agent's needs it.

use std::pin::Pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt as _, stream};
use regatta_cas::{BlobRange, BlobStore as _, MemoryBlobStore, put_bytes};
use regatta_model::Digest;
use regatta_wire::bytestream::byte_stream_server::ByteStream;
use regatta_wire::bytestream::{
    QueryWriteStatusRequest, QueryWriteStatusResponse, ReadRequest, ReadResponse, WriteRequest,
    WriteResponse,
};
use regatta_wire::reapi::content_addressable_storage_server::ContentAddressableStorage;
use regatta_wire::reapi::{
    BatchReadBlobsRequest, BatchReadBlobsResponse, BatchUpdateBlobsRequest,
    BatchUpdateBlobsResponse, FindMissingBlobsRequest, FindMissingBlobsResponse,
    GetChunkMappingRequest, GetChunkMappingResponse, GetTreeRequest, GetTreeResponse,
    RegisterChunkMappingRequest, RegisterChunkMappingResponse, SpliceBlobRequest,
    SpliceBlobResponse, SplitBlobRequest, SplitBlobResponse, batch_read_blobs_response,
    batch_update_blobs_response,
};
use regatta_wire::resource_name::{ReadResource, WriteResource};
use regatta_wire::rpc;
use tokio::sync::watch;
use tonic::{Code, Request, Response, Status, Streaming};

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct MemoryCas {
    pub(crate) blobs: Arc<MemoryBlobStore>,
    pub(crate) gate: watch::Sender<Gate>,
}

/// Whether blobs can be read.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    pub(crate) is_closed: bool,
    /// Whether small ones cannot be written, for a reason that does not pass.
    pub(crate) is_broken: bool,
    /// How many reads have met it.
    pub(crate) reads: usize,
}

type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl MemoryCas {
    async fn read(&self, digest: &Digest, offset: u64) -> Result<Bytes, Status> {
        self.gate.send_modify(|gate| gate.reads += 1);
        let mut gate = self.gate.subscribe();
        gate.wait_for(|gate| !gate.is_closed).await.unwrap();
        let range = BlobRange {
            offset,
            length: None,
        };
        let mut body = self.blobs.get(digest, range).await.map_err(not_found)?;
        let mut bytes = BytesMut::new();
        while let Some(piece) = body.next().await {
            bytes.extend_from_slice(&piece.map_err(not_found)?);
        }
        Ok(bytes.freeze())
    }
}

fn not_found(error: regatta_cas::StoreError) -> Status {
    Status::not_found(error.to_string())
}

fn digests(wire: &[regatta_wire::reapi::Digest]) -> Result<Vec<Digest>, Status> {
    let parsed = wire.iter().map(Digest::try_from);
    parsed
        .collect::<Result<_, _>>()
        .map_err(|error| Status::invalid_argument(error.to_string()))
}

#[tonic::async_trait]
impl ContentAddressableStorage for MemoryCas {
    async fn find_missing_blobs(
        &self,
        request: Request<FindMissingBlobsRequest>,
    ) -> Result<Response<FindMissingBlobsResponse>, Status> {
        let asked = digests(&request.into_inner().blob_digests)?;
        let missing = self.blobs.find_missing(&asked).await.map_err(not_found)?;
        let missing_blob_digests = missing.into_iter().map(Into::into).collect();
        Ok(Response::new(FindMissingBlobsResponse {
            missing_blob_digests,
        }))
    }

    async fn batch_update_blobs(
        &self,
        request: Request<BatchUpdateBlobsRequest>,
    ) -> Result<Response<BatchUpdateBlobsResponse>, Status> {
        let code = match self.gate.borrow().is_broken {
            true => Code::NotFound,
            false => Code::Ok,
        };
        let mut responses = Vec::new();
        for blob in request.into_inner().requests {
            put_bytes(&*self.blobs, blob.data)
                .await
                .map_err(not_found)?;
            responses.push(batch_update_blobs_response::Response {
                digest: blob.digest,
                status: Some(rpc::Status {
                    code: code.into(),
                    ..Default::default()
                }),
            });
        }
        Ok(Response::new(BatchUpdateBlobsResponse { responses }))
    }

    async fn batch_read_blobs(
        &self,
        request: Request<BatchReadBlobsRequest>,
    ) -> Result<Response<BatchReadBlobsResponse>, Status> {
        let mut responses = Vec::new();
        for digest in digests(&request.into_inner().digests)? {
            let read = self.read(&digest, 0).await;
            let code = if read.is_ok() {
                0
            } else {
                rpc::Code::NotFound.into()
            };
            responses.push(batch_read_blobs_response::Response {
                digest: Some(digest.into()),
                data: read.unwrap_or_default(),
                status: Some(rpc::Status {
                    code,
                    ..Default::default()
                }),
                ..Default::default()
            });
        }
        Ok(Response::new(BatchReadBlobsResponse { responses }))
    }

    type GetTreeStream = Messages<GetTreeResponse>;

    async fn get_tree(
        &self,
        _: Request<GetTreeRequest>,
    ) -> Result<Response<Self::GetTreeStream>, Status> {
        Err(unasked())
    }

    async fn split_blob(
        &self,
        _: Request<SplitBlobRequest>,
    ) -> Result<Response<SplitBlobResponse>, Status> {
        Err(unasked())
    }

    async fn splice_blob(
        &self,
        _: Request<SpliceBlobRequest>,
    ) -> Result<Response<SpliceBlobResponse>, Status> {
        Err(unasked())
    }

    type GetChunkMappingStream = Messages<GetChunkMappingResponse>;

    async fn get_chunk_mapping(
        &self,
        _: Request<GetChunkMappingRequest>,
    ) -> Result<Response<Self::GetChunkMappingStream>, Status> {
        Err(unasked())
    }

    async fn register_chunk_mapping(
        &self,
        _: Request<Streaming<RegisterChunkMappingRequest>>,
    ) -> Result<Response<RegisterChunkMappingResponse>, Status> {
        Err(unasked())
    }
}

fn unasked() -> Status {
    Status::unimplemented("nobody here asks for it")
}

#[tonic::async_trait]
impl ByteStream for MemoryCas {
    type ReadStream = Messages<ReadResponse>;

    async fn read(
        &self,
        request: Request<ReadRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let request = request.into_inner();
        let resource: ReadResource = request.resource_name.parse().unwrap();
        let offset = u64::try_from(request.read_offset).unwrap();
        let bytes = Self::read(self, &resource.digest(), offset).await?;
        let pieces: Vec<_> = bytes
            .chunks(64 << 10)
            .map(|piece| {
                Ok(ReadResponse {
                    data: Bytes::copy_from_slice(piece),
                })
            })
            .collect();
        Ok(Response::new(stream::iter(pieces).boxed()))
    }

    async fn write(
        &self,
        request: Request<Streaming<WriteRequest>>,
    ) -> Result<Response<WriteResponse>, Status> {
        let mut requests = request.into_inner();
        let mut bytes = BytesMut::new();
        let mut name = String::new();
        while let Some(piece) = requests.message().await? {
            if !piece.resource_name.is_empty() {
                name = piece.resource_name;
            }
            bytes.extend_from_slice(&piece.data);
            if piece.finish_write {
                break;
            }
        }
        let resource: WriteResource = name.parse().unwrap();
        let stored = put_bytes(&*self.blobs, bytes.freeze())
            .await
            .map_err(not_found)?;
        assert_eq!(stored, resource.digest());
        let committed_size = i64::try_from(stored.size_bytes()).unwrap();
        Ok(Response::new(WriteResponse { committed_size }))
    }

    async fn query_write_status(
        &self,
        _: Request<QueryWriteStatusRequest>,
    ) -> Result<Response<QueryWriteStatusResponse>, Status> {
        Err(Status::not_found("nothing is half-written here"))
    }
}
