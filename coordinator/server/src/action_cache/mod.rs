//! Results by the digest of the action that they belong to.

mod completeness;
mod entry;
mod inlining;
mod service;
mod stores;
mod tree_closure;
mod tree_reader;

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use prost::Message as _;
use regatta_cas::{BlobStore, StoreError, read_all, stream_of};
use regatta_model::{Digest, PlantedBug, TenantId};
use regatta_wire::reapi::ActionResult;

use crate::action_plan::PlanDefaults;
use crate::cas::{TenantViews, find_missing};
use crate::recently_used::RecentlyUsed;
use crate::status;

pub use completeness::InvalidResultError;
use completeness::{ClosureError, References};
use entry::{MAX_ENTRY_SIZE_BYTES, key_of, open_entry, seal_entry};
pub(crate) use inlining::{InlineRequest, inline_outputs};
pub(crate) use service::{ActionCacheService, tenant_of};
use stores::Stores;
pub use tree_closure::InvalidTreeError;
use tree_closure::TreeError;

/// How much memory the results that were used last may take, in bytes: those of a suite of 60,000 tests, which asks for
/// all of them in turn, so that of a larger one none would be there.
const REMEMBERED_BYTES: usize = 24 << 20;
/// How many entries are read from the store at once.
const CONCURRENT_READS: usize = 32;

/// The action cache: a keyed store of results, each served only while every blob that it names is there.
///
/// Entries of one tenant are invisible to every other: the tenant is part of the key, and so is what
/// the coordinator's configuration adds to its actions.
#[derive(Debug)]
pub struct ActionCache {
    entries: TenantViews<dyn BlobStore>,
    blobs: TenantViews<dyn BlobStore>,
    defaults: PlanDefaults,
    remembered: Mutex<RecentlyUsed<Digest, Arc<Remembered>>>,
}

/// A result with every digest it refers to, those inside its trees included.
#[derive(Debug)]
struct Remembered {
    result: Arc<ActionResult>,
    references: Vec<Digest>,
}

