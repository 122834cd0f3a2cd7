//! What all packs say together.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use regatta_model::Digest;

use super::pack::{Fact, Pack};
use super::version::Version;

/// How often an object is read that cannot be used before that is taken for certain.
const MAX_TRIES: u32 = 3;

/// What is known of every key that any pack names: of several records of one key, that of the highest rank
/// counts. It depends on which packs there are and not on the order in which they became known, so that all
/// who know the same packs agree.
#[derive(Debug, Default)]
pub(super) struct PackIndex {
    packs: Vec<Option<KnownPack>>,
    vacant: Vec<u32>,
    numbers: HashMap<Digest, u32>,
    /// The record that counts, of each key.
    winners: HashTable<Place>,
    hasher: RandomState,
    newest: Version,
    /// Objects that are no packs, or cannot be read, and how often that was tried.
    refused: HashMap<Digest, u32>,
}

/// A pack, and how much of it counts.
#[derive(Debug)]
pub(super) struct KnownPack {
    pub(super) pack: Pack,
    /// Records that count.
    pub(super) live: usize,
    /// Of them, those with values.
    pub(super) live_stored: usize,
    /// The size of their values, in bytes.
    pub(super) live_bytes: u64,
    /// When the last of its forgotten keys was forgotten, in seconds of the Unix epoch.
    pub(super) forgotten_since_s: Option<u32>,
    /// Whether its bytes turned out wrong when all of them were read: it is left as it is.
    pub(super) is_damaged: bool,
}

/// Which record of which pack, in the 6 bytes that a million of them can afford.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place([u16; 3]);

impl Place {
    fn new(pack: u32, nth: usize) -> Self {
        let [a, b, c, d] = pack.to_le_bytes();
        // A pack has at most MAX_RECORDS records.
        let nth = u16::try_from(nth).unwrap_or(u16::MAX);
        Self([u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]), nth])
    }

    fn pack(self) -> usize {
        usize::from(self.0[1]) << 16 | usize::from(self.0[0])
    }

    fn nth(self) -> usize {
        usize::from(self.0[2])
    }
}

/// Where a key's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// In a pack.
    Packed(Slice),
    /// An object of its own.
    Elsewhere,
    /// Nowhere.
    Forgotten,
    /// No pack names the key.
    Unknown,
}

/// A part of a pack, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slice {
    pub(super) pack: Digest,
    pub(super) offset: u64,
    pub(super) length: u64,
}

impl KnownPack {
    /// The size of all its values, in bytes.
    pub(super) fn values_bytes(&self) -> u64 {
        self.pack.values_bytes()
    }
}

type Packs = [Option<KnownPack>];

fn known(packs: &Packs, place: Place) -> Option<&Pack> {
    let known = packs.get(place.pack())?.as_ref();
    known.map(|known| &known.pack)
}

fn key_of(packs: &Packs, place: Place) -> Option<Digest> {
    known(packs, place).map(|pack| pack.key(place.nth()))
}

/// Later writes first. What was written and forgotten with one version is forgotten. Of copies, the one that
/// was moved last counts, and else the pack's name decides: everybody deletes the same ones.
fn rank(packs: &Packs, place: Place) -> Option<(Version, bool, u32, Digest)> {
    let pack = known(packs, place)?;
    let is_forgotten = matches!(pack.fact(place.nth()), Fact::Forgotten { .. });
    let version = pack.version(place.nth());
    Some((version, is_forgotten, pack.generation, pack.digest))
}

fn forgotten_since_s(pack: &Pack) -> Option<u32> {
    let since = (0..pack.len()).filter_map(|nth| match pack.fact(nth) {
        Fact::Forgotten { since_s } => Some(since_s),
        Fact::Stored { .. } | Fact::Elsewhere => None,
    });
    since.max()
}

impl PackIndex {
    pub(super) fn knows(&self, pack: &Digest) -> bool {
        let tries = self.refused.get(pack).copied().unwrap_or(0);
        self.numbers.contains_key(pack) || tries >= MAX_TRIES
    }

