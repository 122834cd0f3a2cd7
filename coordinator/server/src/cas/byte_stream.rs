//! `google.bytestream.ByteStream`: blobs of any size.

use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt as _};
use regatta_cas::{BlobRange, BlobStore, StoreError, stream_of};
use regatta_model::Digest;
use regatta_wire::bytestream;
use regatta_wire::bytestream::byte_stream_server::ByteStream;
use regatta_wire::resource_name::{
    Compressor, ParseResourceNameError, ReadResource, WriteResource,
};
use tonic::{Request, Response, Status, Streaming};

use super::uploads::{UploadError, UploadRegistry, UploadWriter};
use crate::status::{self, Failure};

const RESOURCE_NAME: &str = "resource_name";

/// Streams blobs into and out of a store.
#[derive(Debug, Clone)]
pub(crate) struct ByteStreamService {
    blobs: Arc<dyn BlobStore>,
    uploads: Arc<UploadRegistry>,
}

impl ByteStreamService {
    /// Serves `blobs`; what has arrived of uploads is kept in `uploads`.
    pub(crate) fn new(blobs: Arc<dyn BlobStore>, uploads: Arc<UploadRegistry>) -> Self {
        Self { blobs, uploads }
    }

    async fn is_present(&self, digest: &Digest) -> Result<bool, Failure> {
        let missing = self.blobs.find_missing(std::slice::from_ref(digest)).await;
        Ok(missing.map_err(|error| status::of_read(&error))?.is_empty())
    }

    /// Stores a blob that came in one message, which needs no place to wait for its rest.
    async fn store_at_once(
        &self,
        digest: &Digest,
        message: bytestream::WriteRequest,
    ) -> Result<u64, Failure> {
        let body = stream_of(message.data);
        self.blobs
            .put(digest, body)
            .await
            .map_err(|error| status::of_write(&error))?;
        Ok(digest.size_bytes())
    }

    /// Takes an upload's messages, the first one given, and stores the blob once it is whole. Says how
    /// much of it has arrived.
    async fn receive(
        &self,
        resource: &WriteResource,
        first: bytestream::WriteRequest,
        mut rest: Streaming<bytestream::WriteRequest>,
    ) -> Result<u64, Status> {
        let name = first.resource_name.clone();
        let offset = offset_of(first.write_offset, "write_offset")?;
        let mut writer = self.uploads.open(&name, offset).await.map_err(of_upload)?;
        let mut message = first;
        loop {
            let finish = message.finish_write;
            if let Err(refusal) = check_message(&message, &name, &writer, resource.digest()) {
                if refusal.is_final {
                    writer.discard();
                }
                return Err(refusal.failure.into());
            }
            writer.append(message.data).await.map_err(of_upload)?;
            if finish {
                return Ok(self.store(resource.digest(), writer).await?);
            }
            let next = tokio::select! {
                () = writer.replaced() => return Err(of_upload(UploadError::Replaced).into()),
                next = tokio::time::timeout(self.uploads.idle_timeout(), rest.message()) => next,
            };
            match next.map_err(|_| status::aborted("the upload was silent for too long"))?? {
                Some(next) => message = next,
                None => return Ok(writer.committed()),
            }
        }
    }

    async fn store(&self, digest: Digest, writer: UploadWriter) -> Result<u64, Failure> {
        let committed = writer.committed();
        if committed != digest.size_bytes() {
            writer.discard();
            let description = format!("{committed} bytes were sent for blob {digest}");
            return Err(status::invalid_argument("finish_write", description));
        }
        let body = writer.body().map_err(of_upload)?;
        match self.blobs.put(&digest, body).await {
            Ok(()) => {
                writer.discard();
                Ok(committed)
            }
            Err(error) => {
                // Other bytes will not come to be right; with any other error, trying again may help.
                if matches!(error, StoreError::Corrupt { .. }) {
                    writer.discard();
                }
                Err(status::of_write(&error))
            }
        }
    }
}

/// A message that cannot be taken.
struct Refusal {
    failure: Failure,
    /// Nothing that follows can make the upload good.
    is_final: bool,
}

fn check_message(
    message: &bytestream::WriteRequest,
    name: &str,
    writer: &UploadWriter,
    digest: Digest,
) -> Result<(), Refusal> {
    let refuse = |failure| Refusal {
        failure,
        is_final: false,
    };
    if !message.resource_name.is_empty() && message.resource_name != name {
        let description = "must stay the same throughout an upload";
        return Err(refuse(status::invalid_argument(RESOURCE_NAME, description)));
    }
    let committed = writer.committed();
    let offset = offset_of(message.write_offset, "write_offset").map_err(refuse)?;
    if offset != committed {
        return Err(refuse(of_upload(UploadError::WrongOffset {
            offset,
            committed,
        })));
    }
    let end = committed + message.data.len() as u64;
    if end > digest.size_bytes() {
        let description = format!("byte {end} was sent for blob {digest}");
        return Err(Refusal {
            failure: status::invalid_argument("data", description),
            is_final: true,
        });
    }
    Ok(())
}

