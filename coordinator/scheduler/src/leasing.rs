//! How leases end.

use regatta_model::{LeaseId, PlantedBug};

use crate::batch::nanos;
use crate::scheduler::Scheduler;
use crate::timers::Timer;

impl Scheduler {
    /// Gives up on whatever of a lease has no outcome: its agent will not have one.
    pub(crate) fn lose_lease(&mut self, id: LeaseId, reason: &str) {
        let Some(lease) = self.leases.get_mut(&id) else {
            return;
        };
        let Some(task) = lease.task.filter(|_| !lease.pending.is_empty()) else {
            return;
        };
        let agent = lease.agent;
        let lost = std::mem::take(&mut lease.pending);
        let lost = lost.into_iter().map(|(unit, _)| unit).collect();
        self.blame(id);
        for unit in self.unlease(id, lost) {
            self.lose_unit(task, unit, agent, reason);
        }
        self.release(id);
        self.conclude(task);
    }

    /// Gives the units of a lease back that its agent was not told of. Nobody has lost them, so that it is no attempt.
    pub(crate) fn return_lease(&mut self, id: LeaseId) {
        let Some(lease) = self.leases.get_mut(&id) else {
            return;
        };
        // What an agent has may have begun.
        let Some(task) = lease.task.filter(|_| !lease.was_held) else {
            return;
        };
        let returned = std::mem::take(&mut lease.pending);
        let returned = returned.into_iter().map(|(unit, _)| unit).collect();
        // What another lease has, too, is not waited for.
        for unit in self.unlease(id, returned) {
            self.return_unit(task, unit);
        }
        self.release(id);
        self.conclude(task);
    }

    /// Ends a lease that has every outcome: it is not desired any more.
    pub(crate) fn release(&mut self, id: LeaseId) {
        self.expect_no_more(id);
        let Some(lease) = self.leases.get_mut(&id) else {
            return;
        };
        self.agents_to_tell.insert(lease.agent);
        if let Some(task) = lease.task.take() {
            lease.released_at = Some(self.now);
            self.tasks[task].end_lease(id, lease.granted_at, lease.charged_nanos);
        }
    }

    /// Gives back what a lease occupies: its agent says that nothing of it runs any more.
    pub(crate) fn vacate(&mut self, id: LeaseId) {
        let Some(lease) = self.leases.get_mut(&id) else {
            return;
        };
        if std::mem::replace(&mut lease.vacated, true) {
            return;
        }
        let taken_nanos = nanos(self.now.since(lease.granted_at));
        self.queue
            .settle(lease.run, lease.charged_nanos, taken_nanos);
        let agent = &mut self.fleet.agents[lease.agent];
        if let Some(slot) = lease.slot.take() {
            agent.working.remove(&slot);
        }
        if !PlantedBug::CapacityKept.is_planted() {
            agent.vacate(&lease.resources);
        }
        self.recover(id);
    }

    /// Forgets a lease that its agent does not hold.
    pub(crate) fn forget_lease(&mut self, id: LeaseId) {
        self.vacate(id);
        if let Some(lease) = self.leases.remove(&id) {
            self.fleet.agents[lease.agent].leases.remove(&id);
        }
    }

    /// Counts a lease that its agent has lost, once, and gives an agent a pause that has lost leases too
    /// many times in a row. Whatever is lost in one event, all that the machine held perhaps, is one
    /// failure of it.
    pub(crate) fn blame(&mut self, id: LeaseId) {
        let Some(lease) = self.leases.get_mut(&id) else {
            return;
        };
        if std::mem::replace(&mut lease.blamed, true) {
            return;
        }
        let key = lease.agent;
        let agent = &mut self.fleet.agents[key];
        if std::mem::replace(&mut agent.blamed_for, self.events) == self.events {
            return;
        }
        agent.consecutive_losses = agent.consecutive_losses.saturating_add(1);
        if agent.consecutive_losses < self.config.max_consecutive_losses.max(1) {
            return;
        }
        agent.consecutive_losses = 0;
        let until = self.now + self.config.cooling_off;
        let timer = Timer::CooledOff(key);
        self.timers
            .set(timer, &mut agent.cooling_off_until, Some(until));
    }
}
