//! Requirements, each kept once however many tasks have them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use regatta_model::{Platform, Resources, Timestamp};

use crate::fleet::KindKey;
use crate::task::TaskKey;

/// All tasks that ask the same of an agent.
#[derive(Debug)]
pub(crate) struct Class {
    pub(crate) platform: Platform,
    pub(crate) resources: Resources,
    /// How many tasks there are of it, leased ones included.
    pub(crate) tasks: usize,
    /// The kinds of agents that can run it, and how many leases of it each agent can have at once.
    pub(crate) kinds: BTreeMap<KindKey, u32>,
    /// Those that have an agent with something free.
    pub(crate) ready_kinds: BTreeSet<KindKey>,
    /// How many agents that are not lost could run it.
    pub(crate) live: usize,
    /// How many of them take new work.
    pub(crate) willing: usize,
    /// How many leases of it those could have at once.
    pub(crate) slots: u64,
    /// Whether tasks of it wait.
    pub(crate) queued: bool,
    /// Tasks that wait for an agent that can run them to appear, and since when; empty while there
    /// is one. Tasks that were cancelled are recognised by their arrival number.
    pub(crate) unsatisfiable: VecDeque<Unsatisfiable>,
    /// When the length of that wait last changed, and to what.
    pub(crate) grace: Option<(Timestamp, Grace)>,
    /// When the first of them is given up.
    pub(crate) give_up_at: Option<Timestamp>,
    /// When lost tasks may go back to the agent that lost them, if there are any.
    pub(crate) retry_anywhere_at: Option<Timestamp>,
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
    pub(crate) fn new(platform: Platform, resources: Resources) -> Self {
        Self {
            platform,
            resources,
            tasks: 0,
            kinds: BTreeMap::new(),
            ready_kinds: BTreeSet::new(),
            live: 0,
            willing: 0,
            slots: 0,
            queued: false,
            unsatisfiable: VecDeque::new(),
            grace: None,
            give_up_at: None,
            retry_anywhere_at: None,
        }
    }
}
