//! Agents come, fall silent, drain and go.

use regatta_model::{AgentId, PlantedBug};

use crate::fleet::AgentKey;
use crate::scheduler::Scheduler;
use crate::timers::Timer;
use crate::{DesiredAgent, DesiredLease, Effect};

impl Scheduler {
    /// Notes that an agent is there, now.
    pub(crate) fn heard_from(&mut self, key: AgentKey) {
        let silent_at = self.after(self.config.agent_timeout());
        let silent_at = (!PlantedBug::SilenceIgnored.is_planted()).then_some(silent_at);
        let agent = &mut self.fleet.agents[key];
        agent.connected = true;
        agent.lost = false;
        agent.last_report = self.now;
        let (silent, forget) = (Timer::AgentSilent(key), Timer::ForgetAgent(key));
        self.timers.set(silent, &mut agent.silent_at, silent_at);
        self.timers.set(forget, &mut agent.forget_at, None);
    }

    pub(crate) fn disconnected(&mut self, id: &AgentId) {
        if let Some(key) = self.fleet.agent_key(id) {
            self.fleet.agents[key].connected = false;
            self.end_reservation(key);
            self.fleet.relist(key);
        }
    }

    /// An agent that is not known is remembered for a while, so that it can be drained before it comes.
    pub(crate) fn drain(&mut self, id: &AgentId, drain: bool) {
        let key = self.fleet.enter(id);
        if self.fleet.agents[key].lost {
            self.remember_lost(key);
        }
        if std::mem::replace(&mut self.fleet.agents[key].draining, drain) != drain {
            self.agents_to_tell.insert(key);
        }
        self.fleet.relist(key);
        self.agents_to_fill.insert(key);
    }

    /// Expires every lease of an agent that has been silent for too long.
    pub(crate) fn lose_agent(&mut self, key: AgentKey) {
        let agent = &mut self.fleet.agents[key];
        let silent = self.now.since(agent.last_report);
        agent.lost = true;
        agent.connected = false;
        agent.foreign.clear();
        agent.foreign_since = None;
        agent.stuck.foreign = false;
        let silent_timer = Timer::AgentSilent(key);
        self.timers.set(silent_timer, &mut agent.silent_at, None);
        let id = agent.id.clone();
        self.remember_lost(key);
        self.end_reservation(key);
        self.fleet.relist(key);
        self.effect(Effect::AgentLost(id));
        let reason = format!("the agent was silent for {} s", silent.as_secs());
        self.drop_claims_but(key, &[]);
        for lease in self.fleet.agents[key].leases.clone() {
            self.lose_lease(lease, &reason);
            if !PlantedBug::FenceDropped.is_planted() {
                self.forget_lease(lease);
            }
        }
    }

    /// Remembers an agent that is not there for a while.
    pub(crate) fn remember_lost(&mut self, key: AgentKey) {
        let forget_at = self.after(self.config.forget_agents_after);
        let timer = Timer::ForgetAgent(key);
        let agent = &mut self.fleet.agents[key];
        self.timers
            .set(timer, &mut agent.forget_at, Some(forget_at));
    }

    pub(crate) fn forget_agent(&mut self, key: AgentKey) {
        let agent = &mut self.fleet.agents[key];
        let (forget, cooled) = (Timer::ForgetAgent(key), Timer::CooledOff(key));
        self.timers.set(forget, &mut agent.forget_at, None);
        self.timers.set(cooled, &mut agent.cooling_off_until, None);
        let overdue = Timer::Overdue(key);
        self.timers.set(overdue, &mut agent.overdue_at, None);
        self.end_reservation(key);
        self.agents_to_fill.remove(&key);
        self.agents_to_tell.remove(&key);
        self.fleet.forget(key);
    }

    pub(crate) fn end_cooling_off(&mut self, key: AgentKey) {
        let agent = &mut self.fleet.agents[key];
        let timer = Timer::CooledOff(key);
        self.timers.set(timer, &mut agent.cooling_off_until, None);
        self.fleet.relist(key);
        self.agents_to_fill.insert(key);
    }

    /// Tells each agent concerned what it should hold from now on. One that cannot hear is told as soon as
    /// it reports again, be it on its next connection or on this one.
    pub(crate) fn tell_agents(&mut self) {
        for key in std::mem::take(&mut self.agents_to_tell) {
            if self.fleet.agents[key].connected {
                self.tell_agent(key);
            } else {
                self.fleet.agents[key].missed_state = true;
            }
        }
    }

    fn tell_agent(&mut self, key: AgentKey) {
        let agent = &mut self.fleet.agents[key];
        agent.version = agent.version.saturating_add(1);
        agent.answered_sequence = Some(agent.sequence);
        let version = agent.version;
        let mut leases = Vec::with_capacity(agent.leases.len());
        for id in &agent.leases {
            let Some(lease) = self.leases.get_mut(id).filter(|lease| lease.task.is_some()) else {
                continue;
            };
            lease.first_version.get_or_insert(version);
            leases.push(DesiredLease {
                lease: lease.id,
                token: lease.token,
                acknowledged_outcomes: lease.acknowledged,
                known_to_agent: lease.first_reported.is_some(),
            });
        }
        for (lease, token, acknowledged_outcomes) in self.adoptions.of_agent(key) {
            leases.push(DesiredLease {
                lease,
                token,
                acknowledged_outcomes,
                known_to_agent: true,
            });
        }
        let desired = DesiredAgent {
            agent: agent.id.clone(),
            version,
            observed_sequence: agent.sequence,
            leases,
            drain: agent.draining,
        };
        self.step.effects.push(Effect::Desire(desired));
    }
}
