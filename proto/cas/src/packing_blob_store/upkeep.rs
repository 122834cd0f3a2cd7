//! Packs that are dead go, and what lives in small and half-empty ones is put together.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use regatta_model::{Digest, PlantedBug};

use super::index::{KnownPack, PackIndex};
use super::limits::Limits;
use super::pack::{Fact, PackDraft};
use super::packs::{Freshness, Packs};
use super::version::{Version, now_s};
use crate::whole_blob::{Collected, collect_up_to};
use crate::{BlobRange, StoreError};

/// How many packs are deleted at a time.
const DELETE_CONCURRENCY: usize = 16;
/// How often in a row it is looked for more to do.
const MAX_ROUNDS: usize = 16;

/// What there is to tidy up.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Whether it is worth its requests.
    pub(super) is_due: bool,
    /// Packs of which nothing counts.
    dead: Vec<Digest>,
    /// Packs whose live records fit into one.
    sources: Vec<Digest>,
}

impl Plan {
    pub(super) fn of(index: &PackIndex, limits: &Limits) -> Self {
        let mut plan = Self::default();
        let (mut sparse, mut small) = (Vec::new(), Vec::new());
        let mut is_large_dead = false;
        for known in index.packs() {
            if known.live == 0 {
                is_large_dead |= is_large(known, limits);
                plan.dead.push(known.pack.digest);
            } else if known.is_damaged {
                // Its blobs are read one by one, as long as they can be.
            } else if is_sparse(known, limits) {
                sparse.push(known);
            } else if is_small(known, limits) {
                small.push(known);
            }
        }
        let many = plan.dead.len() + small.len() >= limits.merged_packs;
        plan.is_due = is_large_dead || !sparse.is_empty() || many;
        if small.len() < limits.merged_packs {
            small.clear();
        }
        plan.sources = fitting(sparse.into_iter().chain(small), limits);
        plan
    }

    fn is_empty(&self) -> bool {
        self.dead.is_empty() && self.sources.is_empty()
    }
}

fn is_large(known: &KnownPack, limits: &Limits) -> bool {
    let (bytes, records) = limits.small();
    known.pack.values_bytes() >= bytes || known.pack.len() >= records
}

fn is_small(known: &KnownPack, limits: &Limits) -> bool {
    let (bytes, records) = limits.small();
    known.live_bytes < bytes && known.live < records
}

/// Whether a large pack is worth rewriting for what no longer counts in it.
fn is_sparse(known: &KnownPack, limits: &Limits) -> bool {
    let (bytes, records) = limits.small();
    let (all_bytes, all) = (known.pack.values_bytes(), known.pack.len());
    let few_bytes = all_bytes >= bytes && known.live_bytes * 2 < all_bytes;
    let expired = expired_records(known, limits);
    let few = all >= records && known.live.saturating_sub(expired) * 2 < all;
    few_bytes || few
}

/// How many records need not be kept for their age; none if one of them must.
fn expired_records(known: &KnownPack, limits: &Limits) -> usize {
    let since_s = known.forgotten_since_s;
    match since_s.is_some_and(|since_s| is_expired(since_s, limits)) {
        true => known.pack.forgotten(),
        false => 0,
    }
}

fn is_expired(since_s: u32, limits: &Limits) -> bool {
    u64::from(now_s().saturating_sub(since_s)) >= limits.forgotten_for.as_secs()
}

/// The first packs that fit into one.
fn fitting<'a>(packs: impl Iterator<Item = &'a KnownPack>, limits: &Limits) -> Vec<Digest> {
    let (mut bytes, mut records) = (0, 0);
    let fits = packs.take_while(|known| {
        bytes += known.live_bytes;
        records += known.live;
        bytes <= limits.max_pack_bytes && records <= limits.max_records
    });
    fits.map(|known| known.pack.digest).collect()
}

/// A record that is to be in the new pack.
struct Carried {
    key: Digest,
    version: Version,
    fact: Fact,
}

impl Packs {
    /// Deletes and rewrites packs as long as there is something to do.
    ///
    /// What lives is in a new pack before the old one is deleted: whatever is cut off in between leaves copies,
    /// of which everybody counts the same one.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] and [`StoreError::Full`]; nothing is lost, and it can be tried again.
    pub(super) async fn keep_up(self: &Arc<Self>) -> Result<(), StoreError> {
        let _turn = self.upkeep.lock().await;
        // Others may have done it already.
        self.refresh(Freshness::Now).await?;
        for _ in 0..MAX_ROUNDS {
            let plan = Plan::of(&self.index(), &self.limits);
            if plan.is_empty() {
                break;
            }
            self.delete_packs(&plan.dead).await?;
            if !plan.sources.is_empty() {
                self.rewrite(&plan.sources).await?;
            }
        }
        Ok(())
    }

