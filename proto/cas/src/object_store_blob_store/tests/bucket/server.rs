//! S3 servers on loopback.

use std::any::Any;
use std::net::SocketAddr;
use std::time::Duration;

use futures::TryStreamExt as _;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStore as _};
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::object_store_blob_store::ObjectStoreBlobStore;
use crate::object_store_blob_store::abandoned_uploads::folder_of;
use crate::object_store_blob_store::guarded::{GuardedObjectStore, Limits};
use crate::object_store_blob_store::open::Opened;
use crate::object_store_blob_store::open::bucket::to_be_guarded;
use crate::object_store_blob_store::upload_shape::UploadShape;

const NAME: &str = "blobs";
const PREFIX: &str = "some/prefix";

/// A bucket, and what serves it as long as this value lives.
pub(super) struct Bucket {
    pub(super) address: SocketAddr,
    pub(super) region: String,
    pub(super) access_key: String,
    pub(super) secret_key: String,
    /// Where there are files of uploads that have not ended, if the server has any.
    pub(super) directory: Option<std::path::PathBuf>,
    pub(super) _server: Box<dyn Any + Send + Sync>,
}

impl Bucket {
    /// One whose objects are files.
    pub(super) async fn in_directory() -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join(NAME)).unwrap();
        let files = s3s_fs::FileSystem::new(root.path()).unwrap();
        let mut service = S3ServiceBuilder::new(files);
        let (access_key, secret_key) = ("access", "secret");
        service.set_auth(SimpleAuth::from_single(access_key, secret_key));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut connections = JoinSet::new();
        connections.spawn(serve(listener, service.build()));
        Self {
            address,
            region: "us-east-1".to_owned(),
            access_key: access_key.to_owned(),
            secret_key: secret_key.to_owned(),
            directory: Some(root.path().to_owned()),
            _server: Box::new((root, connections)),
        }
    }

    #[cfg(feature = "garage-tests")]
    pub(super) async fn in_garage() -> Self {
        use super::garage::{ACCESS_KEY, GarageServer, REGION, SECRET_KEY};
        let starting = tokio::task::spawn_blocking(GarageServer::start);
        let server = starting.await.unwrap();
        Self {
            address: server.address(),
            region: REGION.to_owned(),
            access_key: ACCESS_KEY.to_owned(),
            secret_key: SECRET_KEY.to_owned(),
            directory: None,
            _server: Box::new(server),
        }
    }

    pub(super) fn objects(&self) -> AmazonS3 {
        self.objects_at(self.address)
    }

    fn objects_at(&self, address: SocketAddr) -> AmazonS3 {
        // The process's default, as `open` sets it; there may be one already.
        drop(rustls::crypto::ring::default_provider().install_default());
        // Plain HTTP needs no certificates, which a container may have none of.
        let options = ClientOptions::new()
            .with_allow_http(true)
            .with_allow_invalid_certificates(true);
        let builder = AmazonS3Builder::new()
            .with_endpoint(format!("http://{address}"))
            .with_client_options(options)
            .with_region(&self.region)
            .with_bucket_name(NAME)
            .with_access_key_id(&self.access_key)
            .with_secret_access_key(&self.secret_key);
        to_be_guarded(builder).build().unwrap()
    }

    pub(super) fn store(&self) -> ObjectStoreBlobStore {
        self.store_at(self.address, Limits::DEFAULT)
    }

    /// The bucket as it is seen at another address.
    pub(super) fn store_at(&self, address: SocketAddr, limits: Limits) -> ObjectStoreBlobStore {
        let objects = self.objects_at(address);
        let guarded = GuardedObjectStore::with_limits(objects, "s3://blobs", limits);
        let prefix = Path::from(PREFIX);
        let (objects, uploads) = guarded.with_uploads_marked(prefix.clone());
        ObjectStoreBlobStore::of(Opened {
            objects,
            prefix,
            shape: UploadShape::BUCKET,
            directory: None,
            uploads: Some(uploads),
        })
    }

    /// The names of the markers of uploads.
    pub(super) async fn markers(&self) -> Vec<String> {
        let folder = folder_of(&Path::from(PREFIX));
        // Guarded: the server fails where a file goes while it lists.
        let limits = Limits::DEFAULT;
        let objects = GuardedObjectStore::with_limits(self.objects(), "s3://blobs", limits);
        let listed = objects.list(Some(&folder)).map_ok(|it| it.location);
        let names = listed.map_ok(|it| it.filename().unwrap().to_owned());
        let names = names.try_filter(|name| std::future::ready(name != "0-now"));
        names.try_collect().await.unwrap()
    }

    /// Makes the markers of uploads so much older.
    pub(super) fn age_markers(&self, by: Duration) {
        let folder = self.directory.as_ref().unwrap().join(NAME);
        let folder = folder.join(folder_of(&Path::from(PREFIX)).as_ref());
        for marker in std::fs::read_dir(folder).unwrap() {
            let marker = std::fs::File::open(marker.unwrap().path()).unwrap();
            let modified = marker.metadata().unwrap().modified().unwrap();
            marker.set_modified(modified - by).unwrap();
        }
    }

    /// How many files of uploads there are that were neither completed nor aborted.
    pub(super) fn unfinished(&self) -> usize {
        self.files_with("upload").unwrap_or(0)
    }

    /// How many parts have arrived of uploads that have not ended, if there are files of them.
    pub(super) fn arrived_parts(&self) -> Option<usize> {
        self.files_with(".part-")
    }

    fn files_with(&self, word: &str) -> Option<usize> {
        let entries = std::fs::read_dir(self.directory.as_ref()?).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        Some(names.filter(|name| name.contains(word)).count())
    }
}

async fn serve(listener: TcpListener, service: S3Service) {
    let mut connections = JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        // Or each answer waits for the acknowledgement of its head.
        socket.set_nodelay(true).unwrap();
        let service = service.clone();
        connections.spawn(async move {
            let server = Builder::new(TokioExecutor::new());
            // A connection that the client breaks off is no concern of the server's.
            drop(server.serve_connection(TokioIo::new(socket), service).await);
        });
    }
}
