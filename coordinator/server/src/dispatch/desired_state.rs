//! What an agent is to do, as the message that tells it.

use std::sync::Arc;

use regatta_model::LeaseId;
use regatta_scheduler::{DesiredAgent, DesiredLease, UnitError};
use regatta_wire::convert::duration_to_wire;
use regatta_wire::v1;

use super::dispatcher::Dispatcher;
use super::leases::{Recipe, spec_per_unit};

impl Dispatcher {
    /// A desired state as a message, with what an agent needs to do the leases that are new to it.
    pub(super) async fn wire_state(&self, desired: DesiredAgent) -> v1::DesiredState {
        let mut leases = Vec::with_capacity(desired.leases.len());
        for lease in &desired.leases {
            leases.extend(self.wire_lease(lease).await);
        }
        v1::DesiredState {
            version: desired.version,
            leases,
            observed_sequence: desired.observed_sequence,
            drain: desired.drain,
            heartbeat_interval: Some(duration_to_wire(self.heartbeat_interval)),
        }
    }

    /// One lease of it; `None` if its specification could not be made, which dooms its work.
    async fn wire_lease(&self, desired: &DesiredLease) -> Option<v1::DesiredLease> {
        let (acknowledged, source) = {
            let board = self.lock();
            match board.leases.get(desired.lease) {
                Some(lease) => {
                    let source = (!desired.known_to_agent).then(|| {
                        (
                            lease.recipe.clone(),
                            Arc::clone(&lease.work),
                            lease.units.clone(),
                            (lease.task, lease.avoid_slot),
                            self.claim_key.seal(desired, lease),
                        )
                    });
                    (lease.acknowledged(desired), source)
                }
                // Granted before this process started, or ended since.
                None => (desired.acknowledged_outcomes, None),
            }
        };
        let spec = match source {
            None | Some((Recipe::Known { .. }, ..)) => None,
            Some((Recipe::PerUnit, work, units, named, claim)) => {
                Some((spec_per_unit(&work, &units), named, claim))
            }
            Some((Recipe::Prepared(preparation), _, _, named, claim)) => match preparation.await {
                Ok(spec) => Some((spec, named, claim)),
                Err(error) => {
                    self.doom(desired.lease, error.to_string());
                    return None;
                }
            },
        };
        let spec = spec.map(|(spec, (task, avoid_slot), claim)| v1::LeaseSpec {
            task_id: task.0,
            avoid_slot: avoid_slot.map(|slot| slot.0),
            claim,
            ..spec
        });
        Some(v1::DesiredLease {
            lease_id: desired.lease.0,
            fencing_token: desired.token.0,
            acknowledged_outcomes: acknowledged,
            spec,
        })
    }

    /// Ends the work of a lease that cannot be described to its agent.
    fn doom(&self, lease: LeaseId, reason: String) {
        let failure = UnitError::AttemptsExhausted {
            attempts: 1,
            last_reason: reason,
        };
        let tasks = self.lock().doom(lease, &failure);
        for task in tasks {
            self.cancel_task(task);
        }
    }
}
