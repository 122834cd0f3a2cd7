//! Where each tenant's blobs come from and go to.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use regatta_cas::{
    BlobStore, DiskTier, DiskTierSettings, EmptyBlobStore, GrpcBlobStore, PinnedFile, StoreError,
};
use regatta_model::{Digest, TenantId};
use tokio::sync::OnceCell;
use tonic::transport::Channel;

/// How many tenants' caches are open at once; beyond that, those that nobody uses are closed.
const OPEN_TENANTS: usize = 64;

/// What every tenant's store has in common.
#[derive(Clone, Debug)]
pub(crate) struct BlobSettings {
    pub(crate) channel: Channel,
    /// Has a directory for each tenant.
    pub(crate) directory: PathBuf,
    /// For each tenant.
    pub(crate) quota_bytes: u64,
    pub(crate) minimum_free_bytes: u64,
}

/// The stores of all tenants. They share a connection, never a blob: what one tenant has cached says
/// nothing about what another may read.
#[derive(Clone, Debug)]
pub(crate) struct TenantStores {
    settings: Arc<BlobSettings>,
    open: Arc<Mutex<BTreeMap<TenantId, Arc<OnceCell<TenantStore>>>>>,
}

/// The store of one tenant: the coordinator's, and a cache of files in front of it.
#[derive(Clone, Debug)]
pub(crate) struct TenantStore {
    remote: Arc<dyn BlobStore>,
    cache: Arc<DiskTier>,
}

impl TenantStores {
    pub(crate) fn new(settings: BlobSettings) -> Self {
        Self {
            settings: Arc::new(settings),
            open: Arc::default(),
        }
    }

    /// The store of a tenant, opened now unless it is already.
    pub(crate) async fn of(&self, tenant: &TenantId) -> Result<TenantStore, StoreError> {
        let cell = self.cell(tenant);
        cell.get_or_try_init(|| self.open(tenant)).await.cloned()
    }

    /// Removes cached files until there is enough room on the disk, as far as that goes.
    pub(crate) async fn make_room(&self) {
        let caches: Vec<_> = self
            .open_tenants()
            .values()
            .filter_map(|cell| cell.get())
            .map(|store| Arc::clone(&store.cache))
            .collect();
        for cache in caches {
            let made = tokio::task::spawn_blocking(move || cache.make_room()).await;
            if let Ok(Err(error)) = made {
                tracing::warn!(%error, "the blob cache cannot make enough room");
            }
        }
    }

    fn cell(&self, tenant: &TenantId) -> Arc<OnceCell<TenantStore>> {
        let mut open = self.open_tenants();
        if open.len() >= OPEN_TENANTS && !open.contains_key(tenant) {
            open.retain(|_, cell| Arc::strong_count(cell) > 1 || is_used(cell));
        }
        Arc::clone(open.entry(tenant.clone()).or_default())
    }

    async fn open(&self, tenant: &TenantId) -> Result<TenantStore, StoreError> {
        let remote = GrpcBlobStore::new(self.settings.channel.clone(), tenant.as_str());
        let remote: Arc<dyn BlobStore> = Arc::new(EmptyBlobStore::new(Arc::new(remote)));
        let settings = DiskTierSettings {
            // A tenant's name may hold anything; its hash is a name for a directory.
            directory: self
                .settings
                .directory
                .join(Digest::of(tenant.as_str().as_bytes()).hash_hex()),
            capacity_bytes: self.settings.quota_bytes,
            min_free_bytes: self.settings.minimum_free_bytes,
        };
        let below = Arc::clone(&remote);
        let opened = tokio::task::spawn_blocking(move || DiskTier::open(below, settings)).await;
        let opened = opened.unwrap_or_else(|panic| {
            Err(StoreError::Unavailable {
                detail: format!("opening the cache: {panic}"),
            })
        });
        Ok(TenantStore {
            remote,
            cache: Arc::new(opened?),
        })
    }

    fn open_tenants(&self) -> MutexGuard<'_, BTreeMap<TenantId, Arc<OnceCell<TenantStore>>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_used(cell: &OnceCell<TenantStore>) -> bool {
    cell.get()
        .is_some_and(|store| Arc::strong_count(&store.cache) > 1)
}

impl TenantStore {
    /// Where results go.
    pub(crate) fn remote(&self) -> Arc<dyn BlobStore> {
        Arc::clone(&self.remote)
    }

    /// Where inputs come from.
    pub(crate) fn cache(&self) -> &dyn BlobStore {
        &*self.cache
    }

    /// An input as a file, fetched now unless it is there already.
    pub(crate) async fn file(
        &self,
        digest: &Digest,
        executable: bool,
    ) -> Result<PinnedFile, StoreError> {
        self.cache.file(digest, executable).await
    }
}
