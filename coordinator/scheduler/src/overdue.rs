//! What agents were to let go of and did not.
//!
//! A process that cannot be killed keeps its lease for as long as it likes. What it occupies is never
//! granted to anyone else; after a while nobody counts on it either, so that work which only it could
//! run is given up in time.

use regatta_model::{LeaseId, Timestamp};

use crate::fleet::AgentKey;
use crate::lease::Lease;
use crate::scheduler::Scheduler;
use crate::timers::Timer;

impl Scheduler {
    /// Begins to watch an agent that has something to let go of, if it is not watched yet.
    pub(crate) fn watch_release(&mut self, key: AgentKey) {
        if self.fleet.agents[key].overdue_at.is_none() {
            self.arm_overdue(key);
        }
    }

    /// Writes off what an agent should have let go of by now.
    pub(crate) fn review_overdue(&mut self, key: AgentKey) {
        let limit = self.config.let_go_limit;
        let is_due = |since: Timestamp| since + limit <= self.now;
        let agent = &self.fleet.agents[key];
        let mut stuck = agent.stuck.clone();
        for lease in self.unreleased(key) {
            if lease.released_at.is_some_and(is_due) && stuck.leases.insert(lease.id) {
                stuck.resources = stuck.resources.plus(&lease.resources);
            }
        }
        stuck.foreign = agent.foreign_since.is_some_and(is_due);
        // What it can be counted on for changes: it is counted anew.
        self.fleet.unlist(key);
        self.fleet.agents[key].stuck = stuck;
        self.fleet.relist(key);
        self.agents_to_fill.insert(key);
        self.arm_overdue(key);
    }

    /// Leases that an agent need not hold and that may still be running.
    fn unreleased(&self, key: AgentKey) -> impl Iterator<Item = &Lease> {
        let leases = self.fleet.agents[key].leases.iter();
        let leases = leases.filter_map(|id| self.leases.get(id));
        leases.filter(|lease| lease.released_at.is_some() && !lease.vacated)
    }

    fn arm_overdue(&mut self, key: AgentKey) {
        let agent = &self.fleet.agents[key];
        let own = self
            .unreleased(key)
            .filter(|lease| !agent.stuck.leases.contains(&lease.id))
            .filter_map(|lease| lease.released_at);
        let foreign = agent.foreign_since.filter(|_| !agent.stuck.foreign);
        let first = own.chain(foreign).min();
        let deadline = first.map(|since| since + self.config.let_go_limit);
        let agent = &mut self.fleet.agents[key];
        let timer = Timer::Overdue(key);
        self.timers.set(timer, &mut agent.overdue_at, deadline);
    }

    /// Counts on what a lease occupied again, now that it is free after all.
    pub(crate) fn recover(&mut self, id: LeaseId) {
        let Some(lease) = self.leases.get(&id) else {
            return;
        };
        let key = lease.agent;
        if !self.fleet.agents[key].stuck.leases.contains(&id) {
            return;
        }
        self.fleet.unlist(key);
        let stuck = &mut self.fleet.agents[key].stuck;
        stuck.leases.remove(&id);
        stuck.resources = stuck.resources.minus(&lease.resources);
        self.fleet.relist(key);
    }
}