    /// The names of all packs that are known.
    pub(super) fn pack_names(&self) -> impl Iterator<Item = &Digest> {
        self.numbers.keys()
    }

    pub(super) fn packs(&self) -> impl Iterator<Item = &KnownPack> {
        self.packs.iter().flatten()
    }

    pub(super) fn pack(&self, name: &Digest) -> Option<&KnownPack> {
        let number = *self.numbers.get(name)? as usize;
        self.packs.get(number)?.as_ref()
    }

    /// The latest version of any record.
    pub(super) const fn newest(&self) -> Version {
        self.newest
    }

    /// Whether it is the first time that the object is refused. It is tried again: bytes go bad on their way, too.
    pub(super) fn refuse(&mut self, name: Digest) -> bool {
        let tries = self.refused.entry(name).or_insert(0);
        *tries += 1;
        *tries == 1
    }

    pub(super) fn mark_damaged(&mut self, name: &Digest) {
        let number = self.numbers.get(name).map(|number| *number as usize);
        let pack = number.and_then(|number| self.packs.get_mut(number)?.as_mut());
        if let Some(pack) = pack {
            pack.is_damaged = true;
        }
    }

    pub(super) fn insert(&mut self, pack: Pack) {
        if self.numbers.contains_key(&pack.digest) {
            return;
        }
        let number = self.vacant.pop().unwrap_or_else(|| {
            self.packs.push(None);
            u32::try_from(self.packs.len() - 1).unwrap_or(u32::MAX)
        });
        self.numbers.insert(pack.digest, number);
        let count = pack.len();
        for nth in 0..count {
            self.newest = self.newest.max(pack.version(nth));
        }
        self.packs[number as usize] = Some(KnownPack {
            forgotten_since_s: forgotten_since_s(&pack),
            pack,
            live: 0,
            live_stored: 0,
            live_bytes: 0,
            is_damaged: false,
        });
        for nth in 0..count {
            self.judge(Place::new(number, nth));
        }
    }

    /// Lets a record count, if it is of a higher rank than the one that does.
    fn judge(&mut self, place: Place) {
        let (packs, hasher) = (&self.packs, &self.hasher);
        let Some(key) = key_of(packs, place) else {
            return;
        };
        let entry = self.winners.entry(
            hasher.hash_one(key),
            |other| key_of(packs, *other) == Some(key),
            |other| key_of(packs, *other).map_or(0, |other| hasher.hash_one(other)),
        );
        let replaced = match entry {
            Entry::Occupied(mut winner) => {
                if rank(packs, place) <= rank(packs, *winner.get()) {
                    return;
                }
                Some(std::mem::replace(winner.get_mut(), place))
            }
            Entry::Vacant(vacancy) => {
                vacancy.insert(place);
                None
            }
        };
        if let Some(replaced) = replaced {
            self.count(replaced, false);
        }
        self.count(place, true);
    }

    /// Notes in a record's pack that it counts from now on, or no longer does.
    fn count(&mut self, place: Place, counts: bool) {
        let Some(known) = self.packs.get_mut(place.pack()).and_then(Option::as_mut) else {
            return;
        };
        let (stored, bytes) = match known.pack.fact(place.nth()) {
            Fact::Stored { start, end } => (1, u64::from(end - start)),
            Fact::Elsewhere | Fact::Forgotten { .. } => (0, 0),
        };
        if counts {
            known.live += 1;
            known.live_stored += stored;
            known.live_bytes += bytes;
        } else {
            known.live -= 1;
            known.live_stored -= stored;
            known.live_bytes -= bytes;
        }
    }

    /// Takes out packs that are gone; whether values went with them that are in no other.
    pub(super) fn remove(&mut self, names: &[Digest]) -> bool {
        let (mut counted, mut lost) = (false, false);
        for name in names {
            self.refused.remove(name);
            let Some(number) = self.numbers.remove(name) else {
                continue;
            };
            let removed = self.packs[number as usize].take();
            self.vacant.push(number);
            counted |= removed.as_ref().is_some_and(|known| known.live > 0);
            lost |= removed.is_some_and(|known| known.live_stored > 0);
        }
        if counted {
            self.judge_all();
        }
        lost
    }

