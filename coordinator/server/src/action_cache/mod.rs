//! Results by the digest of the action that they belong to.

mod completeness;
mod entry;
mod inlining;
mod service;
mod tree_closure;
mod tree_reader;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use prost::Message as _;
use regatta_cas::{BlobStore, StoreError, read_all, stream_of};
use regatta_model::{Digest, PlantedBug, TenantId};
use regatta_wire::reapi::ActionResult;

use crate::action_plan::PlanDefaults;
use crate::cas::find_missing;
use crate::recently_used::RecentlyUsed;
use crate::status;

pub use completeness::InvalidResultError;
use completeness::{ClosureError, References};
use entry::{MAX_ENTRY_SIZE_BYTES, key_of, open_entry, seal_entry};
pub(crate) use inlining::{InlineRequest, inline_outputs};
pub(crate) use service::{ActionCacheService, tenant_of};
pub use tree_closure::InvalidTreeError;

/// How much memory the results that were used last may take, in bytes.
const REMEMBERED_BYTES: usize = 8 << 20;
/// How many entries are read from the store at once.
const CONCURRENT_READS: usize = 32;

/// The action cache: a keyed store of results, each served only while every blob that it names is there.
///
/// Entries of one tenant are invisible to every other: the tenant is part of the key, and so is what
/// the coordinator's configuration adds to its actions.
#[derive(Debug)]
pub struct ActionCache {
    entries: Arc<dyn BlobStore>,
    blobs: Arc<dyn BlobStore>,
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
        entries: Arc<dyn BlobStore>,
        blobs: Arc<dyn BlobStore>,
        defaults: PlanDefaults,
    ) -> Self {
        Self {
            entries,
            blobs,
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
        let found: Vec<Option<Arc<Remembered>>> = stream::iter(keys.clone())
            .map(|key| async move { self.load(&key).await })
            .buffered(CONCURRENT_READS)
            .try_collect()
            .await?;
        let missing = self.missing_of(&found).await?;
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
                    self.remove_key(key).await;
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
        let references = self.references_of(&result).await?;
        let key = self.key(tenant, action);
        let sealed =
            seal_entry(&result).map_err(|size_bytes| PutResultError::TooLarge { size_bytes })?;
        self.entries.put(&key, stream_of(sealed)).await?;
        // An entry whose trees are not there yet is looked at again when it is asked for.
        if let Some(references) = references {
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
        self.entries.delete(&key).await
    }

    fn key(&self, tenant: &TenantId, action: &Digest) -> Digest {
        key_of(tenant, &self.defaults.fingerprint(tenant), action)
    }

    async fn load(&self, key: &Digest) -> Result<Option<Arc<Remembered>>, StoreError> {
        let remembered = self.lock().get(key).map(Arc::clone);
        if remembered.is_some() {
            return Ok(remembered);
        }
        let sealed = match read_all(self.entries.as_ref(), key, MAX_ENTRY_SIZE_BYTES).await {
            Ok(sealed) => sealed,
            Err(StoreError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some(result) = open_entry(&sealed) else {
            tracing::error!(%key, "an action result is damaged; it is forgotten");
            self.remove_key(key).await;
            return Ok(None);
        };
        let references = match self.references_of(&result).await {
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
                self.remove_key(key).await;
                Ok(None)
            }
        }
    }

    /// Everything that a result refers to; `None` if that is not there.
    async fn references_of(
        &self,
        result: &ActionResult,
    ) -> Result<Option<Vec<Digest>>, ClosureError> {
        let direct = References::of(result).map_err(ClosureError::Invalid)?;
        direct.with_trees(self.blobs.as_ref()).await
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

    async fn missing_of(
        &self,
        found: &[Option<Arc<Remembered>>],
    ) -> Result<HashSet<Digest>, StoreError> {
        let named: HashSet<Digest> = found
            .iter()
            .flatten()
            .flat_map(|entry| entry.references.iter().copied())
            .collect();
        let named: Vec<Digest> = named.into_iter().collect();
        Ok(find_missing(self.blobs.as_ref(), &named)
            .await?
            .into_iter()
            .collect())
    }

    /// Removes an entry that cannot be served; if that fails it is found out again next time.
    async fn remove_key(&self, key: &Digest) {
        self.lock().remove(key);
        if let Err(error) = self.entries.delete(key).await {
            tracing::warn!(%key, %error, "could not remove an action result");
        }
    }

    fn lock(&self) -> MutexGuard<'_, RecentlyUsed<Digest, Arc<Remembered>>> {
        self.remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn count_lookups(results: &[Option<Arc<ActionResult>>]) {
    let hits = results.iter().flatten().count() as u64;
    metrics::counter!("regatta_action_cache_hits_total").increment(hits);
    metrics::counter!("regatta_action_cache_misses_total").increment(results.len() as u64 - hits);
}

#[cfg(test)]
mod tests;
