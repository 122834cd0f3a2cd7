//! What is known not to be there.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use regatta_model::Digest;

use crate::{BlobRange, BlobStore, BlobStream, SpooledBlob, StoreError};

/// Knows which blobs a store lacks, so that asking about thousands of new ones costs no request.
///
/// It remembers 64 bits of the digest of every blob that the store ever had: a blob whose bits it does not
/// know is absent for certain, and about any other the store is asked. Until the store's listing has been
/// read to its end, and if that is longer than the capacity, it asks about all of them. A listing that fails
/// is begun again after a while, as often as need be.
///
/// What was deleted is remembered, too, until a renewal: whoever knows what the store has begins one when
/// [`AbsenceIndex::wants_renewal`].
///
/// It is right only if nothing else writes to the store: never put it above a bucket or directory that
/// several coordinators share.
pub struct AbsenceIndex {
    store: Arc<dyn BlobStore>,
    seen: Arc<Mutex<Seen>>,
}

/// How long after a listing failed it is begun again, at first, and at most: each time twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(300);

/// What the store has.
type Listing = BoxStream<'static, Result<Digest, StoreError>>;

/// The blobs that the store has, or had.
#[derive(Debug)]
struct Seen {
    fingerprints: HashSet<u64>,
    /// Those that are to replace them, while they are collected.
    renewed: Option<HashSet<u64>>,
    capacity: usize,
    extent: Extent,
}

/// How much of the store's content has been seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// The listing is being read.
    Some,
    /// Everything: what has not been seen is absent.
    All,
    /// The index is of no use, and empty.
    Unknown,
}

impl AbsenceIndex {
    /// Adds the index to `store`, whose blobs `list` begins to name each time that it is called. The listing is
    /// read by a task that ends with the index; it needs a tokio runtime. At most `capacity` blobs are
    /// remembered, at 10 to 20 bytes each.
    #[must_use]
    pub fn new(
        store: Arc<dyn BlobStore>,
        list: impl Fn() -> Listing + Send + Sync + 'static,
        capacity: usize,
    ) -> Self {
        let seen = Arc::new(Mutex::new(Seen {
            fingerprints: HashSet::new(),
            renewed: None,
            capacity,
            extent: Extent::Some,
        }));
        tokio::spawn(learn(Arc::downgrade(&seen), list));
        Self { store, seen }
    }

    /// Notes that a blob is there which was not put through the index.
    pub fn note(&self, digest: &Digest) {
        lock(&self.seen).note(digest);
    }

    /// Whether so many of the blobs that it remembers are gone that it is time for a renewal. The store has
    /// `present` blobs at most.
    #[must_use]
    pub fn wants_renewal(&self, present: usize) -> bool {
        lock(&self.seen).wants_renewal(present)
    }

    /// Begins to forget the blobs that the store had and has no more: those that are noted or put from now on
    /// will still be known after [`AbsenceIndex::end_renewal`].
    pub fn begin_renewal(&self) {
        lock(&self.seen).renewed = Some(HashSet::new());
    }

    /// Forgets all blobs but these, which are all that the store had at some moment after the renewal began,
    /// and those that came since it began.
    pub fn end_renewal(&self, present: &[Digest]) {
        let mut seen = lock(&self.seen);
        let Some(mut renewed) = seen.renewed.take() else {
            return;
        };
        renewed.extend(present.iter().map(fingerprint));
        if renewed.len() <= seen.capacity {
            seen.fingerprints = renewed;
            seen.extent = Extent::All;
        }
    }

    /// Those of `digests` that may be there, or `None` if nothing is known.
    fn possible(&self, digests: &[Digest]) -> Option<Vec<Digest>> {
        let seen = lock(&self.seen);
        (seen.extent == Extent::All).then(|| {
            let possible = digests.iter().filter(|digest| seen.has(digest));
            possible.copied().collect()
        })
    }
}

/// Lists the store until a listing has been read to its end, or the index is gone.
async fn learn(seen: Weak<Mutex<Seen>>, list: impl Fn() -> Listing + Send + Sync) {
    let mut pause = FIRST_PAUSE;
    while let Err(error) = read_listing(&seen, list()).await {
        let again_in = pause;
        match pause == FIRST_PAUSE {
            true => tracing::warn!(
                %error, ?again_in,
                "the store cannot be listed; until it can, it is asked about every blob"
            ),
            false => tracing::debug!(%error, ?again_in, "the store still cannot be listed"),
        }
        tokio::time::sleep(pause).await;
        pause = MAX_PAUSE.min(pause * 2);
    }
}

