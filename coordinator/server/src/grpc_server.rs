//! How gRPC is served: flow control, bounds and liveness of its connections.

use std::io;
use std::time::Duration;

use futures::{Stream, StreamExt as _, stream};
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;

use crate::closing_stream::ClosingStream;

/// How much of a stream, and of a connection, may be on its way unread, in bytes: enough for full speed
/// at a few milliseconds of distance, little enough for a thousand agents.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// The size of one HTTP/2 frame, in bytes.
const FRAME_SIZE_BYTES: u32 = 256 << 10;
/// How many calls one connection may have under way: more than any client's `--jobs` over one connection.
const MAX_CONCURRENT_STREAMS: u32 = 2048;
/// How many calls may have been given up before they were accepted. A client that gives up a whole build at
/// once does that without malice, and loses its connection at hyper's default of 20.
const MAX_PENDING_RESET_STREAMS: usize = 4096;
/// How often a silent connection is asked whether it is still there, and how long it may take to answer.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a connection lasts on which nothing can be done.
const BRIEF_AGE: Duration = Duration::from_secs(1);
/// How long it lasts whatever its peer does.
const BRIEF_LIFE: Duration = Duration::from_secs(5);
/// How long to wait before accepting again when the system would not give another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves `routes` until `shutdown`; connections last until they end or `close` ends them.
pub(crate) async fn serve_grpc(
    listener: TcpListener,
    routes: Routes,
    shutdown: CancellationToken,
    close: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_adaptive_window(Some(false))
        .max_frame_size(FRAME_SIZE_BYTES)
        .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
        .http2_max_pending_accept_reset_streams(Some(MAX_PENDING_RESET_STREAMS))
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .add_routes(routes)
        .serve_with_incoming_shutdown(connections(listener, close), shutdown.cancelled_owned())
        .await
}

/// Serves one connection, and ends it soon: whoever comes again may be served by another.
pub(crate) async fn serve_briefly(connection: ClosingStream, routes: Routes) {
    let served = Server::builder()
        .max_connection_age(BRIEF_AGE)
        .add_routes(routes)
        .serve_with_incoming(stream::iter([Ok::<_, io::Error>(
            connection.lasting(BRIEF_LIFE),
        )]));
    if let Err(error) = served.await {
        tracing::debug!(%error, "a connection was served in vain");
    }
}

/// Every connection, ready to be served. That one could not be accepted concerns no other.
pub(crate) fn connections(
    listener: TcpListener,
    close: CancellationToken,
) -> impl Stream<Item = Result<ClosingStream, io::Error>> {
    TcpListenerStream::new(listener).filter_map(move |accepted| {
        let close = close.clone();
        async move {
            match accepted.and_then(without_delay) {
                Ok(stream) => Some(Ok(ClosingStream::new(stream, close))),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    None
                }
            }
        }
    })
}

fn without_delay(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    Ok(stream)
}