    async fn delete_packs(&self, names: &[Digest]) -> Result<(), StoreError> {
        let allowed = self.deletions();
        let allowed = &allowed;
        let delete = |name| async move {
            let deleted = allowed.while_allowed(self.store.delete(&name)).await;
            deleted.map(|()| name)
        };
        let mut deletions = futures::stream::iter(names.to_vec())
            .map(delete)
            .buffer_unordered(DELETE_CONCURRENCY);
        let mut deleted = Vec::new();
        let mut failed = Ok(());
        while let Some(deletion) = deletions.next().await {
            match deletion {
                Ok(name) => deleted.push(name),
                Err(error) => failed = Err(error),
            }
        }
        self.index().remove(&deleted);
        failed
    }

    async fn rewrite(&self, sources: &[Digest]) -> Result<(), StoreError> {
        let generation = self.generation_after(sources);
        let mut draft = PackDraft::new(generation);
        let mut rewritten = Vec::new();
        for source in sources {
            if let Some(values) = self.values_of(source).await? {
                if !self.carry(source, &values, &mut draft) {
                    break;
                }
                rewritten.push(*source);
            }
        }
        if draft.len() > 0 && !PlantedBug::LivePacksDeleted.is_planted() {
            let (pack, pieces) = draft.seal();
            let body = futures::stream::iter(pieces).map(Ok).boxed();
            self.store.put(&pack.digest, body).await?;
            self.index().insert(pack);
        }
        self.delete_packs(&rewritten).await
    }

    fn generation_after(&self, sources: &[Digest]) -> u32 {
        let index = self.index();
        let packs = sources.iter().filter_map(|name| index.pack(name));
        let generations = packs.map(|known| known.pack.generation);
        generations.max().map_or(1, |last| last.saturating_add(1))
    }

    /// All values of a pack in one request, if they are what they were; nothing is asked if none is needed.
    async fn values_of(&self, name: &Digest) -> Result<Option<Bytes>, StoreError> {
        let live_stored = self.index().pack(name).map(|known| known.live_stored);
        match live_stored {
            None => return Ok(None),
            Some(0) => return Ok(Some(Bytes::new())),
            Some(_) => {}
        }
        let body = match self.store.get(name, BlobRange::ALL).await {
            Ok(body) => body,
            Err(StoreError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        match collect_up_to(body, name.size_bytes()).await? {
            Collected::Whole(values) if Digest::of(&values) == *name => Ok(Some(values)),
            Collected::Whole(_) | Collected::TooLarge { .. } => {
                tracing::error!(pack = %name, "a pack is damaged; it is not rewritten");
                self.index().mark_damaged(name);
                Ok(None)
            }
        }
    }

    /// Puts the live records of a pack into the draft, if there is room: more of them may count than when that was
    /// planned, because another pack went away. Nobody could read a pack with too many.
    fn carry(&self, source: &Digest, values: &Bytes, draft: &mut PackDraft) -> bool {
        let index = self.index();
        let carried = carried_from(&index, source);
        if draft.len() > 0 && draft.len() + carried.len() > self.limits.max_records {
            return false;
        }
        let expired = carried.iter().filter(|record| match record.fact {
            Fact::Forgotten { since_s } => is_expired(since_s, &self.limits),
            Fact::Stored { .. } | Fact::Elsewhere => false,
        });
        let expired: HashSet<Digest> = expired.map(|record| record.key).collect();
        let needed = match expired.is_empty() {
            true => HashSet::new(),
            // Also those in the sources: any of them may outlive the others.
            false => index.with_values(&expired),
        };
        for Carried { key, version, fact } in carried {
            match fact {
                Fact::Stored { start, end } => {
                    // Copied, so that the whole old pack does not stay in memory.
                    if let Some(value) = values.get(start as usize..end as usize) {
                        draft.store(key, version, Bytes::copy_from_slice(value));
                    }
                }
                Fact::Elsewhere => draft.say_elsewhere(key, version),
                Fact::Forgotten { since_s } if !expired.contains(&key) => {
                    draft.forget(key, version, since_s);
                }
                Fact::Forgotten { .. } if needed.contains(&key) => {
                    draft.forget(key, version, now_s());
                }
                Fact::Forgotten { .. } => {}
            }
        }
        true
    }
}

fn carried_from(index: &PackIndex, source: &Digest) -> Vec<Carried> {
    let Some(known) = index.pack(source) else {
        return Vec::new();
    };
    let live = index.live(source);
    let carried = live.into_iter().map(|nth| Carried {
        key: known.pack.key(nth),
        version: known.pack.version(nth),
        fact: known.pack.fact(nth),
    });
    carried.collect()
}