    fn judge_all(&mut self) {
        self.winners.clear();
        let mut counts = Vec::with_capacity(self.packs.len());
        for known in &mut self.packs {
            let Some(known) = known else {
                counts.push(0);
                continue;
            };
            (known.live, known.live_stored, known.live_bytes) = (0, 0, 0);
            counts.push(known.pack.len());
        }
        for (number, count) in (0..).zip(counts) {
            for nth in 0..count {
                self.judge(Place::new(number, nth));
            }
        }
    }

    fn winner(&self, key: &Digest) -> Option<Place> {
        let hash = self.hasher.hash_one(key);
        let is_it = |place: &Place| key_of(&self.packs, *place) == Some(*key);
        self.winners.find(hash, is_it).copied()
    }

    pub(super) fn standing(&self, key: &Digest) -> Standing {
        let found = self
            .winner(key)
            .and_then(|place| Some((known(&self.packs, place)?, place.nth())));
        let Some((pack, nth)) = found else {
            return Standing::Unknown;
        };
        match pack.fact(nth) {
            Fact::Stored { start, end } => Standing::Packed(Slice {
                pack: pack.digest,
                offset: u64::from(start),
                length: u64::from(end - start),
            }),
            Fact::Elsewhere => Standing::Elsewhere,
            Fact::Forgotten { .. } => Standing::Forgotten,
        }
    }

    /// The version of the last write of a key, unless it has been forgotten since.
    pub(super) fn version(&self, key: &Digest) -> Option<Version> {
        let place = self.winner(key)?;
        let pack = known(&self.packs, place)?;
        match pack.fact(place.nth()) {
            Fact::Stored { .. } | Fact::Elsewhere => Some(pack.version(place.nth())),
            Fact::Forgotten { .. } => None,
        }
    }

    /// The records of a pack that count.
    pub(super) fn live(&self, name: &Digest) -> Vec<usize> {
        let (Some(number), Some(known)) = (self.numbers.get(name), self.pack(name)) else {
            return Vec::new();
        };
        let counts = |nth: &usize| {
            let key = known.pack.key(*nth);
            self.winner(&key) == Some(Place::new(*number, *nth))
        };
        (0..known.pack.len()).filter(counts).collect()
    }

    /// The keys whose values are in a pack.
    pub(super) fn stored_in(&self, name: &Digest) -> Vec<Digest> {
        let Some(known) = self.pack(name) else {
            return Vec::new();
        };
        let values = known.pack.stored();
        let live = self.live(name).into_iter();
        let stored = live.filter(|nth| values.contains(nth));
        stored.map(|nth| known.pack.key(nth)).collect()
    }

