//! `google.bytestream.ByteStream`: blobs of any size.

use std::sync::Arc;

use futures::stream;
use regatta_cas::{
    BlobRange, BlobStore, BlobStream, StoreError, compressed_body, largest_compressed, stream_of,
};
use regatta_wire::bytestream;
use regatta_wire::bytestream::byte_stream_server::{ByteStream, ByteStreamServer};
use regatta_wire::resource_name::{
    Compressor, ParseResourceNameError, ReadResource, WriteResource,
};
use tonic::{Request, Response, Status, Streaming};

use super::TenantViews;
use super::compression::CompressedBlobs;
use super::uncopied_reads::{ReadBytes, UncopiedReads};
use super::uploads::{UploadError, UploadRegistry, UploadWriter};
use crate::retention::Retention;
use crate::status::{self, Failure};

const RESOURCE_NAME: &str = "resource_name";

/// Streams blobs into and out of a store. See [`ByteStreamService::into_server`].
#[derive(Debug, Clone)]
pub(crate) struct ByteStreamService {
    blobs: TenantViews<dyn BlobStore>,
    room: Arc<Retention>,
    compressed: CompressedBlobs,
    uploads: Arc<UploadRegistry>,
}

impl ByteStreamService {
    /// Serves `blobs`; what has arrived of uploads is kept in `uploads`.
    pub(crate) fn new(
        blobs: TenantViews<dyn BlobStore>,
        room: Arc<Retention>,
        compressed: CompressedBlobs,
        uploads: Arc<UploadRegistry>,
    ) -> Self {
        Self {
            blobs,
            room,
            compressed,
            uploads,
        }
    }

    /// The service as it is served, taking messages of at most `limit_bytes`: what it reads goes past tonic.
    pub(crate) fn into_server(self, limit_bytes: usize) -> UncopiedReads {
        UncopiedReads::new(ByteStreamServer::new(self).max_decoding_message_size(limit_bytes))
    }

    async fn is_present(&self, resource: &WriteResource) -> Result<bool, Failure> {
        let blobs = self.blobs.of(resource.instance());
        let missing = blobs.find_missing(&[resource.digest()]).await;
        Ok(missing.map_err(|error| status::of_read(&error))?.is_empty())
    }

    /// Stores a blob that came in one message, which needs no place to wait for its rest. Says how many
    /// bytes came.
    async fn store_at_once(
        &self,
        resource: &WriteResource,
        message: bytestream::WriteRequest,
    ) -> Result<u64, Failure> {
        let committed = message.data.len() as u64;
        self.put(resource, stream_of(message.data))
            .await
            .map_err(|error| status::of_write(&error))?;
        Ok(committed)
    }

    async fn put(&self, resource: &WriteResource, body: BlobStream) -> Result<(), StoreError> {
        let (blobs, digest) = (self.blobs.of(resource.instance()), resource.digest());
        match is_compressed(resource.compressor()) {
            true => self.compressed.put(blobs.as_ref(), &digest, body).await,
            false => blobs.put(&digest, body).await,
        }
    }

    /// Takes an upload's messages, the first one given, and stores the blob once it is whole. Says how
    /// much of it has arrived.
    async fn receive(
        &self,
        resource: &WriteResource,
        first: bytestream::WriteRequest,
        mut rest: Streaming<bytestream::WriteRequest>,
    ) -> Result<u64, Failure> {
        // Before any of it takes up what room there is.
        let room = self.room.check_room();
        room.map_err(|error| status::of_write(&error))?;
        let name = first.resource_name.clone();
        let offset = offset_of(first.write_offset, "write_offset")?;
        let is_hashed = !is_compressed(resource.compressor());
        let writer = self.uploads.open(&name, offset, is_hashed).await;
        let mut writer = writer.map_err(of_upload)?;
        let mut message = first;
        loop {
            let finish = message.finish_write;
            if let Err(refusal) = check_message(&message, &name, &writer, resource) {
                if refusal.is_final {
                    writer.discard();
                }
                return Err(refusal.failure);
            }
            writer.append(message.data).await.map_err(of_upload)?;
            if finish {
                return self.store(resource, writer).await;
            }
            let next = tokio::select! {
                () = writer.replaced() => return Err(of_upload(UploadError::Replaced)),
                next = tokio::time::timeout(self.uploads.idle_timeout(), rest.message()) => next,
            };
            let next = next.map_err(|_| status::aborted("the upload was silent for too long"))?;
            match next.map_err(|status| status::broken_stream(&status))? {
                Some(next) => message = next,
                None => return Ok(writer.committed()),
            }
        }
    }

