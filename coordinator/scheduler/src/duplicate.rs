//! A second lease for a batch that is late.
//!
//! Once nothing of a task is left to cut, an idle slot can do no more for it than what another slot has begun. If
//! that takes much longer than it should, its machine is slow or does not answer, and a second one may end first
//! (backup tasks: Dean and Ghemawat, 2004). The first answer of a unit counts, whichever lease it comes from;
//! what one of the two loses, the other still has, so that it is neither lost nor tried again.
//!
//! A batch has at most one duplicate, on another agent, and that only while nothing waits which that agent could
//! run. A duplicate has none.

use regatta_model::{LeaseId, UnitIndex};

use crate::batch::nanos;
use crate::fleet::AgentKey;
use crate::grant::Batch;
use crate::scheduler::Scheduler;
use crate::task::TaskKey;
use crate::timers::Timer;

/// How many late leases are looked at in one step: what they may cost.
const LATE_LOOK_AHEAD: usize = 16;
/// How many times its overhead a batch may take to start before that counts as late.
const LATE_OVERHEAD_FACTOR: u64 = 3;

impl Scheduler {
    /// How long a batch takes at most; `None` if it is never run twice at once.
    pub(crate) fn late_nanos(&self, key: TaskKey, batch: &Batch) -> Option<u64> {
        let task = &self.tasks[key];
        let units = task.late_nanos(batch.units.iter().copied())?;
        let start = nanos(task.overhead).saturating_mul(LATE_OVERHEAD_FACTOR);
        Some(units.saturating_add(start))
    }

    /// A lease is late unless something comes of it within so long.
    pub(crate) fn expect(&mut self, id: LeaseId, within_nanos: u64) {
        let within = std::time::Duration::from_nanos(within_nanos);
        let late_at = self.after(within.max(self.config.earliest_late));
        if let Some(lease) = self.leases.get_mut(&id) {
            self.timers
                .set(Timer::Late(id), &mut lease.late_at, Some(late_at));
            self.late.remove(&id);
        }
    }

    /// Something has come of a lease that could be late: its units run one by one, and the next has begun.
    pub(crate) fn progress(&mut self, id: LeaseId) {
        let Some(lease) = self.leases.get(&id) else {
            return;
        };
        let can_be_late = lease.late_at.is_some() || self.late.contains(&id);
        let (Some(task), Some((next, _)), true) = (lease.task, lease.pending.first(), can_be_late)
        else {
            return;
        };
        if let Some(late_nanos) = self.tasks[task].late_nanos([*next].into_iter()) {
            self.expect(id, late_nanos);
        }
    }

    /// A lease is over: it is not late any more.
    pub(crate) fn expect_no_more(&mut self, id: LeaseId) {
        self.late.remove(&id);
        if let Some(lease) = self.leases.get_mut(&id) {
            self.timers.set(Timer::Late(id), &mut lease.late_at, None);
        }
    }

    pub(crate) fn find_late(&mut self, id: LeaseId) {
        self.expect_no_more(id);
        self.late.insert(id);
    }

    /// Gives late batches to slots for which there is nothing else to do.
    pub(crate) fn duplicate_late(&mut self) {
        if self.hold.is_some() || !self.fleet.is_ready() {
            return;
        }
        let late: Vec<LeaseId> = self.late.iter().take(LATE_LOOK_AHEAD).copied().collect();
        for id in late {
            if let Some((task, agent)) = self.place_for_duplicate(id) {
                self.duplicate(id, task, agent);
            }
        }
    }

    /// Where a lease could be duplicated.
    fn place_for_duplicate(&self, id: LeaseId) -> Option<(TaskKey, AgentKey)> {
        let lease = self.leases.get(&id)?;
        let key = lease.task?;
        let task = &self.tasks[key];
        let besides = Some(lease.agent);
        let agent = self.fleet.best_agent(task, self.now, besides)?;
        // What waits of the task itself is among it.
        let is_wanted = self.fleet.queued_classes_for(agent).next().is_some();
        (!is_wanted).then_some((key, agent))
    }

    fn duplicate(&mut self, id: LeaseId, key: TaskKey, agent: AgentKey) {
        self.expect_no_more(id);
        let Some(lease) = self.leases.get(&id) else {
            return;
        };
        let units: Vec<UnitIndex> = lease.pending.iter().map(|(unit, _)| *unit).collect();
        let task = &self.tasks[key];
        let lengths = units.iter().filter_map(|unit| task.unit(*unit));
        let length_nanos = lengths.map(|unit| unit.expected_nanos).sum();
        let batch = Batch {
            units,
            length_nanos,
            run: lease.run,
            queued: std::time::Duration::ZERO,
            duplicates: Some(id),
        };
        let twin = self.lease(key, agent, batch);
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.twin = twin;
        }
    }

    /// Whether another lease has a unit of a lease, too, and may yet answer it.
    pub(crate) fn is_shared(&self, id: LeaseId, unit: UnitIndex) -> bool {
        let twin = self.leases.get(&id).and_then(|lease| lease.twin);
        let twin = twin.and_then(|twin| self.leases.get(&twin));
        twin.is_some_and(|twin| twin.task.is_some() && twin.awaits(unit))
    }

    /// Takes a unit that is answered from the other lease that has it, which ends with its last.
    pub(crate) fn withdraw_from_twin(&mut self, id: LeaseId, unit: UnitIndex) {
        let Some(twin_id) = self.leases.get(&id).and_then(|lease| lease.twin) else {
            return;
        };
        let Some(twin) = self.leases.get_mut(&twin_id) else {
            return;
        };
        if twin.resolve(unit).is_some() && twin.pending.is_empty() {
            self.release(twin_id);
        }
    }

    /// Counts units that a lease has no more as leased no longer, but for those that another lease has, too.
    /// Returns those that were counted.
    pub(crate) fn unlease(&mut self, id: LeaseId, units: Vec<UnitIndex>) -> Vec<UnitIndex> {
        let Some(run) = self.leases.get(&id).map(|lease| lease.run) else {
            return Vec::new();
        };
        let units = units.into_iter();
        let units: Vec<_> = units.filter(|unit| !self.is_shared(id, *unit)).collect();
        self.leased_units -= units.len();
        self.queue.run_mut(run).leased_units -= units.len();
        units
    }
}
