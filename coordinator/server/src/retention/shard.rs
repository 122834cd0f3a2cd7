//! A part of the index of uses.

use std::collections::{HashMap, HashSet};

use super::entry::{Claim, Claimant, Entry, Key, Seconds, charged};
use super::record::Record;

/// A part of the index.
#[derive(Debug, Default)]
pub(super) struct Shard {
    pub(super) slots: HashMap<Key, Slot>,
    pub(super) going: HashSet<Key>,
    /// How many writers each has that is being written.
    pub(super) writing: HashMap<Key, u32>,
    /// Which of all uses was the last that wrote something.
    pub(super) written: u64,
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
    /// Which of all uses its last was.
    pub(super) order: u64,
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
    pub(super) fn claims(&self) -> impl Iterator<Item = &Claim> + Clone {
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
            order: self.order,
        }
    }

    /// Whether a use by somebody makes a claim that there was none of.
    fn is_new_to(&self, by: Claimant) -> bool {
        self.claims().all(|claim| !is_used_by(claim, by))
    }

    /// Whether nobody in particular used it, and not after that.
    fn is_nobodys_until(&self, at: Seconds) -> bool {
        let mut claims = self.claims();
        claims.any(|claim| claim.claimant == Claimant::NOBODY && claim.used <= at)
    }

    /// Counts a use; answers the claims that changed.
    fn claim(&mut self, by: Claimant, at: Seconds) -> Vec<Claim> {
        if self.is_new_to(by) {
            let claim = Claim {
                claimant: by,
                used: at,
            };
            self.others.push(claim);
            return vec![claim];
        }
        let claims = self.claims_mut();
        let older = claims.filter(|claim| is_used_by(claim, by) && claim.used < at);
        older.map(|claim| advanced(claim, at)).collect()
    }
}

/// Nobody's uses count for all but verdicts, which are given to somebody.
fn is_used_by(claim: &Claim, by: Claimant) -> bool {
    match by {
        Claimant::NOBODY => !claim.claimant.is_for_verdicts(),
        by => claim.claimant == by,
    }
}

fn advanced(claim: &mut Claim, at: Seconds) -> Claim {
    claim.used = at;
    *claim
}

fn count(totals: &mut HashMap<Claimant, Totals>, slot: &Slot) {
    for claimant in charged(slot.claims()) {
        totals.entry(claimant).or_default().add(slot.size_bytes);
    }
}

fn uncount(totals: &mut HashMap<Claimant, Totals>, slot: &Slot) {
    for claimant in charged(slot.claims()) {
        let totals = totals.entry(claimant).or_default();
        totals.subtract(slot.size_bytes);
    }
}

impl Shard {
    /// Counts a use of something that is there, the `order`th of all uses; false if it is not.
    pub(super) fn touch(&mut self, key: Key, by: Claimant, at: Seconds, order: u64) -> bool {
        let Some(slot) = self.slots.get_mut(&key) else {
            return false;
        };
        let is_new = slot.is_new_to(by);
        if is_new {
            uncount(&mut self.totals, slot);
        }
        let changed = slot.claim(by, at);
        if is_new {
            count(&mut self.totals, slot);
        }
        if !changed.is_empty() || !key.kind.is_named_by_none() {
            slot.order = slot.order.max(order);
        }
        let size_bytes = slot.size_bytes;
        // Whoever used it first takes it over from nobody; a verdict keeps it beside others.
        let is_taken_over = by != Claimant::NOBODY && !by.is_for_verdicts();
        let is_taken_over = is_taken_over && slot.is_nobodys_until(at);
        let news = changed.into_iter().map(|claim| Record::Used {
            key,
            size_bytes,
            claim,
        });
        self.news.extend(news);
        if is_taken_over {
            self.release(key, Claimant::NOBODY);
        }
        true
    }

    pub(super) fn insert(
        &mut self,
        key: Key,
        size_bytes: u64,
        claim: Claim,
        (listing, order): (u8, u64),
    ) {
        if self
            .slots
            .get(&key)
            .is_some_and(|slot| slot.size_bytes != size_bytes)
        {
            self.resize(key, size_bytes);
        }
        if self.touch(key, claim.claimant, claim.used, order) {
            return;
        }
        let slot = Slot {
            size_bytes,
            first: claim,
            others: Vec::new(),
            order,
            listing,
        };
        count(&mut self.totals, &slot);
        self.slots.insert(key, slot);
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
        uncount(&mut self.totals, slot);
        let before = std::mem::replace(&mut slot.size_bytes, size_bytes);
        count(&mut self.totals, slot);
        self.all.bytes = (self.all.bytes + size_bytes).saturating_sub(before);
    }

