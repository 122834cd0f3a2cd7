//! Requirements, each kept once however many tasks have them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use regatta_model::{Resources, SlotIndex, Timestamp};

use crate::avoidance::Group;
use crate::fleet::{AgentKey, AskedKey};
use crate::task::TaskKey;

/// All tasks that ask the same of an agent.
#[derive(Debug)]
pub(crate) struct Class {
    pub(crate) asked: AskedKey,
    pub(crate) resources: Resources,
    /// How many tasks there are of it, leased ones included.
    pub(crate) tasks: usize,
    /// Its place among those without tasks, while it has none.
    pub(crate) idle_since: Option<u64>,
    /// How many agents that are not lost could run it.
    pub(crate) live: usize,
    /// How many of them take new work, and can be counted on to have room for it again.
    pub(crate) willing: usize,
    /// How many leases of it those could have at once.
    pub(crate) slots: u64,
    /// How many of its tasks wait.
    pub(crate) waiting: usize,
    /// Whether it is listed as one of which tasks wait.
    pub(crate) queued: bool,
    /// Tasks that wait for an agent that can run them to appear, and since when; empty while there
    /// is one. Tasks that were cancelled are recognised by their arrival number.
    pub(crate) unsatisfiable: VecDeque<Unsatisfiable>,
    /// When the length of that wait last changed, and to what.
    pub(crate) grace: Option<(Timestamp, Grace)>,
    /// When the first of them is given up.
    pub(crate) give_up_at: Option<Timestamp>,
    /// When tasks may go back to where they were lost or have failed, if there are any.
    pub(crate) retry_anywhere_at: Option<Timestamp>,
    /// Those of them that have failed, by where.
    pub(crate) groups: BTreeMap<(AgentKey, SlotIndex), Group>,
    /// Since when tasks that were due later are granted what is too little for one of it.
    pub(crate) passed_over_since: Option<Timestamp>,
    /// Agents that take nothing else until there is enough.
    pub(crate) reserved: BTreeSet<AgentKey>,
    /// The last agent that was reserved in vain.
    pub(crate) reserved_in_vain: Option<AgentKey>,
}

/// A task that no agent can run now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unsatisfiable {
    pub(crate) task: TaskKey,
    pub(crate) arrival: u64,
    pub(crate) since: Timestamp,
}

/// How long work waits for an agent that can run it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grace {
    /// There are agents, none of which could ever run it.
    Mismatch,
    /// There is no agent, or those that could run it take no work.
    NoAgent,
}

impl Class {
    pub(crate) fn new(asked: AskedKey, resources: Resources) -> Self {
        Self {
            asked,
            resources,
            tasks: 0,
            idle_since: None,
            live: 0,
            willing: 0,
            slots: 0,
            waiting: 0,
            queued: false,
            unsatisfiable: VecDeque::new(),
            grace: None,
            give_up_at: None,
            retry_anywhere_at: None,
            groups: BTreeMap::new(),
            passed_over_since: None,
            reserved: BTreeSet::new(),
            reserved_in_vain: None,
        }
    }
}
