//! A coordinator on free ports with its state in a directory that goes with it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use regatta_model::Digest;
use regatta_server::{Coordinator, CoordinatorConfig, ServeError};
use regatta_wire::bytestream::byte_stream_client::ByteStreamClient;
use regatta_wire::longrunning::operations_client::OperationsClient;
use regatta_wire::reapi::action_cache_client::ActionCacheClient;
use regatta_wire::reapi::batch_update_blobs_request::Request as BlobToStore;
use regatta_wire::reapi::capabilities_client::CapabilitiesClient;
use regatta_wire::reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use regatta_wire::reapi::execution_client::ExecutionClient;
use regatta_wire::{reapi, rpc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

/// How long anything here may take before a test fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) struct Running {
    pub(crate) channel: Channel,
    pub(crate) address: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) state: tempfile::TempDir,
    shutdown: CancellationToken,
    served: JoinHandle<Result<(), ServeError>>,
}

/// The settings of every test: free ports, short waits.
pub(crate) fn config(state: &Path) -> CoordinatorConfig {
    let mut config = CoordinatorConfig::new(state);
    config.listen.set_port(0);
    if let Some(address) = &mut config.http_listen {
        address.set_port(0);
    }
    config.heartbeat_interval = Duration::from_millis(500);
    config
}

impl Running {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut CoordinatorConfig)) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), change).await
    }

    pub(crate) async fn start_in(
        state: tempfile::TempDir,
        change: impl FnOnce(&mut CoordinatorConfig),
    ) -> Self {
        let mut config = config(state.path());
        change(&mut config);
        let coordinator = Coordinator::start(config).await.unwrap();
        let address = coordinator.grpc_address();
        let http = coordinator.http_address().unwrap();
        let shutdown = CancellationToken::new();
        let served = tokio::spawn(coordinator.serve_until(shutdown.clone()));
        let channel = connect(address).await;
        Self {
            channel,
            address,
            http,
            state,
            shutdown,
            served,
        }
    }

    /// Stops the coordinator and gives its state back.
    pub(crate) async fn stop(self) -> tempfile::TempDir {
        self.shutdown.cancel();
        tokio::time::timeout(DEADLINE, self.served)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        self.state
    }

    pub(crate) fn cas(&self) -> ContentAddressableStorageClient<Channel> {
        ContentAddressableStorageClient::new(self.channel.clone())
    }

    pub(crate) fn byte_stream(&self) -> ByteStreamClient<Channel> {
        ByteStreamClient::new(self.channel.clone())
    }

    pub(crate) fn action_cache(&self) -> ActionCacheClient<Channel> {
        ActionCacheClient::new(self.channel.clone())
    }

    pub(crate) fn capabilities(&self) -> CapabilitiesClient<Channel> {
        CapabilitiesClient::new(self.channel.clone())
    }

    pub(crate) fn execution(&self) -> ExecutionClient<Channel> {
        ExecutionClient::new(self.channel.clone())
    }

    pub(crate) fn operations(&self) -> OperationsClient<Channel> {
        OperationsClient::new(self.channel.clone())
    }

    /// Stores a small blob.
    pub(crate) async fn store(&self, data: impl Into<Bytes>) -> Digest {
        let data = data.into();
        let digest = Digest::of(&data);
        let response = self
            .cas()
            .batch_update_blobs(batch(&[(digest, data)]))
            .await
            .unwrap();
        let status = response.into_inner().responses.remove(0).status.unwrap();
        assert_eq!(status.code, 0, "{status:?}");
        digest
    }

    /// Stores a message.
    pub(crate) async fn store_message(&self, message: &impl Message) -> Digest {
        self.store(message.encode_to_vec()).await
    }

    /// Those of `digests` that are missing.
    pub(crate) async fn missing(&self, digests: &[Digest]) -> Vec<Digest> {
        let blob_digests = digests.iter().map(reapi::Digest::from).collect();
        let request = reapi::FindMissingBlobsRequest {
            blob_digests,
            ..Default::default()
        };
        let response = self
            .cas()
            .find_missing_blobs(request)
            .await
            .unwrap()
            .into_inner();
        let missing = response.missing_blob_digests.iter();
        missing
            .map(|digest| Digest::try_from(digest).unwrap())
            .collect()
    }

    /// Every file below the store's directory.
    pub(crate) fn stored_files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut directories = vec![self.state.path().join("cas")];
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    directories.push(path)
                } else {
                    files.push(path)
                }
            }
        }
        files
    }

    /// The body of a page, and its status.
    pub(crate) async fn http_get(&self, path: &str) -> (u16, String) {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = tokio::net::TcpStream::connect(self.http).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        let status = response.split(' ').nth(1).unwrap().parse().unwrap();
        let body = response.split_once("\r\n\r\n").unwrap().1.to_owned();
        (status, body)
    }
}

pub(crate) async fn connect(address: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    endpoint.connect().await.unwrap()
}

pub(crate) fn batch(blobs: &[(Digest, Bytes)]) -> reapi::BatchUpdateBlobsRequest {
    let requests = blobs
        .iter()
        .map(|(digest, data)| BlobToStore {
            digest: Some(digest.into()),
            data: data.clone(),
            ..Default::default()
        })
        .collect();
    reapi::BatchUpdateBlobsRequest {
        requests,
        ..Default::default()
    }
}

/// Bytes that compress badly and differ by `seed`.
pub(crate) fn noise(length: usize, seed: u64) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect()
}

/// The details of an error.
pub(crate) fn details(status: &Status) -> rpc::Status {
    rpc::Status::decode(status.details()).unwrap()
}

/// The blobs that an error says are missing.
pub(crate) fn missing_in(status: &rpc::Status) -> Vec<String> {
    let failure = status.details.iter().find_map(|any| any.to_msg().ok());
    let failure: rpc::PreconditionFailure = failure.unwrap();
    assert!(
        failure
            .violations
            .iter()
            .all(|violation| violation.r#type == "MISSING")
    );
    failure
        .violations
        .into_iter()
        .map(|violation| violation.subject)
        .collect()
}
