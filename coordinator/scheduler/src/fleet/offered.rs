//! Who offers which property.

use std::collections::{BTreeMap, BTreeSet};

use regatta_model::Platform;

use super::AgentKey;

/// The agents that offer each value of each property.
#[derive(Debug, Default)]
pub(super) struct Offered {
    by_name: BTreeMap<String, BTreeMap<String, BTreeSet<AgentKey>>>,
}

impl Offered {
    pub(super) fn insert(&mut self, platform: &Platform, agent: AgentKey) {
        for (name, value) in platform.iter() {
            let values = self.by_name.entry(name.to_owned()).or_default();
            values.entry(value.to_owned()).or_default().insert(agent);
        }
    }

    pub(super) fn remove(&mut self, platform: &Platform, agent: AgentKey) {
        for (name, value) in platform.iter() {
            let Some(values) = self.by_name.get_mut(name) else {
                continue;
            };
            if let Some(agents) = values.get_mut(value) {
                agents.remove(&agent);
                if agents.is_empty() {
                    values.remove(value);
                }
            }
            if values.is_empty() {
                self.by_name.remove(name);
            }
        }
    }

    /// Whether any agent offers any value of a property.
    pub(super) fn has_name(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// The agents that offer all of a platform, which asks for something.
    ///
    /// The rarest property is walked and the others are asked, so that one agent's own host name costs
    /// one look.
    pub(super) fn meeting(&self, platform: &Platform) -> Vec<AgentKey> {
        let agents = |(name, value): (&str, &str)| self.by_name.get(name)?.get(value);
        let offering: Option<Vec<_>> = platform.iter().map(agents).collect();
        let Some(mut offering) = offering else {
            return Vec::new();
        };
        offering.sort_by_key(|agents| agents.len());
        let Some((rarest, others)) = offering.split_first() else {
            return Vec::new();
        };
        let meets = |agent: &&AgentKey| others.iter().all(|agents| agents.contains(agent));
        rarest.iter().filter(meets).copied().collect()
    }
}
