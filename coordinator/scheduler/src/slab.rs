//! Values that name each other by small numbers.

use std::cmp::Ordering;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Index, IndexMut};

/// The place of a value in its [`Slab`].
pub(crate) struct Key<Value> {
    index: u32,
    value: PhantomData<fn() -> Value>,
}

impl<Value> Key<Value> {
    /// The least key, for the beginning of a range.
    pub(crate) const FIRST: Self = Self {
        index: 0,
        value: PhantomData,
    };
}

impl<Value> Clone for Key<Value> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<Value> Copy for Key<Value> {}

impl<Value> PartialEq for Key<Value> {
    fn eq(&self, other: &Self) -> bool {
        self.index == other.index
    }
}

impl<Value> Eq for Key<Value> {}

impl<Value> PartialOrd for Key<Value> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<Value> Ord for Key<Value> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.index.cmp(&other.index)
    }
}

impl<Value> std::hash::Hash for Key<Value> {
    fn hash<Hasher: std::hash::Hasher>(&self, state: &mut Hasher) {
        self.index.hash(state);
    }
}

impl<Value> fmt::Debug for Key<Value> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "#{}", self.index)
    }
}

/// Values by [`Key`]. A key is used again once its value is gone: whoever removes a value removes
/// every key to it first.
#[derive(Debug)]
pub(crate) struct Slab<Value> {
    values: Vec<Option<Value>>,
    free: Vec<u32>,
}

impl<Value> Default for Slab<Value> {
    fn default() -> Self {
        Self {
            values: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<Value> Slab<Value> {
    pub(crate) fn insert(&mut self, value: Value) -> Key<Value> {
        let index = self.free.pop().unwrap_or_else(|| {
            self.values.push(None);
            u32::try_from(self.values.len() - 1).unwrap_or(u32::MAX)
        });
        self.values[index as usize] = Some(value);
        Key {
            index,
            value: PhantomData,
        }
    }

    pub(crate) fn get(&self, key: Key<Value>) -> Option<&Value> {
        self.values.get(key.index as usize)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, key: Key<Value>) -> Option<&mut Value> {
        self.values.get_mut(key.index as usize)?.as_mut()
    }

    pub(crate) fn remove(&mut self, key: Key<Value>) -> Option<Value> {
        let value = self.values.get_mut(key.index as usize)?.take();
        if value.is_some() {
            self.free.push(key.index);
        }
        value
    }

    /// A key that may or may not have a value, another one for each number, spread over all of them.
    pub(crate) fn scattered(&self, number: u64) -> Key<Value> {
        // Knuth's multiplicative hashing: neighbours land far apart.
        let hash = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize;
        let index = hash.checked_rem(self.values.len()).unwrap_or_default();
        Key {
            index: u32::try_from(index).unwrap_or_default(),
            value: PhantomData,
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key<Value>, &Value)> {
        self.values.iter().zip(0..).filter_map(|(value, index)| {
            let value = value.as_ref()?;
            let key = Key {
                index,
                value: PhantomData,
            };
            Some((key, value))
        })
    }
}

impl<Value> Index<Key<Value>> for Slab<Value> {
    type Output = Value;

    fn index(&self, key: Key<Value>) -> &Value {
        match &self.values[key.index as usize] {
            Some(value) => value,
            None => unreachable!("{key:?} outlived its value"),
        }
    }
}

impl<Value> IndexMut<Key<Value>> for Slab<Value> {
    fn index_mut(&mut self, key: Key<Value>) -> &mut Value {
        match &mut self.values[key.index as usize] {
            Some(value) => value,
            None => unreachable!("{key:?} outlived its value"),
        }
    }
}
