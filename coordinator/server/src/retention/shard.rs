//! A part of the index of uses.

use std::collections::{HashMap, HashSet};

use super::entry::{Claim, Claimant, Entry, Key, Seconds};
use super::record::Record;

/// A part of the index.
#[derive(Debug, Default)]
pub(super) struct Shard {
    pub(super) slots: HashMap<Key, Slot>,
    pub(super) going: HashSet<Key>,
    /// How many writers each has that is being written.
    pub(super) writing: HashMap<Key, u32>,
    pub(super) totals: HashMap<Claimant, Totals>,
    pub(super) all: Totals,
    /// What the log has not been told.
    pub(super) news: Vec<Record>,
}

/// Something that is stored.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub(super) size_bytes: u64,
    pub(super) first: Claim,
    /// Empty for most.
    pub(super) others: Vec<Claim>,
    /// The listing that it was seen in last.
    pub(super) listing: u8,
}

/// How much there is of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Totals {
    pub(crate) bytes: u64,
    pub(crate) count: u64,
}

impl Totals {
    fn add(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.count += 1;
    }

    fn subtract(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_sub(bytes);
        self.count = self.count.saturating_sub(1);
    }
}

impl Slot {
    pub(super) fn claims(&self) -> impl Iterator<Item = &Claim> {
        std::iter::once(&self.first).chain(&self.others)
    }

    fn claims_mut(&mut self) -> impl Iterator<Item = &mut Claim> {
        std::iter::once(&mut self.first).chain(&mut self.others)
    }

    pub(super) fn entry(&self, key: Key) -> Entry {
        Entry {
            key,
            size_bytes: self.size_bytes,
            claims: self.claims().copied().collect(),
        }
    }

    /// Counts a use; answers the claims that changed, and whether one is new.
    fn claim(&mut self, by: Claimant, at: Seconds) -> (Vec<Claim>, bool) {
        if by == Claimant::NOBODY {
            let older = self.claims_mut().filter(|claim| claim.used < at);
            return (older.map(|claim| advanced(claim, at)).collect(), false);
        }
        if let Some(claim) = self.claims_mut().find(|claim| claim.claimant == by) {
            let changed = (claim.used < at).then(|| advanced(claim, at));
            return (changed.into_iter().collect(), false);
        }
        let claim = Claim {
            claimant: by,
            used: at,
        };
        self.others.push(claim);
        (vec![claim], true)
    }
}

fn advanced(claim: &mut Claim, at: Seconds) -> Claim {
    claim.used = at;
    *claim
}

impl Shard {
    /// Counts a use of something that is there; false if it is not.
    pub(super) fn touch(&mut self, key: Key, by: Claimant, at: Seconds) -> bool {
        let Some(slot) = self.slots.get_mut(&key) else {
            return false;
        };
        let (changed, is_new) = slot.claim(by, at);
        let size_bytes = slot.size_bytes;
        if is_new {
            self.totals.entry(by).or_default().add(size_bytes);
        }
        let news = changed.into_iter().map(|claim| Record::Used {
            key,
            size_bytes,
            claim,
        });
        self.news.extend(news);
        // Whoever used it first takes it over from nobody.
        if by != Claimant::NOBODY {
            self.release(key, Claimant::NOBODY);
        }
        true
    }

    pub(super) fn insert(&mut self, key: Key, size_bytes: u64, claim: Claim, listing: u8) {
        if self
            .slots
            .get(&key)
            .is_some_and(|slot| slot.size_bytes != size_bytes)
        {
            self.resize(key, size_bytes);
        }
        if self.touch(key, claim.claimant, claim.used) {
            return;
        }
        let slot = Slot {
            size_bytes,
            first: claim,
            others: Vec::new(),
            listing,
        };
        self.slots.insert(key, slot);
        self.totals
            .entry(claim.claimant)
            .or_default()
            .add(size_bytes);
        self.all.add(size_bytes);
        self.news.push(Record::Used {
            key,
            size_bytes,
            claim,
        });
    }

    /// A result that was written again may have another size.
    fn resize(&mut self, key: Key, size_bytes: u64) {
        let Some(slot) = self.slots.get_mut(&key) else {
            return;
        };
        let before = std::mem::replace(&mut slot.size_bytes, size_bytes);
        let claimants = slot.claims().map(|claim| claim.claimant);
        for claimant in claimants {
            let totals = self.totals.entry(claimant).or_default();
            totals.bytes = (totals.bytes + size_bytes).saturating_sub(before);
        }
        self.all.bytes = (self.all.bytes + size_bytes).saturating_sub(before);
    }

    /// Ends a claim that is not the only one.
    pub(super) fn release(&mut self, key: Key, claimant: Claimant) {
        let Some(slot) = self.slots.get_mut(&key) else {
            return;
        };
        let before = slot.others.len();
        if slot.first.claimant != claimant {
            slot.others.retain(|claim| claim.claimant != claimant);
        } else if let Some(other) = slot.others.pop() {
            slot.first = other;
        }
        if slot.others.len() == before {
            return;
        }
        let size_bytes = slot.size_bytes;
        self.totals
            .entry(claimant)
            .or_default()
            .subtract(size_bytes);
        self.news.push(Record::Released { key, claimant });
    }

    pub(super) fn remove(&mut self, key: &Key) -> Option<Slot> {
        let slot = self.slots.remove(key)?;
        for claim in slot.claims() {
            let totals = self.totals.entry(claim.claimant).or_default();
            totals.subtract(slot.size_bytes);
        }
        self.all.subtract(slot.size_bytes);
        self.news.push(Record::Gone { key: *key });
        Some(slot)
    }
}
