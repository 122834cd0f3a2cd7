//! Who used what, and when: everything that is stored, in memory.

mod splitting;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use regatta_model::{Digest, PlantedBug};
use tokio::sync::Notify;

use super::entry::{Claim, Claimant, Entry, Key, Kind, Seconds};
use super::record::Record;
use super::shard::{Shard, Slot, Totals};

/// In how many parts the index is, each with a lock of its own, so that whoever looks through all of it stops
/// nobody for long.
const SHARDS: usize = 64;

/// Everything that is stored, with those who use it. It takes some 150 bytes for each thing.
///
/// What is about to be deleted is *going*: for whoever asks it is absent already, and whoever writes it waits
/// until it is gone. What is being written does not go.
#[derive(Debug)]
pub(super) struct UseIndex {
    shards: Vec<Mutex<Shard>>,
    /// Something that was going is gone, or stays.
    settled: Notify,
    granularity: Seconds,
    /// How many uses were counted.
    uses: AtomicU64,
}

/// Something that is being written; it does not go until this is dropped.
#[derive(Debug)]
pub(super) struct Writing<'a> {
    index: &'a UseIndex,
    key: Key,
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let mut shard = self.index.shard(&self.key);
        if let Some(writers) = shard.writing.get_mut(&self.key) {
            *writers -= 1;
            if *writers == 0 {
                shard.writing.remove(&self.key);
            }
        }
    }
}

/// Something that is going. Unless it is said to be gone, it stays as it was.
#[derive(Debug)]
pub(super) struct Going<'a> {
    index: &'a UseIndex,
    pub(super) entry: Entry,
    is_gone: bool,
}

impl Going<'_> {
    /// It is deleted.
    pub(super) fn gone(mut self) {
        self.is_gone = true;
    }
}

impl Drop for Going<'_> {
    fn drop(&mut self) {
        self.index.settle(&self.entry, self.is_gone);
    }
}