/// Why a result was not stored.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PutResultError {
    /// The result itself is wrong. Fix it.
    #[error(transparent)]
    Invalid(#[from] InvalidResultError),
    /// It has too much in it. Let it name blobs instead of holding them.
    #[error("the action result has {size_bytes} bytes, at most {MAX_ENTRY_SIZE_BYTES} fit")]
    TooLarge {
        /// Its size in bytes.
        size_bytes: usize,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<ClosureError> for PutResultError {
    fn from(error: ClosureError) -> Self {
        match error {
            ClosureError::Store(error) => Self::Store(error),
            ClosureError::Invalid(error) => Self::Invalid(error),
        }
    }
}

impl ActionCache {
    /// A cache whose results are in `entries`, a keyed store, and refer to `blobs`. Results of actions that
    /// ran under other `defaults` are not found.
    #[must_use]
    pub fn new(
        entries: impl Into<TenantViews<dyn BlobStore>>,
        blobs: impl Into<TenantViews<dyn BlobStore>>,
        defaults: PlanDefaults,
    ) -> Self {
        Self {
            entries: entries.into(),
            blobs: blobs.into(),
            defaults,
            remembered: Mutex::new(RecentlyUsed::new(REMEMBERED_BYTES)),
        }
    }

    /// The result of an action, if there is one and every blob it names is present. Those blobs count as
    /// used. An entry that is not complete is removed.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] and the like: it is not known whether there is one.
    pub async fn get(
        &self,
        tenant: &TenantId,
        action: &Digest,
    ) -> Result<Option<Arc<ActionResult>>, StoreError> {
        let mut found = self.get_many(tenant, std::slice::from_ref(action)).await?;
        Ok(found.pop().flatten())
    }

    /// The results of many actions, in the order given; see [`ActionCache::get`]. Costs one question for
    /// the presence of all blobs together, and a read for each entry that was not used lately.
    ///
    /// # Errors
    /// As [`ActionCache::get`].
    pub async fn get_many(
        &self,
        tenant: &TenantId,
        actions: &[Digest],
    ) -> Result<Vec<Option<Arc<ActionResult>>>, StoreError> {
        let unsaid = self.defaults.fingerprint(tenant);
        let keys: Vec<Digest> = actions
            .iter()
            .map(|action| key_of(tenant, &unsaid, action))
            .collect();
        let stores = self.stores_of(tenant);
        let stores = &stores;
        let mut found: Vec<Option<Arc<Remembered>>> = stream::iter(keys.clone())
            .map(|key| async move { self.load(stores, &key).await })
            .buffered(CONCURRENT_READS)
            .try_collect()
            .await?;
        // Entries are used before what they name, so that they go before it.
        self.use_entries(stores, &keys, &mut found).await?;
        let missing = stores.missing_of(&found).await?;
        let mut results = Vec::with_capacity(keys.len());
        for (key, found) in keys.iter().zip(found) {
            results.push(match found {
                Some(entry)
                    if !PlantedBug::CompletenessSkipped.is_planted()
                        && entry
                            .references
                            .iter()
                            .any(|digest| missing.contains(digest)) =>
                {
                    if stores.is_gone(&entry.references, &missing).await {
                        self.remove_key(stores, key).await;
                    }
                    None
                }
                Some(entry) => Some(Arc::clone(&entry.result)),
                None => None,
            });
        }
        count_lookups(&results);
        Ok(results)
    }

    /// Whether the result of an action is in memory, as it is just after it was put. Costs no request.
    pub(crate) fn remembers(&self, tenant: &TenantId, action: &Digest) -> bool {
        self.lock().get(&self.key(tenant, action)).is_some()
    }

    /// Remembers the result of an action, instead of any other that it had.
    ///
    /// # Errors
    /// [`PutResultError`]; then what was there before is still there.
    pub async fn put(
        &self,
        tenant: &TenantId,
        action: &Digest,
        result: ActionResult,
    ) -> Result<(), PutResultError> {
        let stores = self.stores_of(tenant);
        let references = stores.references_of(&result).await?;
        let key = self.key(tenant, action);
        let sealed =
            seal_entry(&result).map_err(|size_bytes| PutResultError::TooLarge { size_bytes })?;
        stores.entries.put(&key, stream_of(sealed)).await?;
        // An entry whose trees are not there yet is looked at again when it is asked for.
        if let Some(references) = references {
            // After the entry, which is to go before them. What is missing is found out when it is asked for.
            find_missing(stores.blobs.as_ref(), &references).await?;
            self.remember(key, result, references);
        }
        Ok(())
    }

    /// Forgets the result of an action.
    ///
    /// # Errors
    /// Those of [`BlobStore::delete`].
    pub async fn remove(&self, tenant: &TenantId, action: &Digest) -> Result<(), StoreError> {
        let key = self.key(tenant, action);
        self.lock().remove(&key);
        self.entries.of(tenant).delete(&key).await
    }

    /// Has everything that a result refers to stay for a while longer.
    ///
    /// # Errors
    /// Those of [`BlobStore::find_missing`]; what cannot be looked at is passed over.
    pub(crate) async fn renew(
        &self,
        tenant: &TenantId,
        result: &ActionResult,
    ) -> Result<(), StoreError> {
        let stores = self.stores_of(tenant);
        match stores.references_of(result).await {
            Ok(references) => {
                find_missing(stores.blobs.as_ref(), &references.unwrap_or_default()).await?;
                Ok(())
            }
            Err(ClosureError::Store(error)) => Err(error),
            Err(ClosureError::Invalid(_)) => Ok(()),
        }
    }

    fn stores_of(&self, tenant: &TenantId) -> Stores {
        Stores {
            entries: self.entries.of(tenant),
            blobs: self.blobs.of(tenant),
        }
    }

    /// Counts a use of entries that are served, and drops those that are gone from the store: they are only
    /// remembered.
    async fn use_entries(
        &self,
        stores: &Stores,
        keys: &[Digest],
        found: &mut [Option<Arc<Remembered>>],
    ) -> Result<(), StoreError> {
        let pairs = keys.iter().zip(&*found);
        let used = pairs.filter(|(_, entry)| entry.is_some());
        let used: BTreeSet<Digest> = used.map(|(key, _)| *key).collect();
        let used: Vec<Digest> = used.into_iter().collect();
        let gone = find_missing(stores.entries.as_ref(), &used).await?;
        let gone: HashSet<Digest> = gone.into_iter().collect();
        for (key, entry) in keys.iter().zip(found) {
            if gone.contains(key) {
                self.lock().remove(key);
                *entry = None;
            }
        }
        Ok(())
    }

    fn key(&self, tenant: &TenantId, action: &Digest) -> Digest {
        key_of(tenant, &self.defaults.fingerprint(tenant), action)
    }

    async fn load(
        &self,
        stores: &Stores,
        key: &Digest,
    ) -> Result<Option<Arc<Remembered>>, StoreError> {
        let remembered = self.lock().get(key).map(Arc::clone);
        if remembered.is_some() {
            return Ok(remembered);
        }
        let sealed = match read_all(stores.entries.as_ref(), key, MAX_ENTRY_SIZE_BYTES).await {
            Ok(sealed) => sealed,
            Err(StoreError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some(result) = open_entry(&sealed) else {
            // It may be whole in the store, and spoilt on its way; the next result takes its place.
            tracing::error!(%key, "an action result is damaged and counts as absent");
            return Ok(None);
        };
        let references = match stores.references_of(&result).await {
            Ok(references) => references,
            Err(ClosureError::Store(error)) => return Err(error),
            Err(ClosureError::Invalid(error)) => {
                let error = status::with_sources(&error);
                tracing::warn!(%key, error, "an action result is wrong; it is forgotten");
                None
            }
        };
        match references {
            Some(references) => Ok(Some(self.remember(*key, result, references))),
            None => {
                self.remove_key(stores, key).await;
                Ok(None)
            }
        }
    }

    fn remember(
        &self,
        key: Digest,
        result: ActionResult,
        references: Vec<Digest>,
    ) -> Arc<Remembered> {
        let weight = 256 + result.encoded_len() + references.len() * size_of::<Digest>();
        let entry = Arc::new(Remembered {
            result: Arc::new(result),
            references,
        });
        self.lock().insert(key, Arc::clone(&entry), weight);
        entry
    }

    /// Removes an entry that cannot be served; if that fails it is found out again next time.
    async fn remove_key(&self, stores: &Stores, key: &Digest) {
        self.lock().remove(key);
        if let Err(error) = stores.entries.delete(key).await {
            tracing::warn!(%key, %error, "could not remove an action result");
        }
    }

    fn lock(&self) -> MutexGuard<'_, RecentlyUsed<Digest, Arc<Remembered>>> {
        self.remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// An entry as it is stored.
#[cfg(test)]
pub(crate) fn seal_for_tests(result: &ActionResult) -> Bytes {
    seal_entry(result).unwrap()
}

/// What is wrong with a stored entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EntryFault {
    /// It is no entry, or what it names is no tree.
    Damaged,
    /// What it names is not there.
    Incomplete,
}

/// What is wrong with an entry that is stored like this, if anything.
pub(crate) async fn fault_of(
    sealed: &Bytes,
    blobs: &dyn BlobStore,
) -> Result<Option<EntryFault>, StoreError> {
    let Some(result) = open_entry(sealed) else {
        return Ok(Some(EntryFault::Damaged));
    };
    let references = match References::of(&result) {
        Ok(direct) => direct.with_trees(blobs).await,
        Err(error) => Err(ClosureError::Invalid(error)),
    };
    match references {
        Ok(None) => Ok(Some(EntryFault::Incomplete)),
        Ok(Some(references)) => {
            let missing = find_missing(blobs, &references).await?;
            Ok((!missing.is_empty()).then_some(EntryFault::Incomplete))
        }
        Err(ClosureError::Invalid(_)) => Ok(Some(EntryFault::Damaged)),
        Err(ClosureError::Store(error)) => Err(error),
    }
}

/// Why the files of a directory are not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FilesOfTreeError {
    /// The store failed, or does not have its `Tree`.
    #[error("its tree cannot be read")]
    Store(#[source] StoreError),
    /// It is none.
    #[error("it is no tree")]
    Invalid(#[source] InvalidTreeError),
}

/// The files of a stored `Tree`.
pub(crate) async fn files_of(
    blobs: &dyn BlobStore,
    tree: &Digest,
) -> Result<HashSet<Digest>, FilesOfTreeError> {
    let files = tree_closure::files_of_tree(blobs, tree, None).await;
    files.map_err(|error| match error {
        TreeError::Store(error) => FilesOfTreeError::Store(error),
        TreeError::Invalid(error) => FilesOfTreeError::Invalid(error),
    })
}

fn count_lookups(results: &[Option<Arc<ActionResult>>]) {
    let hits = results.iter().flatten().count() as u64;
    metrics::counter!("regatta_action_cache_hits_total").increment(hits);
    metrics::counter!("regatta_action_cache_misses_total").increment(results.len() as u64 - hits);
}

#[cfg(test)]
mod tests;
