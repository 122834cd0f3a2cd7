//! Connections that end when the server does.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::{Connected, TcpConnectInfo};

/// A TCP connection whose peer seems to hang up once a token is cancelled.
///
/// Calls that last as long as an agent does would otherwise keep a server from ever ending: hyper waits
/// for them, each in a task of its own that nobody else holds.
#[derive(Debug)]
pub(crate) struct ClosingStream {
    stream: TcpStream,
    closed: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl ClosingStream {
    /// A connection that ends once `close` is cancelled.
    pub(crate) fn new(stream: TcpStream, close: CancellationToken) -> Self {
        Self {
            stream,
            closed: Box::pin(close.cancelled_owned()),
        }
    }
}

impl ClosingStream {
    /// The same connection, which ends after a time in any case.
    pub(crate) fn lasting(self, time: Duration) -> Self {
        let Self { stream, closed } = self;
        let over = CancellationToken::new();
        let ended = over.clone();
        tokio::spawn(async move {
            // Whichever comes first.
            drop(tokio::time::timeout(time, closed).await);
            ended.cancel();
        });
        Self::new(stream, over)
    }
}

impl Connected for ClosingStream {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for ClosingStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        use std::future::Future as _;
        if self.closed.as_mut().poll(context).is_ready() {
            // An error, not the end: after an end hyper would still wait for calls under way.
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for ClosingStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
