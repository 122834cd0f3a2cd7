//! A map that knows what was used least recently.

use std::collections::HashMap;
use std::hash::Hash;

/// A map whose entries stand in the order of their last use, each with a weight. Every operation takes
/// constant time. The map evicts nothing by itself.
#[derive(Debug)]
pub(crate) struct LruMap<K, V> {
    places: HashMap<K, usize>,
    nodes: Vec<Node<K, V>>,
    vacant: Vec<usize>,
    /// The ends of a ring through `nodes`, if there is any node in use.
    ends: Option<Ends>,
    weight: u64,
}

#[derive(Debug, Clone, Copy)]
struct Ends {
    oldest: usize,
    newest: usize,
}

#[derive(Debug)]
struct Node<K, V> {
    key: K,
    /// `None` in a vacant node.
    value: Option<V>,
    weight: u64,
    older: Option<usize>,
    newer: Option<usize>,
}

impl<K: Copy + Eq + Hash, V> LruMap<K, V> {
    pub(crate) fn new() -> Self {
        Self {
            places: HashMap::new(),
            nodes: Vec::new(),
            vacant: Vec::new(),
            ends: None,
            weight: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// The sum of the weights of all entries.
    pub(crate) fn weight(&self) -> u64 {
        self.weight
    }

    #[cfg(test)]
    fn contains(&self, key: &K) -> bool {
        self.places.contains_key(key)
    }

    /// The value of a key, which counts as a use.
    pub(crate) fn touch(&mut self, key: &K) -> Option<&mut V> {
        let place = *self.places.get(key)?;
        self.unlink(place);
        self.link_newest(place);
        self.nodes[place].value.as_mut()
    }

    /// Sets the value of a key, which counts as a use.
    pub(crate) fn insert(&mut self, key: K, value: V, weight: u64) {
        self.remove(&key);
        let node = Node {
            key,
            value: Some(value),
            weight,
            older: None,
            newer: None,
        };
        let place = match self.vacant.pop() {
            Some(place) => {
                self.nodes[place] = node;
                place
            }
            None => {
                self.nodes.push(node);
                self.nodes.len() - 1
            }
        };
        self.places.insert(key, place);
        self.weight += weight;
        self.link_newest(place);
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let place = self.places.remove(key)?;
        self.unlink(place);
        self.vacant.push(place);
        self.weight -= self.nodes[place].weight;
        self.nodes[place].value.take()
    }

    /// Takes out what was used least recently.
    pub(crate) fn pop_oldest(&mut self) -> Option<(K, V)> {
        let key = self.nodes[self.ends?.oldest].key;
        self.remove(&key).map(|value| (key, value))
    }

    fn unlink(&mut self, place: usize) {
        let (older, newer) = (
            self.nodes[place].older.take(),
            self.nodes[place].newer.take(),
        );
        if let Some(older) = older {
            self.nodes[older].newer = newer;
        }
        if let Some(newer) = newer {
            self.nodes[newer].older = older;
        }
        self.ends = self.ends.and_then(|ends| {
            let oldest = if ends.oldest == place {
                newer?
            } else {
                ends.oldest
            };
            let newest = if ends.newest == place {
                older?
            } else {
                ends.newest
            };
            Some(Ends { oldest, newest })
        });
    }

    fn link_newest(&mut self, place: usize) {
        let oldest = match self.ends {
            Some(ends) => {
                self.nodes[ends.newest].newer = Some(place);
                self.nodes[place].older = Some(ends.newest);
                ends.oldest
            }
            None => place,
        };
        self.ends = Some(Ends {
            oldest,
            newest: place,
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Insert(u8, u8),
        Touch(u8),
        Remove(u8),
        Pop,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0..12u8, 0..5u8).prop_map(|(key, weight)| Step::Insert(key, weight)),
            (0..12u8).prop_map(Step::Touch),
            (0..12u8).prop_map(Step::Remove),
            Just(Step::Pop),
        ];
        proptest::collection::vec(step, 0..200)
    }

    /// The same map, slow and obvious: a list, oldest first.
    fn apply_to_model(model: &mut Vec<(u8, u8)>, step: &Step) -> Option<(u8, u8)> {
        let at = |model: &[(u8, u8)], key| model.iter().position(|entry| entry.0 == key);
        match *step {
            Step::Insert(key, weight) => {
                model.retain(|entry| entry.0 != key);
                model.push((key, weight));
                None
            }
            Step::Touch(key) => {
                let entry = at(model, key).map(|at| model.remove(at))?;
                model.push(entry);
                Some(entry)
            }
            Step::Remove(key) => at(model, key).map(|at| model.remove(at)),
            Step::Pop => (!model.is_empty()).then(|| model.remove(0)),
        }
    }

    fn apply(map: &mut LruMap<u8, u8>, step: &Step) -> Option<(u8, u8)> {
        match *step {
            Step::Insert(key, weight) => {
                map.insert(key, weight, u64::from(weight));
                None
            }
            Step::Touch(key) => map.touch(&key).map(|value| (key, *value)),
            Step::Remove(key) => map.remove(&key).map(|value| (key, value)),
            Step::Pop => map.pop_oldest(),
        }
    }

    proptest! {
        #[test]
        fn it_behaves_like_a_list_in_order_of_use(steps in steps()) {
            let (mut map, mut model) = (LruMap::new(), Vec::new());
            for step in &steps {
                prop_assert_eq!(apply(&mut map, step), apply_to_model(&mut model, step));
                prop_assert_eq!(map.len(), model.len());
                let weight: u64 = model.iter().map(|entry| u64::from(entry.1)).sum();
                prop_assert_eq!(map.weight(), weight);
                prop_assert!(model.iter().all(|entry| map.contains(&entry.0)));
            }
        }
    }
}