/// Notes what a listing names, until the index is gone or of no use. What was noted before stays.
async fn read_listing(seen: &Weak<Mutex<Seen>>, mut listing: Listing) -> Result<(), StoreError> {
    while let Some(listed) = listing.next().await {
        let Some(seen) = seen.upgrade() else {
            return Ok(());
        };
        let mut seen = lock(&seen);
        // A renewal may have seen everything meanwhile.
        if seen.extent != Extent::Some {
            return Ok(());
        }
        seen.note(&listed?);
    }
    if let Some(seen) = seen.upgrade() {
        lock(&seen).end_listing();
    }
    Ok(())
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Seen {
    fn note(&mut self, digest: &Digest) {
        let capacity = self.capacity;
        if let Some(renewed) = &mut self.renewed
            && renewed.len() <= capacity
        {
            renewed.insert(fingerprint(digest));
        }
        if self.extent == Extent::Unknown {
            return;
        }
        self.fingerprints.insert(fingerprint(digest));
        if self.fingerprints.len() > self.capacity {
            tracing::warn!(
                capacity = self.capacity,
                "the store has more blobs than the index can hold; it will be asked about every blob"
            );
            self.give_up();
        }
    }

    /// Everything has been listed.
    fn end_listing(&mut self) {
        if self.extent == Extent::Some {
            self.extent = Extent::All;
        }
    }

    fn has(&self, digest: &Digest) -> bool {
        self.fingerprints.contains(&fingerprint(digest))
    }

    fn wants_renewal(&self, present: usize) -> bool {
        let remembered = self.fingerprints.len();
        let (gone, few) = (remembered.saturating_sub(present), self.capacity / 16);
        match self.extent {
            Extent::Some => false,
            Extent::All => {
                let is_nearly_full = remembered > self.capacity - few;
                gone > present.max(few) || is_nearly_full && gone > few
            }
            // There were too many, or the listing failed.
            Extent::Unknown => present <= self.capacity - 2 * few,
        }
    }

    fn give_up(&mut self) {
        self.fingerprints = HashSet::new();
        self.extent = Extent::Unknown;
    }
}

/// Bits that differ between two digests, but for one pair in 2^64.
fn fingerprint(digest: &Digest) -> u64 {
    let mut bits = [0; 8];
    bits.copy_from_slice(&digest.hash()[..8]);
    u64::from_le_bytes(bits) ^ digest.size_bytes()
}

/// `asked` without `present`, which has the order of `asked`.
fn without(asked: &[Digest], present: &[Digest]) -> Vec<Digest> {
    let mut present = present.iter().peekable();
    let others = asked
        .iter()
        .filter(|digest| present.next_if_eq(digest).is_none());
    others.copied().collect()
}

impl fmt::Debug for AbsenceIndex {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seen = lock(&self.seen);
        formatter
            .debug_struct("AbsenceIndex")
            .field("store", &self.store)
            .field("seen", &seen.fingerprints.len())
            .field("extent", &seen.extent)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl BlobStore for AbsenceIndex {
    async fn get(&self, digest: &Digest, range: BlobRange) -> Result<BlobStream, StoreError> {
        self.store.get(digest, range).await
    }

    async fn put(&self, digest: &Digest, body: BlobStream) -> Result<(), StoreError> {
        // Before it can be there: that a blob is absent is never said of one that is not.
        lock(&self.seen).note(digest);
        self.store.put(digest, body).await?;
        // A renewal that began and ended meanwhile has not seen it.
        lock(&self.seen).note(digest);
        Ok(())
    }

    async fn put_spooled(&self, digest: &Digest, blob: &SpooledBlob) -> Result<(), StoreError> {
        // Before it can be there, as in `put`.
        lock(&self.seen).note(digest);
        self.store.put_spooled(digest, blob).await?;
        lock(&self.seen).note(digest);
        Ok(())
    }

    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        let Some(possible) = self.possible(digests) else {
            return self.store.find_missing(digests).await;
        };
        if possible.is_empty() {
            return Ok(digests.to_vec());
        }
        let missing = self.store.find_missing(&possible).await?;
        Ok(without(digests, &without(&possible, &missing)))
    }

    async fn delete(&self, digest: &Digest) -> Result<(), StoreError> {
        // The bits stay: another blob may have the same.
        self.store.delete(digest).await
    }
}

#[cfg(test)]
mod tests;
