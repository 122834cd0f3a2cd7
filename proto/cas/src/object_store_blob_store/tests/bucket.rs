//! The adapter against a real S3 server, which keeps its buckets in a directory.

use std::net::SocketAddr;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use object_store::ClientOptions;
use object_store::aws::AmazonS3Builder;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::*;

const BUCKET: &str = "blobs";
const ACCESS_KEY: &str = "access";
const SECRET_KEY: &str = "secret";

/// A server on a free port of loopback; it ends when it is dropped.
struct S3Server {
    address: SocketAddr,
    root: tempfile::TempDir,
    _connections: JoinSet<()>,
}

impl S3Server {
    async fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join(BUCKET)).unwrap();
        let files = s3s_fs::FileSystem::new(root.path()).unwrap();
        let mut service = S3ServiceBuilder::new(files);
        service.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut connections = JoinSet::new();
        connections.spawn(serve(listener, service.build()));
        Self {
            address,
            root,
            _connections: connections,
        }
    }

    /// The adapter for the bucket, signing with `secret_key`.
    fn store(&self, secret_key: &str) -> ObjectStoreBlobStore {
        // The process's default, as `open` sets it; there may be one already.
        drop(rustls::crypto::ring::default_provider().install_default());
        let objects = AmazonS3Builder::new()
            .with_endpoint(format!("http://{}", self.address))
            // Plain HTTP needs no certificates, which a container may have none of.
            .with_client_options(
                ClientOptions::new()
                    .with_allow_http(true)
                    .with_allow_invalid_certificates(true),
            )
            .with_region("us-east-1")
            .with_bucket_name(BUCKET)
            .with_access_key_id(ACCESS_KEY)
            .with_secret_access_key(secret_key)
            .build()
            .unwrap();
        ObjectStoreBlobStore::new(Arc::new(objects), "some/prefix")
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

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_conforms() {
    let server = S3Server::start().await;
    let store = Arc::new(server.store(SECRET_KEY));
    conformance::check_keyed(store.clone()).await;
    // Three parts of 5 MiB on their way and a fourth being read, to the end of its last piece.
    conformance::check_streaming_within(store, 22 << 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stored_is_an_object_of_the_bucket() {
    let server = S3Server::start().await;
    let store = server.store(SECRET_KEY);
    let digest = put_bytes(&store, Bytes::from_static(b"kept"))
        .await
        .unwrap();
    let hash = digest.hash_hex();
    let path = format!("{BUCKET}/some/prefix/{}/{hash}-4", &hash[..2]);
    let object = std::fs::read(server.root.path().join(path)).unwrap();
    assert_eq!(object, b"kept");
    let again = server.store(SECRET_KEY);
    assert_eq!(read_all(&again, &digest, 10).await.unwrap(), "kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_an_error_and_not_an_absence() {
    let server = S3Server::start().await;
    let right = server.store(SECRET_KEY);
    let digest = put_bytes(&right, Bytes::from_static(b"x")).await.unwrap();
    let wrong = server.store("another");
    let refused = wrong.find_missing(&[digest]).await;
    assert!(
        matches!(refused, Err(StoreError::Unavailable { .. })),
        "{refused:?}"
    );
}
