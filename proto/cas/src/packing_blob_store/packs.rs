//! The packs in the store, and what is known of them.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use regatta_model::Digest;
use tokio::time::Instant;

use super::index::PackIndex;
use super::limits::Limits;
use super::pack::{MAX_FOOTER_BYTES, Pack, PackError};
use super::upkeep::Plan;
use crate::whole_blob::{Collected, collect_up_to};
use crate::{BlobRange, Deletions, ListedBlobStore, Losses, StoreError};

/// How many footers are read at a time.
const LOAD_CONCURRENCY: usize = 32;
/// How often packs are listed in a row, because some were rewritten by somebody else meanwhile.
const MAX_LISTINGS: usize = 3;

/// The packs and the index of them.
pub(super) struct Packs {
    pub(super) store: Arc<dyn ListedBlobStore>,
    pub(super) limits: Limits,
    /// Held by whoever tidies up.
    pub(super) upkeep: tokio::sync::Mutex<()>,
    /// Whether nothing is tidied up here.
    is_left_alone: AtomicBool,
    /// Whether anything may be forgotten.
    deletions: Mutex<Deletions>,
    index: Mutex<PackIndex>,
    /// Told when values are gone that nobody has forgotten.
    pub(super) losses: Losses,
    /// When the listing began that the index agrees with.
    listed_at: Mutex<Option<Instant>>,
    /// Held by whoever lists.
    listing: tokio::sync::Mutex<()>,
}

/// How old what is known may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Freshness {
    /// It may be of the first listing.
    Ever,
    /// It is at most [`Limits::max_age`] old.
    Recent,
    /// It is of a listing that begins from now on.
    Now,
}

/// What came of reading a footer.
enum Loaded {
    Pack(Pack),
    Refused(Digest, PackError),
    /// It is not there any more.
    Vanished,
}

impl Packs {
    pub(super) fn new(store: Arc<dyn ListedBlobStore>, limits: Limits) -> Self {
        Self {
            store,
            limits,
            upkeep: tokio::sync::Mutex::default(),
            is_left_alone: AtomicBool::new(false),
            deletions: Mutex::default(),
            index: Mutex::default(),
            losses: Losses::default(),
            listed_at: Mutex::default(),
            listing: tokio::sync::Mutex::default(),
        }
    }

    pub(super) fn set_deletions(&self, deletions: Deletions) {
        *self.deletions_mut() = deletions;
    }

    pub(super) fn deletions(&self) -> Deletions {
        self.deletions_mut().clone()
    }

    fn deletions_mut(&self) -> MutexGuard<'_, Deletions> {
        self.deletions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn index(&self) -> MutexGuard<'_, PackIndex> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listed_at(&self) -> MutexGuard<'_, Option<Instant>> {
        let listed_at = self.listed_at.lock();
        listed_at.unwrap_or_else(PoisonError::into_inner)
    }

    fn is(&self, wanted: Freshness, asked_at: Instant) -> bool {
        self.listed_at().is_some_and(|listed_at| match wanted {
            Freshness::Ever => true,
            Freshness::Recent => listed_at + self.limits.max_age >= asked_at,
            Freshness::Now => listed_at > asked_at,
        })
    }

    /// Makes the index as fresh as is wanted. All who ask at a time share one listing.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: the packs cannot be listed or read.
    pub(super) async fn refresh(self: &Arc<Self>, wanted: Freshness) -> Result<(), StoreError> {
        let asked_at = Instant::now();
        if self.is(wanted, asked_at) {
            return Ok(());
        }
        // In a task of its own: whoever asked may go away, or look no further, and others wait.
        let packs = Arc::clone(self);
        let listing = tokio::spawn(async move { packs.refresh_alone(wanted, asked_at).await });
        listing.await.unwrap_or_else(|error| {
            let detail = format!("listing packs failed: {error}");
            Err(StoreError::Unavailable { detail })
        })
    }

    async fn refresh_alone(
        self: &Arc<Self>,
        wanted: Freshness,
        asked_at: Instant,
    ) -> Result<(), StoreError> {
        let _turn = self.listing.lock().await;
        if self.is(wanted, asked_at) {
            return Ok(());
        }
        let last = *self.listed_at();
        if let Some(last) = last {
            tokio::time::sleep_until(last + self.limits.listing_interval).await;
        }
        let begun_at = Instant::now();
        self.read().await?;
        *self.listed_at() = Some(begun_at);
        self.keep_up_soon();
        Ok(())
    }