fn offset_of(offset: i64, field: &'static str) -> Result<u64, Failure> {
    u64::try_from(offset).map_err(|_| status::invalid_argument(field, "must not be negative"))
}

fn of_upload(error: UploadError) -> Failure {
    match &error {
        UploadError::WrongOffset { .. } => status::invalid_argument("write_offset", error),
        UploadError::Replaced => status::aborted(error.to_string()),
        UploadError::TooMany { .. } | UploadError::DiskFull { .. } => {
            status::resource_exhausted(error.to_string(), status::DEFAULT_RETRY_DELAY)
        }
        UploadError::Disk { .. } => {
            status::unavailable(status::with_sources(&error), status::DEFAULT_RETRY_DELAY)
        }
    }
}

fn check_compressor(compressor: Compressor) -> Result<(), Failure> {
    match compressor {
        Compressor::Identity => Ok(()),
        Compressor::Zstd | Compressor::Deflate | Compressor::Brotli => {
            let description = "compressed blobs are not supported; see the capabilities";
            Err(status::invalid_argument(RESOURCE_NAME, description))
        }
    }
}

fn of_name(error: ParseResourceNameError) -> Failure {
    status::invalid_argument(RESOURCE_NAME, status::with_sources(&error))
}

fn write_resource(name: &str) -> Result<WriteResource, Failure> {
    let resource: WriteResource = name.parse().map_err(of_name)?;
    check_compressor(resource.compressor())?;
    Ok(resource)
}

fn is_whole(message: &bytestream::WriteRequest, digest: &Digest) -> bool {
    message.finish_write
        && message.write_offset == 0
        && message.data.len() as u64 == digest.size_bytes()
}

/// A blob's size as the protocol counts it.
fn to_wire_size(size_bytes: u64) -> i64 {
    i64::try_from(size_bytes).unwrap_or(i64::MAX)
}

type ReadStream = Pin<Box<dyn Stream<Item = Result<bytestream::ReadResponse, Status>> + Send>>;

#[tonic::async_trait]
impl ByteStream for ByteStreamService {
    type ReadStream = ReadStream;

    async fn read(
        &self,
        request: Request<bytestream::ReadRequest>,
    ) -> Result<Response<ReadStream>, Status> {
        let request = request.into_inner();
        let resource: ReadResource = request.resource_name.parse().map_err(of_name)?;
        check_compressor(resource.compressor())?;
        let offset = u64::try_from(request.read_offset)
            .map_err(|_| status::out_of_range("read_offset must not be negative"))?;
        let length = match offset_of(request.read_limit, "read_limit")? {
            0 => None,
            limit => Some(limit),
        };
        let body = self
            .blobs
            .get(&resource.digest(), BlobRange { offset, length })
            .await
            .map_err(|error| status::of_read(&error))?;
        let responses = body.map(|piece| match piece {
            Ok(data) => Ok(bytestream::ReadResponse { data }),
            Err(error) => Err(status::of_read(&error).into()),
        });
        Ok(Response::new(responses.boxed()))
    }

    async fn write(
        &self,
        request: Request<Streaming<bytestream::WriteRequest>>,
    ) -> Result<Response<bytestream::WriteResponse>, Status> {
        let mut messages = request.into_inner();
        let nothing = || status::invalid_argument(RESOURCE_NAME, "is not set");
        let first = messages.message().await?.ok_or_else(nothing)?;
        let resource = write_resource(&first.resource_name)?;
        let digest = resource.digest();
        let committed = if self.is_present(&digest).await? {
            digest.size_bytes()
        } else if is_whole(&first, &digest) {
            self.store_at_once(&digest, first).await?
        } else {
            self.receive(&resource, first, messages).await?
        };
        let committed_size = to_wire_size(committed);
        Ok(Response::new(bytestream::WriteResponse { committed_size }))
    }

    async fn query_write_status(
        &self,
        request: Request<bytestream::QueryWriteStatusRequest>,
    ) -> Result<Response<bytestream::QueryWriteStatusResponse>, Status> {
        let name = request.into_inner().resource_name;
        let digest = write_resource(&name)?.digest();
        let complete = self.is_present(&digest).await?;
        let committed = if complete {
            digest.size_bytes()
        } else {
            self.uploads.committed(&name)
        };
        let committed_size = to_wire_size(committed);
        Ok(Response::new(bytestream::QueryWriteStatusResponse {
            committed_size,
            complete,
        }))
    }
}
