//! Agents by what they have free.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use regatta_model::Resources;

use crate::fleet::AgentKey;

/// What an agent has free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FreeShape {
    pub(crate) slots: u32,
    pub(crate) resources: Resources,
}

/// Agents by free slots, then by free CPU, then by free memory.
///
/// Memory comes in as many amounts as there are agents, and is searched; slots and CPU come in few, and
/// are walked.
#[derive(Debug, Default)]
pub(crate) struct FreeIndex {
    by_slots_and_cpu: BTreeMap<(u32, u64), BTreeSet<(u64, AgentKey)>>,
}

impl FreeIndex {
    pub(crate) fn is_empty(&self) -> bool {
        self.by_slots_and_cpu.is_empty()
    }

    pub(crate) fn insert(&mut self, free: FreeShape, agent: AgentKey) {
        let entry = (free.slots, free.resources.cpu_milli);
        let agents = self.by_slots_and_cpu.entry(entry).or_default();
        agents.insert((free.resources.memory_bytes, agent));
    }

    pub(crate) fn remove(&mut self, free: FreeShape, agent: AgentKey) {
        let entry = (free.slots, free.resources.cpu_milli);
        let Some(agents) = self.by_slots_and_cpu.get_mut(&entry) else {
            return;
        };
        agents.remove(&(free.resources.memory_bytes, agent));
        if agents.is_empty() {
            self.by_slots_and_cpu.remove(&entry);
        }
    }

    /// Every agent in which `needed` fits now, those with the most free first.
    pub(crate) fn fitting(&self, needed: Resources) -> impl Iterator<Item = AgentKey> {
        let with_cpu = self
            .by_slots_and_cpu
            .iter()
            .rev()
            .filter(move |((_, cpu_milli), _)| *cpu_milli >= needed.cpu_milli);
        with_cpu.flat_map(move |(_, agents)| {
            let enough = Bound::Included((needed.memory_bytes, AgentKey::FIRST));
            let agents = agents.range((enough, Bound::Unbounded));
            agents.rev().map(|(_, agent)| *agent)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slab::Slab;

    fn shape((slots, cpu_milli, memory_bytes): (u32, u64, u64)) -> FreeShape {
        FreeShape {
            slots,
            resources: Resources {
                cpu_milli,
                memory_bytes,
            },
        }
    }

    /// Finds what fits among four agents; they are named by their place.
    #[track_caller]
    fn check(cpu_milli: u64, memory_bytes: u64, expected: &[usize]) {
        let shapes = [(1, 4000, 7), (2, 1000, 9), (2, 1000, 8), (3, 500, 99)].map(shape);
        let mut agents = Slab::default();
        let keys: Vec<AgentKey> = (0..4)
            .map(|_| agents.insert(crate::agent::Agent::new("a".parse().unwrap())))
            .collect();
        let mut index = FreeIndex::default();
        for (shape, key) in shapes.iter().zip(&keys) {
            index.insert(*shape, *key);
        }
        let needed = shape((0, cpu_milli, memory_bytes)).resources;
        let found: Vec<_> = index.fitting(needed).collect();
        let expected: Vec<_> = expected.iter().map(|place| keys[*place]).collect();
        assert_eq!(found, expected);
        for (shape, key) in shapes.iter().zip(&keys) {
            index.remove(*shape, *key);
        }
        assert!(index.is_empty());
    }

    #[test]
    fn what_fits_is_found_to_the_byte_and_the_most_free_comes_first() {
        check(0, 0, &[3, 1, 2, 0]);
        check(1000, 0, &[1, 2, 0]);
        check(1000, 8, &[1, 2]);
        check(1000, 9, &[1]);
        check(1001, 7, &[0]);
        check(1001, 8, &[]);
    }
}