    /// Those of `keys` that some pack has a value of, whether it counts or not.
    pub(super) fn with_values(&self, keys: &HashSet<Digest>) -> HashSet<Digest> {
        let stored = self.packs().flat_map(|known| {
            let pack = &known.pack;
            pack.stored().map(|nth| pack.key(nth))
        });
        stored.filter(|key| keys.contains(key)).collect()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::super::pack::PackDraft;
    use super::*;

    /// A record as (key, version, what); few of each, so that they meet.
    type Told = (u8, u64, u8);

    fn pack_of(generation: u32, told: &[Told]) -> Pack {
        let mut draft = PackDraft::new(generation);
        for (key, version, what) in told {
            let (key, version) = (Digest::of(&[*key]), Version::new(*version).unwrap());
            match what {
                0 => draft.say_elsewhere(key, version),
                1 => draft.forget(key, version, 0),
                length => draft.store(key, version, Bytes::from(vec![1; usize::from(*length)])),
            }
        }
        draft.seal().0
    }

    fn all_standings(index: &PackIndex) -> Vec<Standing> {
        let keys = (0..6).map(|key| Digest::of(&[key]));
        keys.map(|key| index.standing(&key)).collect()
    }

    fn check_counts(index: &PackIndex) -> Result<(), TestCaseError> {
        for known in index.packs() {
            let live = index.live(&known.pack.digest);
            prop_assert_eq!(live.len(), known.live);
            let bytes = live.iter().map(|nth| match known.pack.fact(*nth) {
                Fact::Stored { start, end } => u64::from(end - start),
                Fact::Elsewhere | Fact::Forgotten { .. } => 0,
            });
            prop_assert_eq!(bytes.sum::<u64>(), known.live_bytes);
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn it_depends_on_the_packs_and_not_on_how_they_came(
            told in proptest::collection::vec(
                (0u32..3, proptest::collection::vec((0u8..6, 0u64..4, 0u8..5), 0..5)), 0..8),
            gone in proptest::collection::vec(any::<Index>(), 0..8),
            seed in any::<Index>(),
        ) {
            let packs = || told.iter().map(|(generation, told)| pack_of(*generation, told));
            let names: Vec<Digest> = packs().map(|pack| pack.digest).collect();
            let gone: HashSet<Digest> = match names.is_empty() {
                true => HashSet::new(),
                false => gone.iter().map(|at| *at.get(&names)).collect(),
            };
            let mut some = PackIndex::default();
            packs().for_each(|pack| some.insert(pack));
            check_counts(&some)?;
            some.remove(&gone.iter().copied().collect::<Vec<_>>());
            check_counts(&some)?;
            let mut other = PackIndex::default();
            let mut left: Vec<Pack> = packs().filter(|pack| !gone.contains(&pack.digest)).collect();
            left.reverse();
            if !left.is_empty() {
                let at = seed.index(left.len());
                left.rotate_left(at);
            }
            left.into_iter().for_each(|pack| other.insert(pack));
            prop_assert_eq!(all_standings(&some), all_standings(&other));
            check_counts(&other)?;
        }
    }

    #[test]
    fn a_million_blobs_cost_about_64_bytes_each() {
        // An eighth of them, for which the table is as full.
        const BLOBS: usize = 125_000;
        let mut index = PackIndex::default();
        for first in (0..BLOBS).step_by(1000) {
            let mut draft = PackDraft::new(0);
            for at in first..first + 1000 {
                let value = Bytes::copy_from_slice(&at.to_le_bytes());
                draft.store(Digest::of(&value), Version::default(), value);
            }
            index.insert(draft.seal().0);
        }
        assert_eq!(index.winners.len(), BLOBS);
        let packs = index.packs.capacity() * size_of::<Option<KnownPack>>();
        let records: usize = index.packs().map(|known| known.pack.memory_bytes()).sum();
        let bytes = packs + records + index.winners.allocation_size();
        assert!(bytes <= 64 * BLOBS, "{bytes} bytes for {BLOBS} blobs");
    }

    #[test]
    fn the_last_write_counts_and_what_is_forgotten_is_gone() {
        let mut index = PackIndex::default();
        let key = Digest::of(&[0]);
        let length = |index: &PackIndex| match index.standing(&key) {
            Standing::Packed(slice) => Some(slice.length),
            _ => None,
        };
        index.insert(pack_of(0, &[(0, 5, 7)]));
        index.insert(pack_of(0, &[(0, 3, 9)]));
        assert_eq!(length(&index), Some(7));
        index.insert(pack_of(0, &[(0, 6, 9)]));
        assert_eq!(length(&index), Some(9));
        index.insert(pack_of(0, &[(0, 5, 1)]));
        assert_eq!(
            length(&index),
            Some(9),
            "what was forgotten had been replaced"
        );
        index.insert(pack_of(0, &[(0, 6, 1)]));
        assert_eq!(index.standing(&key), Standing::Forgotten);
        index.insert(pack_of(9, &[(0, 6, 9)]));
        assert_eq!(
            index.standing(&key),
            Standing::Forgotten,
            "a copy changes nothing"
        );
    }
}
