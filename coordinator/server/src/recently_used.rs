//! A map that forgets.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::ops::RangeBounds;

/// Keeps the entries that were used last, up to a total weight.
#[derive(Debug)]
pub(crate) struct RecentlyUsed<Key, Value> {
    entries: BTreeMap<Key, Entry<Value>>,
    /// Keys by the moment of their last use, oldest first.
    order: BTreeMap<u64, Key>,
    next_use: u64,
    weight: usize,
    limit: usize,
}

#[derive(Debug)]
struct Entry<Value> {
    value: Value,
    weight: usize,
    used: u64,
}

impl<Key: Clone + Ord, Value> RecentlyUsed<Key, Value> {
    /// An empty map that holds entries of `limit` weight together.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            entries: BTreeMap::new(),
            order: BTreeMap::new(),
            next_use: 0,
            weight: 0,
            limit,
        }
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The value of a key, which counts as used now.
    pub(crate) fn get<Query>(&mut self, key: &Query) -> Option<&Value>
    where
        Key: Borrow<Query>,
        Query: Ord + ?Sized,
    {
        let entry = self.entries.get_mut(key)?;
        let key = self.order.remove(&entry.used)?;
        entry.used = self.next_use;
        self.order.insert(self.next_use, key);
        self.next_use += 1;
        Some(&entry.value)
    }

    /// Adds or replaces an entry and forgets the longest unused ones that no longer fit. An entry that
    /// alone is heavier than the limit is not kept.
    pub(crate) fn insert(&mut self, key: Key, value: Value, weight: usize) {
        self.remove(&key);
        if weight > self.limit {
            return;
        }
        while self.weight + weight > self.limit {
            let Some((_, oldest)) = self.order.pop_first() else {
                break;
            };
            self.forget(&oldest);
        }
        let used = self.next_use;
        self.next_use += 1;
        self.order.insert(used, key.clone());
        self.entries.insert(
            key,
            Entry {
                value,
                weight,
                used,
            },
        );
        self.weight += weight;
    }

    /// Takes an entry out.
    pub(crate) fn remove<Query>(&mut self, key: &Query) -> Option<Value>
    where
        Key: Borrow<Query>,
        Query: Ord + ?Sized,
    {
        let entry = self.forget(key)?;
        self.order.remove(&entry.used);
        Some(entry.value)
    }

    /// The entries whose keys lie in a range, in their order. None of them counts as used.
    pub(crate) fn range<Query, Range>(&self, range: Range) -> impl Iterator<Item = (&Key, &Value)>
    where
        Key: Borrow<Query>,
        Query: Ord + ?Sized,
        Range: RangeBounds<Query>,
    {
        let entries = self.entries.range(range);
        entries.map(|(key, entry)| (key, &entry.value))
    }

    fn forget<Query>(&mut self, key: &Query) -> Option<Entry<Value>>
    where
        Key: Borrow<Query>,
        Query: Ord + ?Sized,
    {
        let entry = self.entries.remove(key)?;
        self.weight -= entry.weight;
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_unused_goes_first() {
        let mut map = RecentlyUsed::new(3);
        for key in ["a", "b", "c"] {
            map.insert(key, (), 1);
        }
        assert!(map.get("a").is_some());
        map.insert("d", (), 2);
        assert!(map.get("a").is_some(), "it was used");
        assert!(
            map.get("b").is_none() && map.get("c").is_none(),
            "both had to make room"
        );
        assert!(map.get("d").is_some());
    }

    #[test]
    fn replacing_and_removing_give_the_weight_back() {
        let mut map = RecentlyUsed::new(2);
        map.insert("a", 1, 2);
        map.insert("a", 2, 1);
        map.insert("b", 3, 1);
        assert_eq!(map.get("a"), Some(&2));
        assert_eq!(map.remove("a"), Some(2));
        map.insert("c", 4, 1);
        assert_eq!(map.get("b"), Some(&3));
        assert_eq!(map.range::<&str, _>("b".."c").count(), 1);
        map.insert("heavy", 5, 3);
        assert_eq!(map.get("heavy"), None);
    }
}
