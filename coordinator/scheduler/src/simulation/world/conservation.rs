//! No machine idles while work waits that it could do, nor does it do again what another does.

use std::collections::BTreeSet;

use regatta_model::Resources;

use super::{World, task_index};
use crate::simulation::plan::WorkPlan;
use crate::{AgentSnapshot, Effect, Step};

impl World<'_> {
    /// Checks it twice: by what the scheduler would do, and by adding up what it has granted, which knows
    /// nothing of the scheduler's indexes.
    pub(super) fn check_conservation(&self) -> Result<(), String> {
        if let Some(idle) = self.scheduler.idle_agent() {
            return Err(format!(
                "work_conservation: {idle} has room for a task that waits"
            ));
        }
        let needs: BTreeSet<_> = self.waiting_work().map(needs_of).collect();
        if needs.is_empty() || self.held_by.is_some() {
            return Ok(());
        }
        for agent in self.scheduler.snapshot().agents {
            let room = self.room_of(&agent);
            let fits = |needs: &&(u64, Option<u8>)| {
                room.is_some_and(|(free, arch)| {
                    needs.0 <= free.cpu_milli && needs.1.is_none_or(|asked| asked % 3 == arch % 3)
                })
            };
            if let Some(needs) = needs.iter().find(fits) {
                return Err(format!(
                    "work_conservation: {needs:?} waits, and fits on {agent:?}"
                ));
            }
        }
        Ok(())
    }

    /// While nothing is to be begun, nothing is granted but what an agent has already.
    pub(super) fn check_hold(&self, step: &Step) -> Result<(), String> {
        let begins =
            |effect: &&Effect| matches!(effect, Effect::Granted(grant) if grant.adopted.is_none());
        match step.effects.iter().find(begins) {
            Some(begun) if self.held_by.is_some() => {
                Err(format!("nothing_is_begun_while_held: {begun:?}"))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// A second lease is granted only to a machine that could run nothing else which waits.
    pub(super) fn check_duplicates(&self, step: &Step) -> Result<(), String> {
        for effect in &step.effects {
            let Effect::Granted(grant) = effect else {
                continue;
            };
            let machine = self.by_id.get(&grant.agent);
            let machine = machine.filter(|_| grant.duplicates.is_some());
            let Some(machine) = machine.and_then(|index| self.plan.machines.get(*index)) else {
                continue;
            };
            let could_run = |work: &&WorkPlan| {
                let is_right = work.arch.is_none_or(|asked| asked % 3 == machine.arch % 3);
                is_right && work.cpu_milli <= machine.cpu_milli
            };
            let waiting = self.model.waiting();
            let mut waiting = waiting.filter_map(|(task, _)| self.plan.work.get(task_index(task)?));
            if let Some(work) = waiting.find(could_run) {
                return Err(format!(
                    "a_duplicate_takes_no_slot_that_other_work_wants: {grant:?} before {work:?}"
                ));
            }
        }
        Ok(())
    }

    /// Work that waits, and not for another place than the one that lost it or where it failed.
    fn waiting_work(&self) -> impl Iterator<Item = &WorkPlan> {
        let settled = self.model.waiting().filter(|(_, elsewhere_since)| {
            elsewhere_since.is_none_or(|since| since + self.config.retry_elsewhere <= self.now)
        });
        settled.filter_map(|(task, _)| self.plan.work.get(task_index(task)?))
    }

    /// What an agent has free, and its architecture, if it may be granted anything.
    fn room_of(&self, agent: &AgentSnapshot) -> Option<(Resources, u8)> {
        let takes_work = agent.connected
            && !agent.lost
            && !agent.draining
            && agent.refusal.is_none()
            && agent.cooling_off_until.is_none()
            && !agent.holds_foreign
            && !agent.reserved
            && agent.awaiting_adoption == 0;
        let machine = *self.by_id.get(&agent.agent)?;
        let planned = &self.plan.machines[machine];
        let running = agent.leases.iter().filter(|lease| lease.account.is_some());
        let work = running.clone().filter_map(|lease| {
            let grant = self.model.grants.get(&lease.lease)?;
            self.plan.work.get(task_index(grant.task)?)
        });
        let used: u64 = work.map(|work| work.cpu_milli).sum();
        let free = Resources {
            cpu_milli: planned.cpu_milli.checked_sub(used)?,
            memory_bytes: 0,
        };
        let has_slot = running.count() < planned.slots as usize;
        (takes_work && has_slot && agent.slots > 0).then_some((free, planned.arch))
    }
}

fn needs_of(work: &WorkPlan) -> (u64, Option<u8>) {
    (work.cpu_milli, work.arch)
}