    /// Makes the index agree with the store.
    async fn read(&self) -> Result<(), StoreError> {
        for _ in 0..MAX_LISTINGS {
            // What is written from here on need not be in the listing.
            let before: Vec<Digest> = self.index().pack_names().copied().collect();
            let listed: HashSet<Digest> = self.store.list().try_collect().await?;
            let new = self.unknown_of(&listed);
            let loaded: Vec<Loaded> = stream::iter(new)
                .map(|name| self.load(name))
                .buffer_unordered(LOAD_CONCURRENCY)
                .try_collect()
                .await?;
            let gone = before.into_iter().filter(|name| !listed.contains(name));
            // What is in neither may be in one that was written since.
            if !self.take_in(loaded, &gone.collect::<Vec<_>>()) {
                return Ok(());
            }
        }
        tracing::warn!("packs go away as they are listed; blobs that were in them count as absent");
        Ok(())
    }

    fn unknown_of(&self, listed: &HashSet<Digest>) -> Vec<Digest> {
        let index = self.index();
        let new = listed.iter().filter(|name| !index.knows(name));
        new.copied().collect()
    }

    /// All at once: nobody sees a write without the one that replaced it. Whether something went away that is
    /// nowhere else.
    fn take_in(&self, loaded: Vec<Loaded>, gone: &[Digest]) -> bool {
        let mut index = self.index();
        let mut vanished = false;
        for loaded in loaded {
            match loaded {
                Loaded::Pack(pack) => index.insert(pack),
                Loaded::Vanished => vanished = true,
                Loaded::Refused(pack, error) => {
                    if index.refuse(pack) {
                        tracing::error!(
                            %pack, %error,
                            "a pack cannot be used and its blobs count as absent; it is read again when packs are \
                             listed next, and left alone if it stays so"
                        );
                    }
                }
            }
        }
        // Where what is gone went is not known before all is listed: until then it is where it was.
        if vanished {
            return true;
        }
        let are_lost = index.remove(gone);
        if are_lost {
            self.losses.note();
        }
        are_lost
    }

    async fn load(&self, name: Digest) -> Result<Loaded, StoreError> {
        let footer_bytes = name.size_bytes().min(MAX_FOOTER_BYTES as u64);
        let range = BlobRange {
            offset: name.size_bytes() - footer_bytes,
            length: Some(footer_bytes),
        };
        let cut_off = PackError::Damaged {
            what: "it is cut off",
        };
        let body = match self.store.get(&name, range).await {
            Ok(body) => body,
            Err(StoreError::NotFound { .. }) => return Ok(Loaded::Vanished),
            Err(StoreError::OutOfRange { .. }) => return Ok(Loaded::Refused(name, cut_off)),
            Err(error) => return Err(error),
        };
        let footer = match collect_up_to(body, footer_bytes).await? {
            Collected::Whole(footer) if footer.len() as u64 == footer_bytes => footer,
            Collected::Whole(_) | Collected::TooLarge { .. } => {
                return Ok(Loaded::Refused(name, cut_off));
            }
        };
        Ok(match Pack::decode(name, &footer) {
            Ok(pack) => Loaded::Pack(pack),
            Err(error) => Loaded::Refused(name, error),
        })
    }

    /// Tidies up nothing from now on.
    pub(super) fn leave_alone(&self) {
        self.is_left_alone.store(true, Ordering::Relaxed);
    }

    /// Tidies up in the background, if there is enough to do.
    pub(super) fn keep_up_soon(self: &Arc<Self>) {
        if self.is_left_alone.load(Ordering::Relaxed) {
            return;
        }
        if !Plan::of(&self.index(), &self.limits).is_due || self.upkeep.try_lock().is_err() {
            return;
        }
        let packs = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(error) = packs.keep_up().await {
                tracing::warn!(%error, "packs cannot be tidied up now");
            }
        });
    }
}

impl fmt::Debug for Packs {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (packs, records) = {
            let index = self.index();
            let records = index.packs().map(|known| known.pack.len());
            (index.pack_names().count(), records.sum::<usize>())
        };
        formatter
            .debug_struct("Packs")
            .field("store", &self.store)
            .field("packs", &packs)
            .field("records", &records)
            .finish_non_exhaustive()
    }
}
