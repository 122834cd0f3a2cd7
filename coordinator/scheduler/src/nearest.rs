//! Which agent comes nearest to what work asks for, and what it lacks, in words.

use crate::UnitError;
use crate::agent::Agent;
use crate::fleet::{ClassKey, Fleet};
use crate::scheduler::Scheduler;

/// How many agents are looked at to find the nearest.
const AGENT_LOOK_AHEAD: usize = 1024;
/// How long what an agent lacks may become, in bytes.
const MAX_MISMATCH_BYTES: usize = 1024;

impl Scheduler {
    /// Says which agent comes nearest to what a class asks for, and what it lacks.
    pub(crate) fn nearest_mismatch(&self, key: ClassKey) -> UnitError {
        let live = self.fleet.agents_by_id().filter(|agent| agent.listed.live);
        let candidates = live.take(AGENT_LOOK_AHEAD).map(|agent| {
            let lacks = mismatch(&self.fleet, agent, key);
            (lacks.len(), &agent.id, agent, lacks)
        });
        let nearest = candidates.min_by(|one, other| (one.0, one.1).cmp(&(other.0, other.1)));
        match nearest {
            Some((0, id, agent, _)) => UnitError::Unsatisfiable {
                nearest: id.to_string(),
                mismatch: shortened(format!("readiness: {}", unreadiness(agent))),
            },
            Some((_, id, agent, lacks)) => UnitError::Unsatisfiable {
                nearest: id.to_string(),
                mismatch: shortened(in_words(&self.fleet, agent, key, &lacks)),
            },
            None => UnitError::NoAgent,
        }
    }
}

/// What an agent lacks to run a class; nothing if it could.
fn mismatch(fleet: &Fleet, agent: &Agent, key: ClassKey) -> Vec<String> {
    let class = &fleet.classes[key];
    let unmet = fleet.platform_of(class).unmet_by(&agent.platform);
    let mut lacks: Vec<_> = unmet.iter().map(ToString::to_string).collect();
    let (needed, offered) = (class.resources, agent.resources);
    if needed.cpu_milli > offered.cpu_milli {
        lacks.push(format!(
            "{} thousandths of a CPU (offered: {})",
            needed.cpu_milli, offered.cpu_milli
        ));
    }
    if needed.memory_bytes > offered.memory_bytes {
        lacks.push(format!(
            "{} bytes of memory (offered: {})",
            needed.memory_bytes, offered.memory_bytes
        ));
    }
    if agent.slots == 0 {
        lacks.push("a slot (offered: 0)".to_owned());
    }
    lacks
}

/// What an agent lacks, and what it offers if it does not even know one of the properties.
fn in_words(fleet: &Fleet, agent: &Agent, key: ClassKey, lacks: &[String]) -> String {
    let lacks = lacks.join(" and ");
    let unmet = fleet
        .platform_of(&fleet.classes[key])
        .unmet_by(&agent.platform);
    if unmet.iter().all(|unmet| !unmet.offered.is_empty()) {
        return lacks;
    }
    let properties = agent.platform.iter();
    let offered: Vec<_> = properties
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    if offered.is_empty() {
        return format!("{lacks}; it offers no properties");
    }
    format!("{lacks}; it offers {}", offered.join(", "))
}

/// Why an agent that could run something does not.
fn unreadiness(agent: &Agent) -> String {
    match &agent.refusal {
        _ if agent.draining => "it is drained by an operator".to_owned(),
        Some(reason) => format!("it takes no new work: {reason}"),
        None => "it has not let go of work that it was told to stop".to_owned(),
    }
}

fn shortened(mut text: String) -> String {
    if text.len() > MAX_MISMATCH_BYTES {
        text.truncate(text.floor_char_boundary(MAX_MISMATCH_BYTES));
        text.push('\u{2026}');
    }
    text
}
