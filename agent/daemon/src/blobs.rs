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

/// The stores of all tenants. They share a connection and the quota of one cache, never a blob: what one
/// tenant has cached says nothing about what another may read.
#[derive(Clone, Debug)]
pub(crate) struct TenantStores {
    channel: Channel,
    cache: DiskCache,
    open: Arc<Mutex<BTreeMap<TenantId, Arc<TenantStore>>>>,
}

/// The store of one tenant: the coordinator's, and in front of it a cache of files, and one in memory for
/// directories, which no job needs as files.
#[derive(Debug)]
pub(crate) struct TenantStore {
    remote: Arc<dyn BlobStore>,
    directories: MemoryTier,
    files: DiskTier,
}

impl TenantStores {
    pub(crate) fn new(channel: Channel, cache: DiskCache) -> Self {
        Self {
            channel,
            cache,
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
        self.files.file(digest, executable).await
    }
}
