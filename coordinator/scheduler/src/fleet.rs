//! Agents and requirements, and the indexes that bring them together.

mod choice;
mod listing;

use std::collections::{BTreeMap, BTreeSet};

use regatta_model::{AgentId, Platform, Resources};

use crate::Offer;
use crate::affinity::{Mark, Warmth};
use crate::agent::Agent;
use crate::class::Class;
use crate::kind::Kind;
use crate::lookup::Lookup;
use crate::slab::{Key, Slab};

pub(crate) type AgentKey = Key<Agent>;
pub(crate) type ClassKey = Key<Class>;
pub(crate) type KindKey = Key<Kind>;

/// Every agent, every requirement, and who can run what.
#[derive(Debug, Default)]
pub(crate) struct Fleet {
    pub(crate) agents: Slab<Agent>,
    pub(crate) classes: Slab<Class>,
    agent_keys: BTreeMap<AgentId, AgentKey>,
    kinds: Slab<Kind>,
    kind_keys: BTreeMap<(Platform, Resources, u32), KindKey>,
    class_keys: BTreeMap<(Platform, Resources), ClassKey>,
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
        self.relist(key);
        self.offer(key, None);
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

    /// The kinds that have agents which are not lost.
    pub(crate) fn live_kinds(&self) -> impl Iterator<Item = &Kind> {
        self.kind_keys
            .values()
            .map(|key| &self.kinds[*key])
            .filter(|kind| !kind.live.is_empty())
    }

    /// Asks for a class to be looked at when the step ends.
    pub(crate) fn mark_changed(&mut self, class: ClassKey) {
        self.changed_classes.insert(class);
    }

    pub(crate) fn take_changed_classes(&mut self) -> BTreeSet<ClassKey> {
        std::mem::take(&mut self.changed_classes)
    }

    /// Takes in what an agent offers from now on; nothing, when it is to be forgotten.
    pub(crate) fn offer(&mut self, key: AgentKey, offer: Option<&Offer>) {
        self.unlist(key);
        self.cool(key);
        if let Some(kind) = self.agents[key].kind.take() {
            self.leave_kind(kind);
        }
        let Some(offer) = offer else { return };
        let kind = self.join_kind(offer);
        let agent = &mut self.agents[key];
        agent.offer(offer);
        agent.kind = Some(kind);
        self.warm(key);
        self.relist(key);
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

    fn join_kind(&mut self, offer: &Offer) -> KindKey {
        let identity = (offer.platform.clone(), offer.resources, offer.slots);
        let key = match self.kind_keys.get(&identity) {
            Some(key) => *key,
            None => {
                let (platform, resources, slots) = identity.clone();
                let key = self.kinds.insert(Kind::new(platform, resources, slots));
                self.kind_keys.insert(identity, key);
                self.match_kind(key);
                key
            }
        };
        self.kinds[key].agents += 1;
        key
    }

    fn leave_kind(&mut self, key: KindKey) {
        let kind = &mut self.kinds[key];
        kind.agents -= 1;
        if kind.agents > 0 {
            return;
        }
        let Some(kind) = self.kinds.remove(key) else {
            return;
        };
        for class in kind.classes {
            self.classes[class].kinds.remove(&key);
        }
        self.kind_keys
            .remove(&(kind.platform, kind.resources, kind.slots));
    }

    fn match_kind(&mut self, key: KindKey) {
        for class in self.class_keys.values() {
            link(&mut self.kinds, &mut self.classes, key, *class);
        }
    }

    /// The class of a requirement, with one task more in it.
    pub(crate) fn join_class(&mut self, platform: Platform, resources: Resources) -> ClassKey {
        let identity = (platform, resources);
        let key = match self.class_keys.get(&identity) {
            Some(key) => *key,
            None => {
                let key = self
                    .classes
                    .insert(Class::new(identity.0.clone(), resources));
                self.class_keys.insert(identity, key);
                for kind in self.kind_keys.values() {
                    link(&mut self.kinds, &mut self.classes, *kind, key);
                }
                self.changed_classes.insert(key);
                key
            }
        };
        self.classes[key].tasks += 1;
        key
    }

    /// Takes one task out of a class; what remains of the class if it was the last.
    pub(crate) fn leave_class(&mut self, key: ClassKey) -> Option<Class> {
        self.classes[key].tasks -= 1;
        if self.classes[key].tasks > 0 {
            return None;
        }
        self.set_queued(key, false);
        self.changed_classes.remove(&key);
        let class = self.classes.remove(key)?;
        for kind in class.kinds.keys() {
            self.kinds[*kind].classes.remove(&key);
        }
        let identity = (class.platform, class.resources);
        self.class_keys.remove(&identity);
        let (platform, resources) = identity;
        Some(Class {
            platform,
            resources,
            ..class
        })
    }

    /// Notes whether tasks of a class wait.
    pub(crate) fn set_queued(&mut self, key: ClassKey, queued: bool) {
        let class = &mut self.classes[key];
        if class.queued == queued {
            return;
        }
        class.queued = queued;
        for kind in class.kinds.keys() {
            let waiting = &mut self.kinds[*kind].queued_classes;
            if queued {
                waiting.insert(key);
            } else {
                waiting.remove(&key);
            }
        }
    }

    /// Classes of which tasks wait and that an agent can run on what it has free.
    pub(crate) fn queued_classes_for(&self, key: AgentKey) -> impl Iterator<Item = ClassKey> {
        let agent = &self.agents[key];
        let free = agent.listed.free;
        let kind = agent.kind.filter(|_| free.is_some());
        kind.into_iter()
            .flat_map(|kind| self.kinds[kind].queued_classes.iter().copied())
            .filter(move |class| {
                let needed = &self.classes[*class].resources;
                free.is_some_and(|free| needed.fits_in(&free.resources))
            })
    }
}

/// Notes that a kind can run a class, if it can.
fn link(kinds: &mut Slab<Kind>, classes: &mut Slab<Class>, kind_key: KindKey, class_key: ClassKey) {
    let (kind, class) = (&mut kinds[kind_key], &mut classes[class_key]);
    let Some(concurrency) = kind.concurrency(class) else {
        return;
    };
    kind.classes.insert(class_key);
    class.kinds.insert(kind_key, concurrency);
    class.live += kind.live.len();
    class.willing += kind.willing;
    let willing = u64::try_from(kind.willing).unwrap_or(u64::MAX);
    class.slots = class
        .slots
        .saturating_add(u64::from(concurrency).saturating_mul(willing));
    if class.queued {
        kind.queued_classes.insert(class_key);
    }
    if !kind.free.is_empty() {
        class.ready_kinds.insert(kind_key);
    }
}