impl UseIndex {
    /// An empty index that rounds moments down to `granularity` seconds.
    pub(super) fn new(granularity: Seconds) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            settled: Notify::new(),
            granularity: granularity.max(1),
            uses: AtomicU64::new(0),
        }
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, Shard> {
        let at = usize::from(key.digest.hash()[0]) % SHARDS;
        lock(&self.shards[at])
    }

    /// The number of the next use, greater than that of any that was counted before.
    fn next(&self) -> u64 {
        self.uses.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// How many uses were counted so far; see [`Self::absent`].
    pub(super) fn counted(&self) -> u64 {
        self.uses.load(Ordering::Acquire)
    }

    fn rounded(&self, at: Seconds) -> Seconds {
        at - at % self.granularity
    }

    /// Counts a use of what is there, before it is known whether it is. False for what is going.
    pub(super) fn touch(&self, key: Key, by: Claimant, at: Seconds) -> bool {
        let at = self.rounded(at);
        let mut shard = self.shard(&key);
        if shard.going.contains(&key) {
            return false;
        }
        shard.touch(key, by, at, self.next());
        true
    }

    /// Counts a use of something that was found in the store; what is going stays so.
    pub(super) fn found(&self, key: Key, size_bytes: u64, by: Claimant, at: Seconds) {
        let at = self.rounded(at);
        let mut shard = self.shard(&key);
        if !shard.going.contains(&key) && !shard.touch(key, by, at, self.next()) {
            let claim = Claim {
                claimant: by,
                used: at,
            };
            shard.insert(key, size_bytes, claim, (0, self.next()));
        }
    }

    /// Takes in something that is in the store and is not known: nobody in particular uses it now.
    pub(super) fn learn(&self, key: Key, size_bytes: u64, now: Seconds) {
        let used = self.rounded(now);
        let mut shard = self.shard(&key);
        if !shard.going.contains(&key) && !shard.slots.contains_key(&key) {
            let claimant = Claimant::NOBODY;
            let claim = Claim { claimant, used };
            shard.insert(key, size_bytes, claim, (0, self.next()));
        }
    }

    /// Notes what was written, while it counts as being written.
    pub(super) fn written(
        &self,
        writing: &Writing<'_>,
        size_bytes: u64,
        by: Claimant,
        at: Seconds,
    ) {
        let claim = Claim {
            claimant: by,
            used: self.rounded(at),
        };
        let mut shard = self.shard(&writing.key);
        shard.written = self.next();
        let order = shard.written;
        shard.insert(writing.key, size_bytes, claim, (0, order));
    }

    /// Takes in what the log knows; moments are as they are there.
    pub(super) fn restore(&self, entry: &Entry) {
        let mut shard = self.shard(&entry.key);
        for claim in &entry.claims {
            shard.insert(entry.key, entry.size_bytes, *claim, (0, entry.order));
        }
        shard.news.clear();
    }

    /// What was going is gone, or stays as it was.
    pub(super) fn settle(&self, entry: &Entry, is_gone: bool) {
        let mut shard = self.shard(&entry.key);
        shard.going.remove(&entry.key);
        if !is_gone {
            for claim in &entry.claims {
                shard.insert(entry.key, entry.size_bytes, *claim, (0, entry.order));
            }
        }
        drop(shard);
        self.settled.notify_waiters();
    }

    /// Begins to write something, once it is not going.
    pub(super) async fn write(&self, key: Key) -> Writing<'_> {
        loop {
            let settled = self.settled.notified();
            let mut settled = std::pin::pin!(settled);
            settled.as_mut().enable();
            {
                let mut shard = self.shard(&key);
                let is_going = shard.going.contains(&key);
                if !is_going || PlantedBug::DeletionNotAwaited.is_planted() {
                    *shard.writing.entry(key).or_default() += 1;
                    return Writing { index: self, key };
                }
            }
            settled.await;
        }
    }

    /// Notes that something is not there, unless it is being written.
    pub(super) fn forget(&self, key: &Key) {
        self.shard(key).forget(key);
    }

    /// Notes that something was not there when so many uses were [counted](Self::counted). It may have been written
    /// since: then the answer is as old as that.
    pub(super) fn absent(&self, key: &Key, counted: u64) {
        // A write of anything else near it counts, too: what is wrongly taken to be there is found out later.
        let mut shard = self.shard(key);
        if shard.written <= counted {
            shard.forget(key);
        }
    }

    /// Makes something go that was not used after `last_used` and is not being written.
    pub(super) fn take(&self, key: Key, last_used: Seconds) -> Option<Going<'_>> {
        let mut shard = self.shard(&key);
        let entry = shard.slots.get(&key)?.entry(key);
        if entry.last_used() > last_used || shard.writing.contains_key(&key) {
            return None;
        }
        shard.remove(&key);
        shard.going.insert(key);
        Some(Going {
            index: self,
            entry,
            is_gone: false,
        })
    }

    /// Ends a claim that was not used since; never the last one.
    pub(super) fn release(&self, key: Key, claim: Claim) {
        let mut shard = self.shard(&key);
        let is_unused = shard.slots.get(&key).is_some_and(|slot| {
            let mut claims = slot.claims();
            claims.any(|it| *it == claim)
        });
        if is_unused {
            shard.release(key, claim.claimant);
        }
    }

    /// Notes that a listing names something; true if that was not known.
    pub(super) fn listed(&self, key: Key, size_bytes: u64, listing: u8, at: Seconds) -> bool {
        let at = self.rounded(at);
        let mut shard = self.shard(&key);
        if shard.going.contains(&key) {
            return false;
        }
        if let Some(slot) = shard.slots.get_mut(&key) {
            slot.listing = listing;
            return false;
        }
        let claim = Claim {
            claimant: Claimant::NOBODY,
            used: at,
        };
        shard.insert(key, size_bytes, claim, (listing, self.next()));
        true
    }

    /// What is not used later than `before` and was not in a listing.
    pub(super) fn unlisted(&self, kind: Kind, listing: u8, before: Seconds) -> Vec<Entry> {
        let is_unlisted = |key: &Key, slot: &Slot| key.kind == kind && slot.listing != listing;
        let mut entries = self.select(is_unlisted);
        entries.retain(|entry| entry.last_used() < before);
        entries
    }

    /// Everything.
    pub(super) fn entries(&self) -> Vec<Entry> {
        self.select(|_, _| true)
    }

    fn select(&self, wanted: impl Fn(&Key, &Slot) -> bool) -> Vec<Entry> {
        let mut entries = Vec::new();
        for shard in &self.shards {
            let shard = lock(shard);
            let selected = shard.slots.iter().filter(|(key, slot)| wanted(key, slot));
            entries.extend(selected.map(|(key, slot)| slot.entry(*key)));
        }
        entries
    }

    /// The digests of a kind.
    pub(super) fn digests(&self, kind: Kind) -> Vec<Digest> {
        let mut digests = Vec::new();
        for shard in &self.shards {
            let shard = lock(shard);
            let keys = shard.slots.keys().filter(|key| key.kind == kind);
            digests.extend(keys.map(|key| key.digest));
        }
        digests
    }

    /// The digests of all of a kind that may be in the store by now: what is being written and what is going, too.
    pub(super) fn possible(&self, kind: Kind) -> Vec<Digest> {
        let mut digests = Vec::new();
        for shard in &self.shards {
            let shard = lock(shard);
            let keys = shard.slots.keys().chain(&shard.going);
            let keys = keys.chain(shard.writing.keys());
            let of_kind = keys.filter(|key| key.kind == kind);
            digests.extend(of_kind.map(|key| key.digest));
        }
        digests
    }

    /// What the log has not been told yet, in its order for each thing.
    pub(super) fn news(&self) -> Vec<Record> {
        let mut news = Vec::new();
        for shard in &self.shards {
            news.append(&mut lock(shard).news);
        }
        news
    }

    /// Everything as the log is told it anew; news of before are in it.
    pub(super) fn records(&self) -> Vec<Record> {
        let mut records = Vec::new();
        for shard in &self.shards {
            let mut shard = lock(shard);
            shard.news.clear();
            for (key, slot) in &shard.slots {
                records.extend(slot.claims().map(|claim| Record::Used {
                    key: *key,
                    size_bytes: slot.size_bytes,
                    claim: *claim,
                }));
            }
        }
        records
    }

    /// How much there is in all.
    pub(super) fn all(&self) -> Totals {
        let mut all = Totals::default();
        for shard in &self.shards {
            let part = lock(shard).all;
            all.bytes += part.bytes;
            all.count += part.count;
        }
        all
    }

    /// How much each has.
    pub(super) fn totals(&self) -> HashMap<Claimant, Totals> {
        let mut totals: HashMap<Claimant, Totals> = HashMap::new();
        for shard in &self.shards {
            for (claimant, part) in &lock(shard).totals {
                let of_claimant = totals.entry(*claimant).or_default();
                of_claimant.bytes += part.bytes;
                of_claimant.count += part.count;
            }
        }
        totals
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_that_is_older_than_a_write_makes_nothing_unknown() {
        let index = UseIndex::new(1);
        let key = Key {
            kind: Kind::Blob,
            digest: Digest::of(b"late"),
        };
        let asked = index.counted();
        let writing = index.write(key).await;
        index.written(&writing, 4, Claimant::FIRST_TENANT, 1);
        drop(writing);
        index.absent(&key, asked);
        assert_eq!(index.all().count, 1);
        index.absent(&key, index.counted());
        assert_eq!(index.all().count, 0);
    }
}