    /// Ends a claim that is not the only one.
    pub(super) fn release(&mut self, key: Key, claimant: Claimant) {
        let Some(slot) = self.slots.get_mut(&key) else {
            return;
        };
        let is_claimed = slot.claims().any(|claim| claim.claimant == claimant);
        if !is_claimed || slot.others.is_empty() {
            return;
        }
        uncount(&mut self.totals, slot);
        if slot.first.claimant != claimant {
            slot.others.retain(|claim| claim.claimant != claimant);
        } else if let Some(other) = slot.others.pop() {
            slot.first = other;
        }
        count(&mut self.totals, slot);
        self.news.push(Record::Released { key, claimant });
    }

    /// Removes what is not there, unless it is being written.
    pub(super) fn forget(&mut self, key: &Key) {
        if !self.writing.contains_key(key) {
            self.remove(key);
        }
    }

    pub(super) fn remove(&mut self, key: &Key) -> Option<Slot> {
        let slot = self.slots.remove(key)?;
        uncount(&mut self.totals, &slot);
        self.all.subtract(slot.size_bytes);
        self.news.push(Record::Gone { key: *key });
        Some(slot)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regatta_model::Digest;

    use super::super::entry::Kind;
    use super::*;

    fn key(seed: u8) -> Key {
        Key {
            kind: Kind::Blob,
            digest: Digest::of(&[seed]),
        }
    }

    fn claimant() -> impl Strategy<Value = Claimant> {
        let user = (0..3usize).prop_map(|at| [0, 2, 3].map(Claimant)[at]);
        (user, any::<bool>()).prop_map(|(user, for_verdicts)| match for_verdicts {
            true => user.for_verdicts(),
            false => user,
        })
    }

    /// What each claimant has, by what there is.
    fn counted(shard: &Shard) -> HashMap<Claimant, Totals> {
        let mut totals: HashMap<Claimant, Totals> = HashMap::new();
        for slot in shard.slots.values() {
            let claimants: HashSet<Claimant> = slot
                .claims()
                .flat_map(|claim| [claim.claimant, claim.claimant.payer()])
                .collect();
            for claimant in claimants {
                totals.entry(claimant).or_default().add(slot.size_bytes);
            }
        }
        totals
    }

    proptest! {
        #[test]
        fn totals_are_what_there_is(
            steps in proptest::collection::vec((0..4u8, 0..4u8, claimant(), 0..9u32, 1..9u64), 0..40),
        ) {
            let mut shard = Shard::default();
            for (step, seed, claimant, used, size_bytes) in steps {
                let claim = Claim { claimant, used };
                match step {
                    0 => shard.insert(key(seed), size_bytes, claim, (0, 0)),
                    1 => drop(shard.touch(key(seed), claimant, used, 0)),
                    2 => shard.release(key(seed), claimant),
                    _ => drop(shard.remove(&key(seed))),
                }
                let mut totals = shard.totals.clone();
                totals.retain(|_, totals| totals.count > 0);
                prop_assert_eq!(totals, counted(&shard));
            }
        }

        /// A verdict keeps what it names for as long as it does, however often that is used, and beside whoever
        /// used it.
        #[test]
        fn only_verdicts_use_for_verdicts(
            uses in proptest::collection::vec((claimant(), 0..99u32), 1..20),
        ) {
            let mut shard = Shard::default();
            for (claimant, used) in &uses {
                let claim = Claim { claimant: *claimant, used: *used };
                shard.insert(key(0), 1, claim, (0, 0));
            }
            let slot = &shard.slots[&key(0)];
            for claim in slot.claims().filter(|it| it.claimant.is_for_verdicts()) {
                let own = uses.iter().filter(|(by, _)| *by == claim.claimant);
                prop_assert_eq!(Some(claim.used), own.map(|(_, used)| *used).max());
            }
            let others = uses.iter().filter(|(by, _)| !by.is_for_verdicts());
            let last = others.map(|(_, used)| *used).max();
            let claims = slot.claims().filter(|it| !it.claimant.is_for_verdicts());
            prop_assert_eq!(claims.map(|it| it.used).max(), last);
        }
    }
}
