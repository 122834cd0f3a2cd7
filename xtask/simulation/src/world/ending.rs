//! When everything is over, and what has to hold then.

use std::time::Duration;

use super::World;
use super::clients::Client;
use crate::coordinator::Coordinator;
use crate::machine::Machine;
use crate::violation::{Checked, Invariant};

impl World {
    pub(super) fn is_over(&self) -> bool {
        self.is_mended()
            && self.now >= self.plan.last_submission()
            && self.clients.iter().all(Client::is_done)
            && self.open_runs().is_empty()
    }

    pub(super) fn check_time(&self, ends_by: Duration) -> Checked {
        Invariant::EveryRunEnds.holds(self.now < ends_by, || {
            let queue = self.coordinator.as_ref().and_then(Coordinator::snapshot);
            format!(
                "after {:?} runs go on: {:?}; the scheduler has {queue:?}",
                self.now,
                self.open_runs()
            )
        })
    }

    pub(super) fn check_panics(&self) -> Checked {
        let panicked = crate::panics::take();
        Invariant::NothingPanics.holds(panicked.is_none(), || panicked.unwrap_or_default())
    }

    pub(super) fn check_capacity(&self) -> Checked {
        for machine in &self.machines {
            let busy = machine
                .core
                .as_ref()
                .map(regatta_agent_core::AgentCore::busy_slots);
            Invariant::CapacityReturns.holds(busy == Some(0), || {
                format!(
                    "{} has {busy:?} busy slots when nothing is left to do",
                    machine.name()
                )
            })?;
        }
        let snapshot = self.coordinator.as_ref().and_then(Coordinator::snapshot);
        let Some(snapshot) = snapshot else {
            return Err(Invariant::CapacityReturns.violated("no coordinator is there".to_owned()));
        };
        let is_idle = snapshot.queued_units == 0 && snapshot.leased_units == 0;
        let mut free = snapshot.agents.iter().filter(|agent| agent.connected);
        let slots = |name: &str| {
            let mut machines = self.machines.iter();
            let machine = machines.find(|machine| machine.name() == name);
            machine.map_or(0, Machine::slot_count)
        };
        let all = free.clone().count() == self.machines.len();
        let whole = free
            .all(|agent| agent.free_slots == slots(agent.agent.as_str()) && !agent.holds_foreign);
        Invariant::CapacityReturns.holds(is_idle && all && whole, || {
            format!("nothing is left to do, and the scheduler has {snapshot:?}")
        })
    }
}
