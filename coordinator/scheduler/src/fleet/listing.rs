//! Keeps the indexes true to what the agents are up to.

use super::{AgentKey, Fleet, KindKey};
use crate::agent::Listing;

impl Fleet {
    /// Brings the indexes up to date after an agent has changed.
    pub(crate) fn relist(&mut self, key: AgentKey) {
        let listing = self.agents[key].listing();
        self.list_as(key, listing);
    }

    pub(super) fn unlist(&mut self, key: AgentKey) {
        self.list_as(key, Listing::default());
    }

    fn list_as(&mut self, key: AgentKey, new: Listing) {
        let agent = &mut self.agents[key];
        let old = std::mem::replace(&mut agent.listed, new);
        let Some(kind_key) = agent.kind.filter(|_| old != new) else {
            return;
        };
        let kind = &mut self.kinds[kind_key];
        if old.live != new.live {
            self.live_agents = self.live_agents + usize::from(new.live) - usize::from(old.live);
            if new.live {
                kind.live.insert(agent.id.clone());
            } else {
                kind.live.remove(&agent.id);
            }
        }
        kind.willing = kind.willing + usize::from(new.willing) - usize::from(old.willing);
        if (old.live, old.willing) != (new.live, new.willing) {
            self.recount(kind_key, old, new);
        }
        if old.free != new.free {
            self.refile(key, kind_key, old, new);
        }
    }

    /// Tells a kind's classes that one of its agents came or went.
    fn recount(&mut self, kind_key: KindKey, old: Listing, new: Listing) {
        for key in &self.kinds[kind_key].classes {
            let class = &mut self.classes[*key];
            let concurrency = class.kinds.get(&kind_key).copied().unwrap_or_default();
            class.live = class.live + usize::from(new.live) - usize::from(old.live);
            class.willing = class.willing + usize::from(new.willing) - usize::from(old.willing);
            class.slots = class.slots + u64::from(concurrency) * u64::from(new.willing)
                - u64::from(concurrency) * u64::from(old.willing);
            self.changed_classes.insert(*key);
        }
    }

    /// Files an agent under what it has free now.
    fn refile(&mut self, key: AgentKey, kind_key: KindKey, old: Listing, new: Listing) {
        let kind = &mut self.kinds[kind_key];
        let was_ready = !kind.free.is_empty();
        if let Some(shape) = old.free
            && let Some(agents) = kind.free.get_mut(&shape)
        {
            agents.remove(&key);
            if agents.is_empty() {
                kind.free.remove(&shape);
            }
        }
        if let Some(shape) = new.free {
            kind.free.entry(shape).or_default().insert(key);
        }
        let is_ready = !kind.free.is_empty();
        if was_ready == is_ready {
            return;
        }
        for class in &kind.classes {
            let ready = &mut self.classes[*class].ready_kinds;
            if is_ready {
                ready.insert(kind_key);
            } else {
                ready.remove(&kind_key);
            }
        }
    }
}
