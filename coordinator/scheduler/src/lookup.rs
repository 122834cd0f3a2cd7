//! A hash map that can only be asked, never walked.

use std::borrow::Borrow;
#[expect(
    clippy::disallowed_types,
    reason = "its order is never seen: this wrapper has no way to iterate"
)]
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// The golden ratio's and the square root of two's fractions, both odd: neither has a pattern.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
const OFFSET: u64 = 0x6a09_e667_f3bc_c909;

/// Mixes what it is fed by multiplication, eight bytes at a time. Its keys are numbers that the scheduler
/// has given out, and digests, which nobody can choose cheaply enough to make them collide.
#[derive(Debug, Default)]
struct MixingHasher {
    state: u64,
}

impl Hasher for MixingHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        let mixed = u128::from(self.state ^ number ^ OFFSET) * u128::from(MULTIPLIER);
        let folded = (mixed >> 64) ^ mixed;
        self.state = u64::try_from(folded & u128::from(u64::MAX)).unwrap_or_default();
    }

    fn finish(&self) -> u64 {
        self.state
    }
}

/// A hash map without iteration and without a random seed, so that it can decide nothing.
#[derive(Debug)]
pub(crate) struct Lookup<Key, Value> {
    #[expect(
        clippy::disallowed_types,
        reason = "its order is never seen: this wrapper has no way to iterate"
    )]
    entries: HashMap<Key, Value, BuildHasherDefault<MixingHasher>>,
}

impl<Key, Value> Default for Lookup<Key, Value> {
    fn default() -> Self {
        Self {
            entries: Default::default(),
        }
    }
}

impl<Key: Eq + Hash, Value> Lookup<Key, Value> {
    pub(crate) fn insert(&mut self, key: Key, value: Value) -> Option<Value> {
        self.entries.insert(key, value)
    }

    pub(crate) fn get<Asked>(&self, key: &Asked) -> Option<&Value>
    where
        Key: Borrow<Asked>,
        Asked: Eq + Hash + ?Sized,
    {
        self.entries.get(key)
    }

    pub(crate) fn get_mut<Asked>(&mut self, key: &Asked) -> Option<&mut Value>
    where
        Key: Borrow<Asked>,
        Asked: Eq + Hash + ?Sized,
    {
        self.entries.get_mut(key)
    }

    pub(crate) fn remove<Asked>(&mut self, key: &Asked) -> Option<Value>
    where
        Key: Borrow<Asked>,
        Asked: Eq + Hash + ?Sized,
    {
        self.entries.remove(key)
    }

    pub(crate) fn contains<Asked>(&self, key: &Asked) -> bool
    where
        Key: Borrow<Asked>,
        Asked: Eq + Hash + ?Sized,
    {
        self.entries.contains_key(key)
    }
}
