//! Where each tenant's blobs come from and go to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use regatta_cas::{
    BlobStore, DiskCache, DiskTier, EmptyBlobStore, GrpcBlobStore, MemoryTier, PinnedFile,
    StoreError, VerifyingBlobStore,
};
use regatta_model::{Digest, TenantId};
use tonic::transport::Channel;

/// How many tenants' stores are open at once; beyond that, those that nobody uses are closed.
const OPEN_TENANTS: usize = 64;
/// How much memory the directories of a tenant's input roots may take, in bytes: some 7,500 of them.
const DIRECTORIES_BYTES: u64 = 4 << 20;
/// The largest directory that is kept in memory, in bytes.
const DIRECTORY_BYTES: u64 = 256 << 10;
/// How much more than its size a file may take up on a disk, in bytes.
const FILE_OVERHEAD_BYTES: u64 = 4 << 10;

/// The stores of all tenants. They share a connection and the quota of one cache, never a blob: what one
/// tenant has cached says nothing about what another may read.
#[derive(Clone, Debug)]
pub(crate) struct TenantStores {
    channel: Channel,
    cache: DiskCache,
    cache_bytes: u64,
    open: Arc<Mutex<BTreeMap<TenantId, Arc<TenantStore>>>>,
}

/// The store of one tenant: the coordinator's, and in front of it a cache of files, and one in memory for
/// directories, which no job needs as files.
#[derive(Debug)]
pub(crate) struct TenantStore {
    remote: Arc<dyn BlobStore>,
    directories: MemoryTier,
    files: DiskTier,
    cache_bytes: u64,
}

impl TenantStores {
    /// Stores behind a cache for so many bytes.
    pub(crate) fn new(channel: Channel, (cache, cache_bytes): (DiskCache, u64)) -> Self {
        Self {
            channel,
            cache,
            cache_bytes,
            open: Arc::default(),
        }
    }

    /// The store of a tenant, opened now unless it is already.
    pub(crate) fn of(&self, tenant: &TenantId) -> Arc<TenantStore> {
        let mut open = self.open_tenants();
        if let Some(store) = open.get(tenant) {
            return Arc::clone(store);
        }
        if open.len() >= OPEN_TENANTS {
            open.retain(|_, store| Arc::strong_count(store) > 1);
        }
        let store = Arc::new(self.open(tenant));
        open.insert(tenant.clone(), Arc::clone(&store));
        store
    }

    /// Removes cached files, whoever's they are, until there is enough room on the disk, as far as that
    /// goes.
    pub(crate) async fn make_room(&self) {
        let cache = self.cache.clone();
        let made = tokio::task::spawn_blocking(move || cache.make_room()).await;
        if let Ok(Err(error)) = made {
            tracing::warn!(%error, "the blob cache cannot make enough room");
        }
    }

    /// How much disk space the cached files take, in bytes.
    pub(crate) fn cached_bytes(&self) -> u64 {
        self.cache.usage().used_bytes
    }

    fn open(&self, tenant: &TenantId) -> TenantStore {
        let server = Arc::new(GrpcBlobStore::new(self.channel.clone(), tenant.as_str()));
        let remote: Arc<dyn BlobStore> = Arc::new(EmptyBlobStore::new(Arc::clone(&server) as _));
        let owner = Digest::of(tenant.as_str().as_bytes());
        let files = self.cache.tier(Arc::clone(&remote), &owner);
        let files = files.with_chunks(server);
        // What is kept must be right: it would be wrong for as long as it is used.
        let verified = VerifyingBlobStore::new(Arc::clone(&remote)).without_quarantine();
        let directories = MemoryTier::new(Arc::new(verified), DIRECTORIES_BYTES, DIRECTORY_BYTES);
        TenantStore {
            remote,
            directories,
            files,
            cache_bytes: self.cache_bytes,
        }
    }

    fn open_tenants(&self) -> MutexGuard<'_, BTreeMap<TenantId, Arc<TenantStore>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TenantStore {
    /// Where results go.
    pub(crate) fn remote(&self) -> Arc<dyn BlobStore> {
        Arc::clone(&self.remote)
    }

    /// Where the directories of input roots come from.
    pub(crate) fn directories(&self) -> &dyn BlobStore {
        &self.directories
    }

    /// An input as a file, fetched now unless it is there already.
    pub(crate) async fn file(
        &self,
        digest: &Digest,
        executable: bool,
    ) -> Result<PinnedFile, StoreError> {
        let had = self.files.file(digest, executable).await;
        had.map_err(|error| match error {
            StoreError::Full { .. } => self.too_small_for(digest.size_bytes()).unwrap_or(error),
            other => other,
        })
    }

    /// What is wrong if the cache cannot even hold a file of this size alone.
    fn too_small_for(&self, size_bytes: u64) -> Option<StoreError> {
        let cache_bytes = self.cache_bytes;
        let needed_bytes = size_bytes.saturating_add(FILE_OVERHEAD_BYTES);
        (needed_bytes > cache_bytes).then(|| StoreError::Full {
            detail: format!(
                "the agent's cache has {cache_bytes} bytes for inputs, half of its --cache-quota, and one of \
                 {size_bytes} does not fit; start the agent with a --cache-quota of {} or more",
                needed_bytes.saturating_mul(2)
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use regatta_cas::{DiskCacheSettings, MemoryBlobStore, put_bytes};

    use super::*;

    /// Puts an input in front of a cache of 1 MiB, and has it as a file.
    async fn file_of(bytes: usize) -> Result<PinnedFile, StoreError> {
        let directory = tempfile::tempdir().unwrap();
        let capacity_bytes = 1 << 20;
        let cache = DiskCache::open(DiskCacheSettings {
            directory: directory.path().to_owned(),
            capacity_bytes,
            min_free_bytes: 0,
        });
        let remote: Arc<dyn BlobStore> = Arc::new(MemoryBlobStore::new());
        let digest = put_bytes(&*remote, vec![7; bytes].into()).await.unwrap();
        let store = TenantStore {
            files: cache
                .unwrap()
                .tier(Arc::clone(&remote), &Digest::of(b"tenant")),
            directories: MemoryTier::new(Arc::clone(&remote), DIRECTORIES_BYTES, DIRECTORY_BYTES),
            remote,
            cache_bytes: capacity_bytes,
        };
        store.file(&digest, false).await
    }

    #[tokio::test]
    async fn an_input_that_the_cache_cannot_hold_names_the_quota_that_can() {
        file_of((1 << 20) - 4096).await.unwrap();
        let error = file_of(14_000_128).await.unwrap_err().to_string();
        let expected = format!("--cache-quota of {} or more", 2 * (14_000_128 + 4096));
        assert!(error.contains(&expected), "{error}");
        assert!(error.contains("the agent's cache"), "{error}");
    }
}
