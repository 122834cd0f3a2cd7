//! An S3 server that counts.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::S3Result;
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::task::JoinSet;

use super::Outcome;

/// How long each request takes besides its work, as it does on the way to a bucket.
pub(super) const LATENCY: Duration = Duration::from_millis(20);

const BUCKET: &str = "blobs";
const ACCESS_KEY: &str = "access";
const SECRET_KEY: &str = "secret";

/// A server on a free port of loopback, which keeps its bucket in a directory; both end when it is dropped.
pub(super) struct Bucket {
    address: SocketAddr,
    requests: Requests,
    _root: tempfile::TempDir,
    _connections: JoinSet<()>,
}

/// How often each operation was asked for.
#[derive(Clone, Default)]
struct Requests(Arc<Mutex<BTreeMap<String, u64>>>);

#[async_trait::async_trait]
impl S3Access for Requests {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> S3Result<()> {
        {
            let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let operation = context.s3_op().name().to_owned();
            *counts.entry(operation).or_default() += 1;
        }
        tokio::time::sleep(LATENCY).await;
        Ok(())
    }
}

impl Bucket {
    pub(super) async fn start() -> Outcome<Self> {
        let root = tempfile::tempdir()?;
        std::fs::create_dir(root.path().join(BUCKET))?;
        let files = s3s_fs::FileSystem::new(root.path()).map_err(|error| format!("{error:?}"))?;
        let requests = Requests::default();
        let mut service = S3ServiceBuilder::new(files);
        service.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        service.set_access(requests.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let mut connections = JoinSet::new();
        connections.spawn(serve(listener, service.build()));
        Ok(Self {
            address,
            requests,
            _root: root,
            _connections: connections,
        })
    }

    pub(super) fn url(&self) -> String {
        format!("s3://{BUCKET}/regatta")
    }

    /// Tells a process how the bucket is reached.
    pub(super) fn introduce_to(&self, process: &mut Command) {
        process
            .env("AWS_ENDPOINT", format!("http://{}", self.address))
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
            .env("AWS_ALLOW_HTTP", "true")
            // Plain HTTP needs no certificates, which a container may have none of.
            .env("AWS_ALLOW_INVALID_CERTIFICATES", "true");
    }

    /// What was asked for since the last time.
    pub(super) fn take_requests(&self) -> BTreeMap<String, u64> {
        let mut counts = self.requests.0.lock();
        let counts = counts.as_deref_mut();
        std::mem::take(counts.expect("counting does not panic"))
    }
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
