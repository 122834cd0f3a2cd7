//! Keeps the indexes true to what the agents are up to.

use super::{AgentKey, Fleet};
use crate::agent::Listing;
use crate::free_index::FreeShape;

impl Fleet {
    /// Brings the indexes up to date after an agent has changed.
    pub(crate) fn relist(&mut self, key: AgentKey) {
        let listing = self.agents[key].listing();
        self.list_as(key, listing);
    }

    /// Takes an agent out of the indexes, until it is listed again: before its size changes.
    pub(crate) fn unlist(&mut self, key: AgentKey) {
        self.list_as(key, Listing::default());
    }

    fn list_as(&mut self, key: AgentKey, new: Listing) {
        let old = std::mem::replace(&mut self.agents[key].listed, new);
        if old.live != new.live {
            self.live_agents = self.live_agents + usize::from(new.live) - usize::from(old.live);
        }
        if (old.live, old.willing) != (new.live, new.willing) {
            self.recount(key, old, new);
        }
        if old.free != new.free {
            self.file_as_free(key, old.free, new.free);
        }
    }

    /// Files an agent under what it has free now.
    pub(super) fn file_as_free(
        &mut self,
        key: AgentKey,
        old: Option<FreeShape>,
        new: Option<FreeShape>,
    ) {
        let Some(kind_key) = self.agents[key].kind else {
            return;
        };
        let free = &mut self.kinds[kind_key].free;
        if let Some(shape) = old {
            free.remove(shape, key);
        }
        if let Some(shape) = new {
            free.insert(shape, key);
        }
        if free.is_empty() {
            self.ready_kinds.remove(&kind_key);
        } else {
            self.ready_kinds.insert(kind_key);
        }
    }
}
