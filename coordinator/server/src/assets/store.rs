//! Assets on disk or in a bucket.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use regatta_cas::{BlobStore, StoreError, read_all, stream_of};
use regatta_model::{Digest, Timestamp};
use regatta_wire::convert::{timestamp_from_wire, timestamp_to_wire};
use regatta_wire::reapi;

use super::key::{AssetKind, AssetScope};
use crate::cas::{DirectoryError, InputTreeError, InputTrees, TenantViews, find_missing};
use crate::sealed::{MAX_SEALED_SIZE_BYTES, seal, unseal};

/// What a URI leads to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Asset {
    /// The blob, or the root directory.
    pub(super) digest: Digest,
    /// Blobs that it is of no use without.
    pub(super) blobs: Vec<Digest>,
    /// Directories that it is of no use without, with all below them.
    pub(super) directories: Vec<Digest>,
    pub(super) pushed: Timestamp,
    pub(super) expires: Option<Timestamp>,
}

/// Why an asset was not stored.
#[derive(Debug, thiserror::Error)]
pub(super) enum PutAssetError {
    /// It refers to too much. Refer to directories instead of blobs.
    #[error("the asset has {size_bytes} bytes, at most {MAX_SEALED_SIZE_BYTES} fit")]
    TooLarge {
        /// Its size in bytes.
        size_bytes: usize,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A keyed store of assets, each given out only while everything it refers to is there.
#[derive(Debug)]
pub(crate) struct AssetStore {
    entries: TenantViews<dyn BlobStore>,
    blobs: TenantViews<dyn BlobStore>,
    trees: Arc<InputTrees>,
}

impl AssetStore {
    /// Keeps assets in `entries`, a keyed store; they refer to `blobs`, whose trees `trees` knows.
    pub(crate) fn new(
        entries: TenantViews<dyn BlobStore>,
        blobs: TenantViews<dyn BlobStore>,
        trees: Arc<InputTrees>,
    ) -> Self {
        Self {
            entries,
            blobs,
            trees,
        }
    }

    /// Keeps an asset as that of a URI.
    pub(super) async fn put(
        &self,
        scope: &AssetScope,
        uri: &str,
        asset: &Asset,
    ) -> Result<(), PutAssetError> {
        let sealed = seal(&StoredAsset::from(asset).encode_to_vec())
            .map_err(|size_bytes| PutAssetError::TooLarge { size_bytes })?;
        let entries = self.entries.of(&scope.tenant);
        entries.put(&scope.key_of(uri), stream_of(sealed)).await?;
        // After the entry, which is to go before them. What is missing is found out when it is asked for.
        self.is_whole(asset, scope).await?;
        Ok(())
    }

    /// The asset of a URI, if there is one and it has not expired, was pushed late enough and is whole.
    pub(super) async fn get(
        &self,
        scope: &AssetScope,
        uri: &str,
        now: Timestamp,
        oldest: Option<Timestamp>,
    ) -> Result<Option<Asset>, StoreError> {
        let (entries, key) = (self.entries.of(&scope.tenant), scope.key_of(uri));
        let sealed = match read_all(entries.as_ref(), &key, MAX_SEALED_SIZE_BYTES).await {
            Ok(sealed) => sealed,
            Err(StoreError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some(asset) = open(&sealed) else {
            tracing::error!(%key, "an asset is damaged; it is forgotten");
            entries.delete(&key).await?;
            return Ok(None);
        };
        let is_expired = asset.expires.is_some_and(|expires| expires <= now);
        let is_too_old = oldest.is_some_and(|oldest| asset.pushed < oldest);
        if is_expired || is_too_old || !self.is_whole(&asset, scope).await? {
            return Ok(None);
        }
        Ok(Some(asset))
    }

    async fn is_whole(&self, asset: &Asset, scope: &AssetScope) -> Result<bool, StoreError> {
        let mut blobs = asset.blobs.clone();
        let mut directories = asset.directories.clone();
        match scope.kind {
            AssetKind::Blob => blobs.push(asset.digest),
            AssetKind::Directory => directories.push(asset.digest),
        }
        let store = self.blobs.of(&scope.tenant);
        if !find_missing(store.as_ref(), &blobs).await?.is_empty() {
            return Ok(false);
        }
        for directory in directories {
            match self.trees.missing(directory).await {
                Ok(missing) if missing.is_empty() => {}
                Ok(_) => return Ok(false),
                Err(error) => return unless_malformed(error).map(|()| false),
            }
        }
        Ok(true)
    }
}

/// What is no tree is not whole; what cannot be looked at is not known.
fn unless_malformed(error: InputTreeError) -> Result<(), StoreError> {
    match error {
        InputTreeError::TooManyDirectories { .. } => Ok(()),
        InputTreeError::Directory { source, .. } => match *source {
            DirectoryError::Store(
                error @ (StoreError::Full { .. }
                | StoreError::Exhausted { .. }
                | StoreError::Away { .. }
                | StoreError::Unavailable { .. }),
            ) => Err(error),
            DirectoryError::Store(_)
            | DirectoryError::NotADirectory { .. }
            | DirectoryError::BadName { .. }
            | DirectoryError::BadDigest { .. }
            | DirectoryError::NotCanonical { .. }
            | DirectoryError::TooLarge { .. } => Ok(()),
        },
    }
}

/// An asset as it is stored.
#[derive(Clone, PartialEq, prost::Message)]
struct StoredAsset {
    #[prost(message, optional, tag = "1")]
    digest: Option<reapi::Digest>,
    #[prost(message, repeated, tag = "2")]
    blobs: Vec<reapi::Digest>,
    #[prost(message, repeated, tag = "3")]
    directories: Vec<reapi::Digest>,
    #[prost(message, optional, tag = "4")]
    pushed: Option<prost_types::Timestamp>,
    #[prost(message, optional, tag = "5")]
    expires: Option<prost_types::Timestamp>,
}

impl From<&Asset> for StoredAsset {
    fn from(asset: &Asset) -> Self {
        Self {
            digest: Some(asset.digest.into()),
            blobs: asset.blobs.iter().map(Into::into).collect(),
            directories: asset.directories.iter().map(Into::into).collect(),
            pushed: Some(timestamp_to_wire(asset.pushed)),
            expires: asset.expires.map(timestamp_to_wire),
        }
    }
}

/// Whether a value is an asset.
pub(crate) fn is_asset(sealed: &Bytes) -> bool {
    open(sealed).is_some()
}

fn open(sealed: &Bytes) -> Option<Asset> {
    let stored = StoredAsset::decode(unseal(sealed)?).ok()?;
    let digests = |messages: Vec<reapi::Digest>| -> Option<Vec<Digest>> {
        let digests = messages.into_iter().map(Digest::try_from);
        digests.collect::<Result<_, _>>().ok()
    };
    let time = |message: prost_types::Timestamp| timestamp_from_wire(&message).ok();
    Some(Asset {
        digest: Digest::try_from(stored.digest?).ok()?,
        blobs: digests(stored.blobs)?,
        directories: digests(stored.directories)?,
        pushed: time(stored.pushed?)?,
        expires: match stored.expires {
            Some(expires) => Some(time(expires)?),
            None => None,
        },
    })
}
