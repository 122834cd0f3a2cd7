//! Agents that offer the same, seen as one.

use std::collections::{BTreeMap, BTreeSet};

use regatta_model::{AgentId, Platform, Resources};

use crate::class::Class;
use crate::fleet::{AgentKey, ClassKey};

/// All agents with equal slots, resources and platform.
///
/// Fleets of thousands of machines have few kinds of them, so what a class can run on is kept by kind.
#[derive(Debug)]
pub(crate) struct Kind {
    pub(crate) platform: Platform,
    pub(crate) resources: Resources,
    pub(crate) slots: u32,
    /// How many agents are of it.
    pub(crate) agents: usize,
    /// Those that are not lost.
    pub(crate) live: BTreeSet<AgentId>,
    /// How many of those take new work.
    pub(crate) willing: usize,
    /// Those that can be granted something now, by what they have free.
    pub(crate) free: BTreeMap<FreeShape, BTreeSet<AgentKey>>,
    /// The classes that it can run.
    pub(crate) classes: BTreeSet<ClassKey>,
    /// Those of which tasks wait.
    pub(crate) queued_classes: BTreeSet<ClassKey>,
}

/// What an agent has free; the most slots last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FreeShape {
    pub(crate) slots: u32,
    pub(crate) resources: Resources,
}

impl Kind {
    pub(crate) fn new(platform: Platform, resources: Resources, slots: u32) -> Self {
        Self {
            platform,
            resources,
            slots,
            agents: 0,
            live: BTreeSet::new(),
            willing: 0,
            free: BTreeMap::new(),
            classes: BTreeSet::new(),
            queued_classes: BTreeSet::new(),
        }
    }

    /// How many leases of `class` one agent of this kind can have at once; none if it can run none.
    pub(crate) fn concurrency(&self, class: &Class) -> Option<u32> {
        let by_cpu = ratio(self.resources.cpu_milli, class.resources.cpu_milli);
        let by_memory = ratio(self.resources.memory_bytes, class.resources.memory_bytes);
        let concurrency = self.slots.min(by_cpu).min(by_memory);
        (concurrency > 0 && class.platform.unmet_by(&self.platform).is_empty())
            .then_some(concurrency)
    }

    /// What this kind lacks to run `class`, in words; nothing if it can.
    pub(crate) fn mismatch(&self, class: &Class) -> Vec<String> {
        let unmet = class.platform.unmet_by(&self.platform);
        let mut lacks: Vec<_> = unmet.iter().map(ToString::to_string).collect();
        let (needed, offered) = (class.resources, self.resources);
        if needed.cpu_milli > offered.cpu_milli {
            lacks.push(format!(
                "{} thousandths of a CPU (offered: {})",
                needed.cpu_milli, offered.cpu_milli
            ));
        }
        if needed.memory_bytes > offered.memory_bytes {
            lacks.push(format!(
                "{} bytes of memory (offered: {})",
                needed.memory_bytes, offered.memory_bytes
            ));
        }
        if self.slots == 0 {
            lacks.push("a slot (offered: 0)".to_owned());
        }
        lacks
    }
}

fn ratio(offered: u64, needed: u64) -> u32 {
    let times = offered.checked_div(needed).unwrap_or(u64::MAX);
    u32::try_from(times).unwrap_or(u32::MAX)
}
