//! What an agent is to do, as the message that tells it.

use std::sync::Arc;
use std::time::Duration;

use regatta_model::LeaseId;
use regatta_scheduler::{DesiredAgent, DesiredLease, Event, UnitError};
use regatta_wire::convert::duration_to_wire;
use regatta_wire::v1;
use tokio::time::timeout;

use super::board::Payloads;
use super::dispatcher::Dispatcher;
use super::leases::{Preparation, Recipe, spec_per_unit};
use super::work::PrepareError;

/// How long after a store has had no room for a batch that is known, so that nothing more is begun: a disk is looked at
/// every two seconds.
const HOLD_NOTICE: Duration = Duration::from_secs(5);

/// Why a lease's specification was not made.
enum Unprepared {
    /// Nothing is to be begun now.
    Held,
    Failed(PrepareError),
}

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

    /// One lease of it; `None` if its specification could not be made, which dooms its work, or gives it back to the
    /// queue if nothing is begun now.
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
            Some((Recipe::Prepared(preparation), _, _, named, claim)) => {
                match self.prepared(preparation).await {
                    Ok(spec) => Some((spec, named, claim)),
                    Err(Unprepared::Held) => {
                        self.take(Event::ReturnLease(desired.lease), Payloads::new());
                        return None;
                    }
                    Err(Unprepared::Failed(error)) => {
                        self.doom(desired.lease, error.to_string());
                        return None;
                    }
                }
            }
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

    /// What a lease takes, once it is made; it is not waited for while nothing is begun, for it may have to be stored.
    async fn prepared(&self, preparation: Preparation) -> Result<v1::LeaseSpec, Unprepared> {
        let mut holding = self.holding.subscribe();
        // The sender lives in `self`, so this cannot fail.
        let held = holding.wait_for(|is_held| *is_held);
        tokio::pin!(held);
        let error = tokio::select! {
            biased;
            made = preparation => match made {
                Ok(spec) => return Ok(spec),
                Err(error) => error,
            },
            _ = &mut held => return Err(Unprepared::Held),
        };
        match error {
            PrepareError::NoRoom { .. } => match timeout(HOLD_NOTICE, held).await {
                Ok(_) => Err(Unprepared::Held),
                Err(_) => Err(Unprepared::Failed(error)),
            },
            PrepareError::Failed { .. } => Err(Unprepared::Failed(error)),
        }
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
