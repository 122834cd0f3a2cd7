//! Agents and requirements, and the indexes that bring them together.

mod choice;
mod kinds;
mod listing;
mod offered;
mod requirements;

use std::collections::{BTreeMap, BTreeSet};

use regatta_model::{AgentId, Platform, Resources};

use crate::Offer;
use crate::affinity::{Mark, Warmth, Wish};
use crate::agent::Agent;
use crate::asked::AskedPlatform;
use crate::class::Class;
use crate::kind::Kind;
use crate::lookup::Lookup;
use crate::slab::{Key, Slab};

use offered::Offered;

pub(crate) type AgentKey = Key<Agent>;
pub(crate) type AskedKey = Key<AskedPlatform>;
pub(crate) type ClassKey = Key<Class>;
pub(crate) type KindKey = Key<Kind>;

/// Every agent, every requirement, and who can run what.
#[derive(Debug, Default)]
pub(crate) struct Fleet {
    pub(crate) agents: Slab<Agent>,
    pub(crate) classes: Slab<Class>,
    agent_keys: BTreeMap<AgentId, AgentKey>,
    offered: Offered,
    kinds: Slab<Kind>,
    /// By the platforms that their agents meet.
    kind_keys: BTreeMap<BTreeSet<AskedKey>, KindKey>,
    /// Kinds that have an agent with something free.
    ready_kinds: BTreeSet<KindKey>,
    asked: Slab<AskedPlatform>,
    asked_keys: BTreeMap<Platform, AskedKey>,
    class_keys: BTreeMap<(AskedKey, Resources), ClassKey>,
    /// Classes of which tasks wait.
    queued_classes: BTreeSet<ClassKey>,
    /// Classes without tasks, remembered because the next task may be like the last; the oldest first.
    idle_classes: BTreeSet<(u64, ClassKey)>,
    /// Counts the times that a class became idle.
    idled: u64,
    /// Who has what ready.
    warm: Lookup<Mark, BTreeSet<AgentKey>>,
    live_agents: usize,
    /// Classes for which the number of agents that could run them has changed.
    changed_classes: BTreeSet<ClassKey>,
}

impl Fleet {
    pub(crate) fn agent_key(&self, id: &AgentId) -> Option<AgentKey> {
        self.agent_keys.get(id).copied()
    }

    /// Finds an agent, or begins to remember it.
    pub(crate) fn enter(&mut self, id: &AgentId) -> AgentKey {
        if let Some(key) = self.agent_keys.get(id) {
            return *key;
        }
        let key = self.agents.insert(Agent::new(id.clone()));
        self.agent_keys.insert(id.clone(), key);
        key
    }

    /// Forgets an agent that holds nothing.
    pub(crate) fn forget(&mut self, key: AgentKey) {
        self.agents[key].lost = true;
        self.withdraw(key);
        self.cool(key);
        if let Some(agent) = self.agents.remove(key) {
            self.agent_keys.remove(&agent.id);
        }
    }

    /// Every agent, by id.
    pub(crate) fn agents_by_id(&self) -> impl Iterator<Item = &Agent> {
        self.agent_keys.values().map(|key| &self.agents[*key])
    }

    pub(crate) fn has_live_agents(&self) -> bool {
        self.live_agents > 0
    }

    /// How much of a wish an agent lacks that another one has.
    pub(crate) fn colder_than_another(&self, key: AgentKey, wish: Wish) -> u32 {
        let is_anywhere = |mark| self.warm.contains(&mark);
        self.agents[key].warmth.coldness_among(wish, is_anywhere)
    }

    /// How many kinds of agents are told apart.
    #[cfg(test)]
    pub(crate) fn kinds(&self) -> usize {
        self.kind_keys.len()
    }

    /// Asks for a class to be looked at when the step ends.
    pub(crate) fn mark_changed(&mut self, class: ClassKey) {
        self.changed_classes.insert(class);
    }

    pub(crate) fn take_changed_classes(&mut self) -> BTreeSet<ClassKey> {
        std::mem::take(&mut self.changed_classes)
    }

    /// Takes in what an agent offers from now on.
    pub(crate) fn offer(&mut self, key: AgentKey, offer: &Offer) {
        self.cool(key);
        self.agents[key].warmth = Warmth::new(offer);
        self.warm(key);
        if self.agents[key].kind.is_some() && self.agents[key].has_offered(offer) {
            return;
        }
        self.withdraw(key);
        self.agents[key].offer(offer);
        self.offered.insert(&offer.platform, key);
        self.join_kind(key);
        self.relist(key);
    }

    /// Takes back what an agent offers, if it does.
    fn withdraw(&mut self, key: AgentKey) {
        self.unlist(key);
        self.offered.remove(&self.agents[key].platform, key);
        self.leave_kind(key);
    }

    fn warm(&mut self, key: AgentKey) {
        for mark in self.agents[key].warmth.marks() {
            match self.warm.get_mut(&mark) {
                Some(agents) => {
                    agents.insert(key);
                }
                None => {
                    self.warm.insert(mark, BTreeSet::from([key]));
                }
            }
        }
    }

    fn cool(&mut self, key: AgentKey) {
        let warmth: Warmth = std::mem::take(&mut self.agents[key].warmth);
        for mark in warmth.marks() {
            let Some(agents) = self.warm.get_mut(&mark) else {
                continue;
            };
            agents.remove(&key);
            if agents.is_empty() {
                self.warm.remove(&mark);
            }
        }
    }
}
