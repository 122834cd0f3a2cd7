//! Agents that differ in nothing that anybody asks for, seen as one.

use std::collections::BTreeSet;

use crate::fleet::{AgentKey, AskedKey};
use crate::free_index::FreeIndex;

/// All agents that meet the same of the platforms that are asked for.
///
/// What nobody asks for sets no agents apart: neither the host name that each has for itself, nor how
/// many bytes of memory it has. So there are as many kinds as the fleet's work can tell, however many
/// agents there are.
#[derive(Debug)]
pub(crate) struct Kind {
    /// The platforms that each of its agents meets.
    pub(crate) asked: BTreeSet<AskedKey>,
    pub(crate) agents: BTreeSet<AgentKey>,
    /// Those that can be granted something now, by what they have free.
    pub(crate) free: FreeIndex,
}

impl Kind {
    pub(crate) fn new(asked: BTreeSet<AskedKey>) -> Self {
        Self {
            asked,
            agents: BTreeSet::new(),
            free: FreeIndex::default(),
        }
    }
}
