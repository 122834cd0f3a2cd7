//! Telling agents apart, no further than anybody asks.

use std::collections::{BTreeMap, BTreeSet};

use regatta_model::Platform;

use super::{AgentKey, AskedKey, Fleet, KindKey};
use crate::asked::AskedPlatform;
use crate::kind::Kind;

impl Fleet {
    /// The entry of a platform that is asked for. One that is new sets those agents apart that meet it.
    pub(super) fn ask(&mut self, platform: &Platform) -> AskedKey {
        if let Some(key) = self.asked_keys.get(platform) {
            return *key;
        }
        let asked = self.asked.insert(AskedPlatform::new(platform.clone()));
        self.asked_keys.insert(platform.clone(), asked);
        for (kind, agents) in self.meeting_by_kind(platform) {
            let mut identity = self.kinds[kind].asked.clone();
            identity.insert(asked);
            self.reidentify(kind, agents, identity);
        }
        asked
    }

    /// The agents that meet a platform, by kind.
    fn meeting_by_kind(&self, platform: &Platform) -> BTreeMap<KindKey, Vec<AgentKey>> {
        if *platform == Platform::default() {
            let kinds = self.kind_keys.values();
            return kinds.map(|kind| (*kind, self.all_of(*kind))).collect();
        }
        let mut by_kind: BTreeMap<KindKey, Vec<AgentKey>> = BTreeMap::new();
        for agent in self.offered.meeting(platform) {
            if let Some(kind) = self.agents[agent].kind {
                by_kind.entry(kind).or_default().push(agent);
            }
        }
        by_kind
    }

    fn all_of(&self, kind: KindKey) -> Vec<AgentKey> {
        self.kinds[kind].agents.iter().copied().collect()
    }

    /// Forgets a platform that no requirement names. Kinds that differed in it alone become one.
    pub(super) fn forget_asked(&mut self, asked: AskedKey) {
        let Some(forgotten) = self.asked.remove(asked) else {
            return;
        };
        self.asked_keys.remove(&forgotten.platform);
        for kind in forgotten.kinds {
            let mut identity = self.kinds[kind].asked.clone();
            identity.remove(&asked);
            let twin = self.kind_keys.get(&identity).copied();
            match twin.filter(|twin| self.kinds[*twin].agents.len() < self.kinds[kind].agents.len())
            {
                // Whoever are fewer move.
                Some(twin) => {
                    let agents = self.all_of(twin);
                    let old_identity = self.kinds[kind].asked.clone();
                    self.reidentify(twin, agents, old_identity);
                    self.rename(kind, identity);
                }
                None => self.reidentify(kind, self.all_of(kind), identity),
            }
        }
    }

    /// Makes some agents of a kind be of the kind with the given identity.
    fn reidentify(&mut self, kind: KindKey, agents: Vec<AgentKey>, identity: BTreeSet<AskedKey>) {
        let is_whole = agents.len() == self.kinds[kind].agents.len();
        if is_whole && !self.kind_keys.contains_key(&identity) {
            self.rename(kind, identity);
            return;
        }
        let target = self.kind_of(identity);
        for agent in agents {
            self.move_to(agent, target);
        }
    }

    /// Gives a kind another identity, which no kind has.
    fn rename(&mut self, key: KindKey, identity: BTreeSet<AskedKey>) {
        let kind = &mut self.kinds[key];
        let old = std::mem::replace(&mut kind.asked, identity.clone());
        for asked in old.difference(&identity) {
            if let Some(asked) = self.asked.get_mut(*asked) {
                asked.kinds.remove(&key);
            }
        }
        for asked in identity.difference(&old) {
            self.asked[*asked].kinds.insert(key);
        }
        self.kind_keys.remove(&old);
        self.kind_keys.insert(identity, key);
    }

    /// The kind of the agents that meet exactly these of the platforms asked for.
    fn kind_of(&mut self, identity: BTreeSet<AskedKey>) -> KindKey {
        if let Some(key) = self.kind_keys.get(&identity) {
            return *key;
        }
        let key = self.kinds.insert(Kind::new(identity.clone()));
        for asked in &identity {
            self.asked[*asked].kinds.insert(key);
        }
        self.kind_keys.insert(identity, key);
        key
    }

    fn move_to(&mut self, key: AgentKey, kind: KindKey) {
        let free = self.agents[key].listed.free;
        self.file_as_free(key, free, None);
        self.leave_kind(key);
        self.kinds[kind].agents.insert(key);
        self.agents[key].kind = Some(kind);
        self.file_as_free(key, None, free);
    }

    /// Makes an agent be of the kind that its platform says.
    pub(super) fn join_kind(&mut self, key: AgentKey) {
        let platform = &self.agents[key].platform;
        let identity = self
            .asked
            .iter()
            .filter(|(_, asked)| asked.platform.unmet_by(platform).is_empty())
            .map(|(asked, _)| asked)
            .collect();
        let kind = self.kind_of(identity);
        self.kinds[kind].agents.insert(key);
        self.agents[key].kind = Some(kind);
    }

    /// Takes an agent out of its kind, and the kind away with the last of them.
    pub(super) fn leave_kind(&mut self, key: AgentKey) {
        let Some(kind_key) = self.agents[key].kind.take() else {
            return;
        };
        let kind = &mut self.kinds[kind_key];
        kind.agents.remove(&key);
        if !kind.agents.is_empty() {
            return;
        }
        let Some(kind) = self.kinds.remove(kind_key) else {
            return;
        };
        for asked in &kind.asked {
            if let Some(asked) = self.asked.get_mut(*asked) {
                asked.kinds.remove(&kind_key);
            }
        }
        self.kind_keys.remove(&kind.asked);
    }
}
