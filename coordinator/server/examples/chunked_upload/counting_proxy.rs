//! A way to the server that counts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Passes TCP connections on to a server and counts what goes over them, gRPC's own bytes included.
#[derive(Debug)]
pub(crate) struct CountingProxy {
    address: SocketAddr,
    sent_bytes: Arc<AtomicU64>,
    received_bytes: Arc<AtomicU64>,
}

impl CountingProxy {
    /// Listens on a free port until the runtime ends.
    pub(crate) async fn start(server: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (sent_bytes, received_bytes) =
            (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let (sent, received) = (Arc::clone(&sent_bytes), Arc::clone(&received_bytes));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(server).await else {
                    return;
                };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(pass_on(from_client, to_server, Arc::clone(&sent)));
                tokio::spawn(pass_on(from_server, to_client, Arc::clone(&received)));
            }
        });
        Ok(Self {
            address,
            sent_bytes,
            received_bytes,
        })
    }

    /// Where clients connect to.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many bytes clients have sent since this was last asked.
    pub(crate) fn take_sent_bytes(&self) -> u64 {
        self.sent_bytes.swap(0, Ordering::SeqCst)
    }

    /// How many bytes clients have received since this was last asked.
    pub(crate) fn take_received_bytes(&self) -> u64 {
        self.received_bytes.swap(0, Ordering::SeqCst)
    }
}

async fn pass_on(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    counter: Arc<AtomicU64>,
) {
    let mut buffer = vec![0; 256 << 10];
    while let Ok(length_bytes @ 1..) = from.read(&mut buffer).await {
        counter.fetch_add(length_bytes as u64, Ordering::SeqCst);
        if to.write_all(&buffer[..length_bytes]).await.is_err() {
            return;
        }
    }
}
