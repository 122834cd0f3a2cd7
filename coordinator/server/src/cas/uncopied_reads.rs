//! Reads that are not copied on their way to the connection.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{BufMut as _, Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _};
use http_body::Frame;
use prost::encoding::{WireType, encode_key, encode_varint};
use regatta_cas::BlobStream;
use regatta_wire::bytestream::byte_stream_server::ByteStreamServer;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;

use super::byte_stream::ByteStreamService;
use crate::status;

/// The number of `ReadResponse.data`.
const DATA_TAG: u32 = 10;
/// What stands before the data of a message: a flag, its length in four bytes (gRPC over HTTP/2,
/// `Length-Prefixed-Message`), the key of its only field and how long that is.
const MOST_PREFIX_BYTES: usize = 5 + 1 + 5;

/// Serves `ByteStream`, and takes the bytes of a read past tonic, from the memory that they were read into
/// to the connection. Tonic's encoder would copy each message into new memory first, which takes longer than
/// reading it does.
#[derive(Debug, Clone)]
pub(crate) struct UncopiedReads {
    server: ByteStreamServer<ByteStreamService>,
}

impl UncopiedReads {
    /// Takes the bytes past `server`.
    pub(super) const fn new(server: ByteStreamServer<ByteStreamService>) -> Self {
        Self { server }
    }
}

impl NamedService for UncopiedReads {
    const NAME: &'static str = <ByteStreamServer<ByteStreamService> as NamedService>::NAME;
}

impl Service<http::Request<Body>> for UncopiedReads {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<http::Request<Body>>::poll_ready(&mut self.server, context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let answer = self.server.call(request);
        answer.map(|answer| answer.map(with_its_bytes)).boxed()
    }
}

fn with_its_bytes(mut response: http::Response<Body>) -> http::Response<Body> {
    let bytes = response.extensions_mut().remove::<ReadBytes>();
    match bytes.and_then(|bytes| bytes.take()) {
        Some(pieces) => response.map(|_| Body::new(MessageBody::new(pieces))),
        None => response,
    }
}

/// The bytes that a read answers, to be sent in place of the body of its response.
#[derive(Clone)]
pub(super) struct ReadBytes(Arc<Mutex<Option<BlobStream>>>);

impl ReadBytes {
    pub(super) fn new(pieces: BlobStream) -> Self {
        Self(Arc::new(Mutex::new(Some(pieces))))
    }

    fn take(&self) -> Option<BlobStream> {
        let mut pieces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pieces.take()
    }
}

impl fmt::Debug for ReadBytes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ReadBytes").finish_non_exhaustive()
    }
}

/// Pieces of a blob as messages of gRPC, and how the call ended.
struct MessageBody {
    pieces: BlobStream,
    /// The data of a message whose prefix has been sent.
    data: Option<Bytes>,
    ended: bool,
}

impl MessageBody {
    fn new(pieces: BlobStream) -> Self {
        Self {
            pieces,
            data: None,
            ended: false,
        }
    }

    fn end(&mut self, status: &Status) -> Result<Frame<Bytes>, Status> {
        self.ended = true;
        let mut trailers = http::HeaderMap::new();
        status.add_header(&mut trailers)?;
        Ok(Frame::trailers(trailers))
    }
}

impl http_body::Body for MessageBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if let Some(data) = this.data.take() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if this.ended {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(match ready!(this.pieces.poll_next_unpin(context)) {
            Some(Ok(piece)) => {
                let prefix = prefix_of(&piece);
                this.data = Some(piece);
                Ok(Frame::data(prefix))
            }
            Some(Err(error)) => this.end(&status::of_read(&error).into()),
            None => this.end(&Status::ok("")),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

/// What stands before `data` in a message that is a `ReadResponse` with it.
fn prefix_of(data: &Bytes) -> Bytes {
    let mut field = BytesMut::with_capacity(MOST_PREFIX_BYTES);
    encode_key(DATA_TAG, WireType::LengthDelimited, &mut field);
    encode_varint(data.len() as u64, &mut field);
    let mut prefix = BytesMut::with_capacity(MOST_PREFIX_BYTES);
    prefix.put_u8(0);
    // A piece is never so long that the length does not fit.
    prefix.put_u32(u32::try_from(field.len() + data.len()).unwrap_or(u32::MAX));
    prefix.extend_from_slice(&field);
    prefix.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;
    use http_body::Body as _;
    use prost::Message as _;
    use regatta_cas::StoreError;
    use regatta_model::Digest;
    use regatta_wire::bytestream::ReadResponse;

    type Sent = (Vec<u8>, Option<http::HeaderMap>);

    async fn sent(pieces: Vec<Result<Bytes, StoreError>>) -> Sent {
        let mut body = Box::pin(MessageBody::new(stream::iter(pieces).boxed()));
        let (mut data, mut trailers) = (Vec::new(), None);
        while let Some(frame) =
            std::future::poll_fn(|context| body.as_mut().poll_frame(context)).await
        {
            match frame.unwrap().into_data() {
                Ok(bytes) => data.extend_from_slice(&bytes),
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        assert!(body.is_end_stream());
        (data, trailers)
    }

    #[tokio::test]
    async fn pieces_are_the_messages_that_tonic_would_have_sent() {
        let pieces = [0, 1, 127, 128, 70_000].map(|length| Bytes::from(vec![7; length]));
        let (data, trailers) = sent(pieces.iter().cloned().map(Ok).collect()).await;
        let mut rest = data.as_slice();
        for piece in &pieces {
            let (head, behind) = rest.split_at(5);
            assert_eq!(head[0], 0);
            let length = u32::from_be_bytes(head[1..].try_into().unwrap());
            let (message, behind) = behind.split_at(length.try_into().unwrap());
            assert_eq!(ReadResponse::decode(message).unwrap().data, piece);
            rest = behind;
        }
        assert!(rest.is_empty());
        assert_eq!(trailers.unwrap()["grpc-status"], "0");
    }

    #[tokio::test]
    async fn an_error_on_the_way_ends_the_call() {
        let digest = Digest::of(b"gone");
        let pieces = vec![
            Ok(Bytes::from_static(b"a")),
            Err(StoreError::NotFound { digest }),
            Ok(Bytes::from_static(b"never sent")),
        ];
        let (data, trailers) = sent(pieces).await;
        assert_eq!(data.len(), 5 + 2 + 1);
        assert_eq!(trailers.unwrap()["grpc-status"], "5");
    }
}
