//! What the coordinator wishes for, and what the agent makes of it.

use regatta_model::{PlantedBug, Timestamp};

use super::AgentCore;
use crate::config::HEARTBEAT_INTERVAL_LIMITS;
use crate::effect::Effect;
use crate::event::{ConnectionId, DesiredLease, DesiredState, LeaseKey};
use crate::lease::{Lease, Waiting};
use crate::life::Life;

impl<Spec: Clone, Outcome: Clone> AgentCore<Spec, Outcome> {
    /// Moves towards what the coordinator wishes for. States of another connection and states that
    /// were overtaken by later ones say nothing about now.
    pub(super) fn take_desired(
        &mut self,
        now: Timestamp,
        id: ConnectionId,
        state: DesiredState<Spec>,
        effects: &mut Vec<Effect<Spec, Outcome>>,
    ) {
        let open = self.connection.as_mut().filter(|open| open.id == id);
        if !open.is_some_and(|open| open.observe(state.version)) {
            return;
        }
        let (shortest, longest) = (
            *HEARTBEAT_INTERVAL_LIMITS.start(),
            *HEARTBEAT_INTERVAL_LIMITS.end(),
        );
        self.heartbeat_interval = state.heartbeat_interval.clamp(shortest, longest);
        self.report_by(now + self.heartbeat_interval);
        self.coordinator_drains = state.drain;

        self.given_up
            .retain(|key| state.leases.iter().any(|lease| lease.key == *key));
        let dropped = self.undesired(&state);
        let changed = !dropped.is_empty();
        for key in dropped {
            self.drop_lease(key, effects);
        }
        let mut news = false;
        let observed = state.observed_sequence;
        for desired in state.leases {
            news |= self.take_desired_lease(desired);
        }
        // A coordinator that did not know what a lease is for has recorded nothing of it yet.
        let is_unheard = self.leases.values().any(Lease::has_news)
            && self
                .connection
                .as_ref()
                .is_some_and(|open| open.is_last(observed));
        if changed || news || is_unheard {
            self.report_by(now);
        }
    }

    /// The leases that the coordinator has seen reported and leaves out.
    fn undesired(&self, state: &DesiredState<Spec>) -> Vec<LeaseKey> {
        let seen = |lease: &Lease<Spec, Outcome>| {
            lease
                .reported_in
                .is_some_and(|sequence| sequence <= state.observed_sequence)
        };
        let desired = |key: &LeaseKey| state.leases.iter().any(|lease| lease.key == *key);
        let dropped = self
            .leases
            .iter()
            .filter(|(key, lease)| seen(lease) && !desired(key));
        dropped.map(|(key, _)| *key).collect()
    }

    fn drop_lease(&mut self, key: LeaseKey, effects: &mut Vec<Effect<Spec, Outcome>>) {
        let Some(lease) = self.leases.remove(&key) else {
            return;
        };
        self.waiting.retain(|waiting| waiting.key != key);
        // Whoever wishes for it again has not heard that it is gone; it must not run twice.
        self.given_up.insert(key);
        if let Some(slot) = lease.place.working_slot()
            && !PlantedBug::StopForgotten.is_planted()
        {
            effects.push(Effect::Stop { slot, lease: key });
        }
    }

    /// Tells whether the coordinator has something to learn from the next report: that the lease is
    /// held now, or that it is lost, because nothing new is taken or nothing is known of it.
    fn take_desired_lease(&mut self, desired: DesiredLease<Spec>) -> bool {
        if let Some(lease) = self.leases.get_mut(&desired.key) {
            lease.acknowledge(desired.acknowledged_outcomes);
            return false;
        }
        let welcome = self.life == Life::Serving && self.unavailable_reason.is_none();
        match desired.work {
            Some(work) if welcome && !self.given_up.contains(&desired.key) => {
                let (key, spec) = (desired.key, work.spec);
                self.leases.insert(key, Lease::waiting(spec.clone()));
                self.waiting.push_back(Waiting {
                    key,
                    demand: work.demand,
                    avoid: work.avoid,
                    spec,
                });
            }
            Some(_) | None => {
                self.given_up.insert(desired.key);
            }
        }
        true
    }
}
