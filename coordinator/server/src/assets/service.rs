//! `build.bazel.remote.asset.v1.Fetch` and `Push`.

use std::sync::Arc;
use std::time::SystemTime;

use regatta_model::Timestamp;
use regatta_wire::asset;
use regatta_wire::asset::fetch_server::Fetch;
use regatta_wire::asset::push_server::Push;
use regatta_wire::convert::timestamp_to_wire;
use regatta_wire::reapi::digest_function::Value as DigestFunction;
use tonic::{Request, Response, Status};

use super::key::AssetKind;
use super::request::{Content, Naming, time_of};
use super::store::{Asset, AssetStore, PutAssetError};
use crate::status::{self, Failure};

/// Gives out what was pushed.
#[derive(Debug, Clone)]
pub(crate) struct FetchService {
    assets: Arc<AssetStore>,
}

impl FetchService {
    /// Gives out what is in `assets`.
    pub(crate) const fn new(assets: Arc<AssetStore>) -> Self {
        Self { assets }
    }

    /// The first of the URIs that leads to something, and what that is.
    async fn find(
        &self,
        naming: Naming,
        oldest: Option<prost_types::Timestamp>,
    ) -> Result<(String, Asset), Failure> {
        let named = naming.check()?;
        let oldest = time_of(oldest.as_ref(), "oldest_content_accepted")?;
        let now = Timestamp::from(SystemTime::now());
        for uri in named.uris {
            let found = self.assets.get(&named.scope, &uri, now, oldest).await;
            if let Some(found) = found.map_err(|error| status::of_read(&error))? {
                return Ok((uri, found));
            }
        }
        Err(status::not_found(
            "nothing that was pushed for these URIs is there",
        ))
    }
}

/// Takes in what is to be given out.
#[derive(Debug, Clone)]
pub(crate) struct PushService {
    assets: Arc<AssetStore>,
}

impl PushService {
    /// Takes assets into `assets`.
    pub(crate) const fn new(assets: Arc<AssetStore>) -> Self {
        Self { assets }
    }

    async fn store(&self, naming: Naming, content: Content) -> Result<(), Failure> {
        let named = naming.check()?;
        let pushed = content.check(Timestamp::from(SystemTime::now()))?;
        for uri in &named.uris {
            let put = self.assets.put(&named.scope, uri, &pushed).await;
            put.map_err(|error| of_put(&error))?;
        }
        Ok(())
    }
}

fn of_put(error: &PutAssetError) -> Failure {
    match error {
        PutAssetError::TooLarge { .. } => status::invalid_argument("references_blobs", error),
        PutAssetError::Store(error) => status::of_read(error),
    }
}

#[tonic::async_trait]
impl Fetch for FetchService {
    async fn fetch_blob(
        &self,
        request: Request<asset::FetchBlobRequest>,
    ) -> Result<Response<asset::FetchBlobResponse>, Status> {
        let request = request.into_inner();
        let naming = Naming {
            kind: AssetKind::Blob,
            instance_name: request.instance_name,
            uris: request.uris,
            qualifiers: request.qualifiers.clone(),
            digest_function: request.digest_function,
        };
        let oldest = request.oldest_content_accepted;
        let (uri, found) = self.find(naming, oldest).await?;
        Ok(Response::new(asset::FetchBlobResponse {
            status: Some(status::ok()),
            uri,
            qualifiers: request.qualifiers,
            expires_at: found.expires.map(timestamp_to_wire),
            blob_digest: Some(found.digest.into()),
            digest_function: DigestFunction::Sha256.into(),
        }))
    }

    async fn fetch_directory(
        &self,
        request: Request<asset::FetchDirectoryRequest>,
    ) -> Result<Response<asset::FetchDirectoryResponse>, Status> {
        let request = request.into_inner();
        let naming = Naming {
            kind: AssetKind::Directory,
            instance_name: request.instance_name,
            uris: request.uris,
            qualifiers: request.qualifiers.clone(),
            digest_function: request.digest_function,
        };
        let oldest = request.oldest_content_accepted;
        let (uri, found) = self.find(naming, oldest).await?;
        Ok(Response::new(asset::FetchDirectoryResponse {
            status: Some(status::ok()),
            uri,
            qualifiers: request.qualifiers,
            expires_at: found.expires.map(timestamp_to_wire),
            root_directory_digest: Some(found.digest.into()),
            digest_function: DigestFunction::Sha256.into(),
        }))
    }
}

#[tonic::async_trait]
impl Push for PushService {
    async fn push_blob(
        &self,
        request: Request<asset::PushBlobRequest>,
    ) -> Result<Response<asset::PushBlobResponse>, Status> {
        let request = request.into_inner();
        let naming = Naming {
            kind: AssetKind::Blob,
            instance_name: request.instance_name,
            uris: request.uris,
            qualifiers: request.qualifiers,
            digest_function: request.digest_function,
        };
        let content = Content {
            digest: request.blob_digest,
            digest_field: "blob_digest",
            blobs: request.references_blobs,
            directories: request.references_directories,
            expire_at: request.expire_at,
        };
        self.store(naming, content).await?;
        Ok(Response::new(asset::PushBlobResponse {}))
    }

    async fn push_directory(
        &self,
        request: Request<asset::PushDirectoryRequest>,
    ) -> Result<Response<asset::PushDirectoryResponse>, Status> {
        let request = request.into_inner();
        let naming = Naming {
            kind: AssetKind::Directory,
            instance_name: request.instance_name,
            uris: request.uris,
            qualifiers: request.qualifiers,
            digest_function: request.digest_function,
        };
        let content = Content {
            digest: request.root_directory_digest,
            digest_field: "root_directory_digest",
            blobs: request.references_blobs,
            directories: request.references_directories,
            expire_at: request.expire_at,
        };
        self.store(naming, content).await?;
        Ok(Response::new(asset::PushDirectoryResponse {}))
    }
}
