//! An S3 server on loopback with one bucket whose objects are files, gone at its end.

use std::net::SocketAddr;
use std::path::Path;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

const BUCKET: &str = "blobs";
const ACCESS_KEY: &str = "access";
const SECRET_KEY: &str = "secret";

/// What serves it lives in threads of its own, so that no test need be asynchronous.
#[derive(Debug)]
pub(crate) struct S3Server {
    address: SocketAddr,
    _runtime: Runtime,
    directory: TempDir,
}

impl S3Server {
    pub(crate) fn start() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("regatta-s3-")
            .tempdir()
            .expect("a directory");
        std::fs::create_dir(directory.path().join(BUCKET)).expect("a directory");
        let files = s3s_fs::FileSystem::new(directory.path()).expect("a directory");
        let mut service = S3ServiceBuilder::new(files);
        service.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let runtime = Runtime::new().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"));
        let listener = listener.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        runtime.spawn(serve(listener, service.build()));
        Self {
            address,
            _runtime: runtime,
            directory,
        }
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where its objects are.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// What `--storage` is told.
    pub(crate) fn url() -> String {
        format!("s3://{BUCKET}/regatta")
    }
}

/// What a coordinator's environment says of a bucket that is reached at an address.
pub(crate) fn environment(endpoint: &str) -> [(&'static str, &str); 5] {
    [
        ("AWS_ENDPOINT", endpoint),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
    ]
}

async fn serve(listener: TcpListener, service: S3Service) {
    let mut connections = JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        let service = service.clone();
        connections.spawn(async move {
            let server = Builder::new(TokioExecutor::new());
            // A connection that the client breaks off is no concern of the server's.
            drop(server.serve_connection(TokioIo::new(socket), service).await);
        });
    }
}