    async fn store(
        &self,
        resource: &WriteResource,
        mut writer: UploadWriter,
    ) -> Result<u64, Failure> {
        let (committed, digest) = (writer.committed(), resource.digest());
        let is_compressed = is_compressed(resource.compressor());
        if !is_compressed && committed != digest.size_bytes() {
            writer.discard();
            let description = format!("{committed} bytes were sent for blob {digest}");
            return Err(status::invalid_argument("finish_write", description));
        }
        let blob = writer.seal().map_err(of_upload)?;
        let blobs = self.blobs.of(resource.instance());
        let stored = match is_compressed {
            true => {
                let blobs = blobs.as_ref();
                async { self.compressed.put(blobs, &digest, blob.body()?).await }.await
            }
            false => blobs.put_spooled(&digest, &blob).await,
        };
        match stored {
            Ok(()) => {
                writer.discard();
                Ok(committed)
            }
            Err(error) => {
                // Other bytes will not come to be right; with any other error, trying again may help.
                match is_senders_fault(&error) {
                    true => writer.discard(),
                    false => writer.unseal(blob),
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
    resource: &WriteResource,
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
    if end > most_bytes(resource) {
        let description = format!("byte {end} was sent for blob {}", resource.digest());
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

fn is_senders_fault(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::Corrupt { .. } | StoreError::Undecodable { .. }
    )
}

/// How many bytes an upload can have.
fn most_bytes(resource: &WriteResource) -> u64 {
    let size_bytes = resource.digest().size_bytes();
    match is_compressed(resource.compressor()) {
        true => largest_compressed(size_bytes),
        false => size_bytes,
    }
}

fn check_compressor(compressor: Compressor) -> Result<(), Failure> {
    match compressor {
        Compressor::Identity | Compressor::Zstd => Ok(()),
        Compressor::Deflate | Compressor::Brotli => {
            let description = "is compressed with neither zstd nor nothing; see the capabilities";
            Err(status::invalid_argument(RESOURCE_NAME, description))
        }
    }
}

/// Whether a form that is supported is a compressed one.
fn is_compressed(compressor: Compressor) -> bool {
    compressor != Compressor::Identity
}

fn of_name(error: ParseResourceNameError) -> Failure {
    status::invalid_argument(RESOURCE_NAME, status::with_sources(&error))
}

fn write_resource(name: &str) -> Result<WriteResource, Failure> {
    let resource: WriteResource = name.parse().map_err(of_name)?;
    check_compressor(resource.compressor())?;
    Ok(resource)
}

/// Whether a message is all of its upload.
fn is_whole(message: &bytestream::WriteRequest, resource: &WriteResource) -> bool {
    let length = message.data.len() as u64;
    let is_all = match is_compressed(resource.compressor()) {
        true => length <= most_bytes(resource),
        false => length == resource.digest().size_bytes(),
    };
    message.finish_write && message.write_offset == 0 && is_all
}

/// What to say is committed of a blob that is there: how long its compressed form would have been nobody
/// knows (REAPI, `ByteStream.Write`).
fn committed_already(resource: &WriteResource) -> i64 {
    match is_compressed(resource.compressor()) {
        true => -1,
        false => to_wire_size(resource.digest().size_bytes()),
    }
}

/// A blob's size as the protocol counts it.
fn to_wire_size(size_bytes: u64) -> i64 {
    i64::try_from(size_bytes).unwrap_or(i64::MAX)
}

type ReadStream = stream::Empty<Result<bytestream::ReadResponse, Status>>;

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
        let is_compressed = is_compressed(resource.compressor());
        if is_compressed && length.is_some() {
            let description = "must be 0 for a compressed blob, which can be read to its end only";
            return Err(status::invalid_argument("read_limit", description).into());
        }
        let blobs = self.blobs.of(resource.instance());
        let body = blobs
            .get(&resource.digest(), BlobRange { offset, length })
            .await
            .map_err(|error| status::of_read(&error))?;
        let body = match is_compressed {
            true => compressed_body(body),
            false => body,
        };
        // The answer has no message as far as tonic knows.
        let mut response = Response::new(stream::empty());
        response.extensions_mut().insert(ReadBytes::new(body));
        Ok(response)
    }

    async fn write(
        &self,
        request: Request<Streaming<bytestream::WriteRequest>>,
    ) -> Result<Response<bytestream::WriteResponse>, Status> {
        let mut messages = request.into_inner();
        let nothing = || status::invalid_argument(RESOURCE_NAME, "is not set");
        let first = messages.message().await;
        let first = first.map_err(|status| status::broken_stream(&status))?;
        let first = first.ok_or_else(nothing)?;
        let resource = write_resource(&first.resource_name)?;
        let committed_size = if self.is_present(&resource).await? {
            committed_already(&resource)
        } else if is_whole(&first, &resource) {
            to_wire_size(self.store_at_once(&resource, first).await?)
        } else {
            to_wire_size(self.receive(&resource, first, messages).await?)
        };
        Ok(Response::new(bytestream::WriteResponse { committed_size }))
    }

    async fn query_write_status(
        &self,
        request: Request<bytestream::QueryWriteStatusRequest>,
    ) -> Result<Response<bytestream::QueryWriteStatusResponse>, Status> {
        let name = request.into_inner().resource_name;
        let resource = write_resource(&name)?;
        let complete = self.is_present(&resource).await?;
        let committed_size = match complete {
            true => committed_already(&resource),
            false => to_wire_size(self.uploads.committed(&name)),
        };
        Ok(Response::new(bytestream::QueryWriteStatusResponse {
            committed_size,
            complete,
        }))
    }
}
