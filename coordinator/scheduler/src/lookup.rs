//! A hash map that can only be asked, never walked.

use std::borrow::Borrow;
#[expect(
    clippy::disallowed_types,
    reason = "its order is never seen: this wrapper has no way to iterate"
)]
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher, Hash};

/// A hash map without iteration and without a random seed, so that it can decide nothing.
#[derive(Debug)]
pub(crate) struct Lookup<Key, Value> {
    #[expect(
        clippy::disallowed_types,
        reason = "its order is never seen: this wrapper has no way to iterate"
    )]
    entries: HashMap<Key, Value, BuildHasherDefault<DefaultHasher>>,
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
