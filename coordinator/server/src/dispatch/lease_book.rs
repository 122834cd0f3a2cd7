//! The leases that were granted and have not ended, by id and by agent.

use std::collections::{BTreeSet, HashMap};

use regatta_model::{AgentId, LeaseId};

use super::leases::Lease;

/// Every lease; what concerns one agent costs no more than that agent's leases.
#[derive(Debug, Default)]
pub(super) struct LeaseBook {
    by_id: HashMap<LeaseId, Lease>,
    by_agent: HashMap<AgentId, BTreeSet<LeaseId>>,
}

impl LeaseBook {
    pub(super) fn get(&self, id: LeaseId) -> Option<&Lease> {
        self.by_id.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: LeaseId) -> Option<&mut Lease> {
        self.by_id.get_mut(&id)
    }

    pub(super) fn insert(&mut self, id: LeaseId, lease: Lease) {
        let agent = self.by_agent.entry(lease.agent.clone()).or_default();
        agent.insert(id);
        self.by_id.insert(id, lease);
    }

    /// The leases of an agent, by id.
    pub(super) fn of_agent(&self, agent: &AgentId) -> impl Iterator<Item = (LeaseId, &Lease)> {
        let ids = self.by_agent.get(agent).into_iter().flatten();
        ids.filter_map(|id| Some((*id, self.by_id.get(id)?)))
    }

    /// Ends every lease of an agent that it is not to hold.
    pub(super) fn retain(&mut self, agent: &AgentId, held: &BTreeSet<LeaseId>) {
        let Some(leases) = self.by_agent.get_mut(agent) else {
            return;
        };
        leases.retain(|id| {
            let is_held = held.contains(id);
            if !is_held {
                self.by_id.remove(id);
            }
            is_held
        });
        if leases.is_empty() {
            self.by_agent.remove(agent);
        }
    }
}
