//! A piece of work and its units.

use std::cmp::Reverse;
use std::num::NonZeroU64;
use std::time::Duration;

use regatta_model::{
    AgentId, AttemptNumber, Digest, LeaseId, SlotIndex, TaskId, Timestamp, UnitIndex,
};

use crate::affinity::Wish;
use crate::avoidance::{Avoided, Cause, Try};
use crate::batch::{Running, WaitingUnits, expected_nanos, nanos};
use crate::fleet::{AgentKey, ClassKey};
use crate::queue::{Place, RunKey};
use crate::slab::Key;
use crate::{ExpectedUnit, UnitError};

pub(crate) type TaskKey = Key<Task>;

/// Work that was submitted at least once and is not finished.
#[derive(Debug)]
pub(crate) struct Task {
    /// Who wants it, in order of arrival; never empty.
    pub(crate) submitters: Vec<Submitter>,
    /// On behalf of whom it waits: the run of one of the submitters.
    pub(crate) run: RunKey,
    pub(crate) class: ClassKey,
    pub(crate) merge_key: Option<Digest>,
    pub(crate) wish: Wish,
    pub(crate) priority: i32,
    /// Counts the tasks of all time; breaks ties.
    pub(crate) arrival: u64,
    /// Counts the windows of time within which the longest go first.
    pub(crate) window: u64,
    pub(crate) overhead: Duration,
    pub(crate) units: Box<[Unit]>,
    pub(crate) waiting: WaitingUnits,
    /// Since when the units that wait do, the oldest of them.
    pub(crate) waiting_since: Timestamp,
    /// How many units have neither an answer nor an error.
    pub(crate) open_units: usize,
    /// Where it waits, if it does.
    pub(crate) place: Option<Place>,
    pub(crate) leases: Vec<LeaseId>,
    /// The sum of the times at which they are expected to end.
    pub(crate) expected_ends_nanos: u128,
    /// Where it was lost last or has failed, while another place is preferred.
    pub(crate) avoid: Option<Avoided>,
    /// How many of the units that wait were lost before.
    pub(crate) lost_waiting: usize,
    /// How often a task behind it was taken for being warm.
    pub(crate) passed_over: u8,
    /// How units ended, for submitters yet to come; kept only if there can be any.
    pub(crate) ended: Vec<(UnitIndex, Ended)>,
}

/// One who wants a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Submitter {
    pub(crate) task: TaskId,
    pub(crate) run: RunKey,
}

/// One unit of a task.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unit {
    pub(crate) expected_nanos: u64,
    /// How long it takes at most; `None` if it is never run twice at once.
    pub(crate) late_nanos: Option<NonZeroU64>,
    pub(crate) attempts: u32,
    pub(crate) first: bool,
    pub(crate) alone: bool,
    /// Whether `expected_nanos` is a guess.
    pub(crate) guessed: bool,
    pub(crate) open: bool,
}

impl Unit {
    /// Whether it was leased before, and lost.
    pub(crate) const fn was_lost(&self) -> bool {
        self.attempts > 0
    }
}

/// How a unit ended.
#[derive(Debug, Clone)]
pub(crate) enum Ended {
    Answered(Answer),
    Failed(UnitError),
}

/// Where an answer is to be found.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) lease: LeaseId,
    pub(crate) index: u32,
    pub(crate) agent: AgentId,
    pub(crate) slot: SlotIndex,
    pub(crate) attempt: AttemptNumber,
}

impl Task {
    /// Notes a lease that is expected to take so long.
    pub(crate) fn begin_lease(&mut self, id: LeaseId, now: Timestamp, expected_nanos: u64) {
        self.leases.push(id);
        self.expected_ends_nanos += u128::from(now.as_nanos()) + u128::from(expected_nanos);
    }

    /// Forgets a lease, of which the same is said as at its beginning.
    pub(crate) fn end_lease(&mut self, id: LeaseId, granted_at: Timestamp, expected_nanos: u64) {
        self.leases.retain(|other| *other != id);
        self.expected_ends_nanos -= u128::from(granted_at.as_nanos()) + u128::from(expected_nanos);
    }

    /// Its leases, and how much slot time they are still expected to take.
    pub(crate) fn running(&self, now: Timestamp) -> Running {
        let batches = self.leases.len();
        let begun = u128::from(now.as_nanos()) * batches as u128;
        let left = self.expected_ends_nanos.saturating_sub(begun);
        Running {
            batches,
            nanos: u64::try_from(left).unwrap_or(u64::MAX),
        }
    }

    /// The units of a submission, none of them tried.
    pub(crate) fn units_of(submitted: &[ExpectedUnit]) -> Box<[Unit]> {
        let unit = |unit: &ExpectedUnit| Unit {
            expected_nanos: expected_nanos(unit.expected),
            late_nanos: unit
                .late_after
                .map(|after| NonZeroU64::new(nanos(after)).unwrap_or(NonZeroU64::MIN)),
            attempts: 0,
            first: unit.first,
            alone: unit.alone,
            guessed: unit.guessed,
            open: true,
        };
        submitted.iter().map(unit).collect()
    }

    /// How long units take at most, one after the other; `None` if one of them is never run twice at once.
    pub(crate) fn late_nanos(&self, units: impl Iterator<Item = UnitIndex>) -> Option<u64> {
        let mut late = units.map(|unit| self.unit(unit)?.late_nanos);
        late.try_fold(0, |sum: u64, late| Some(sum.saturating_add(late?.get())))
    }

    /// Its rank in the queue of its run.
    pub(crate) fn rank(&self) -> Place {
        Place {
            priority: self.priority,
            window: self.window,
            attempt: self.attempt(),
            next_unit: Reverse(self.waiting.next_rank()),
            arrival: self.arrival,
        }
    }

    fn attempt(&self) -> Try {
        let group = self.avoid.and_then(|avoided| avoided.group());
        group.map_or(Try::First, Try::Again)
    }

    /// The slot of an agent in which it has failed.
    pub(crate) fn failed_slot(&self, agent: AgentKey) -> Option<SlotIndex> {
        let avoided = self.avoid.filter(|avoided| avoided.agent == agent)?;
        match avoided.cause {
            Cause::Lost => None,
            Cause::Failed { slot, .. } => Some(slot),
        }
    }

    pub(crate) fn unit(&self, unit: UnitIndex) -> Option<&Unit> {
        self.units.get(unit.0 as usize)
    }

    /// Puts a unit back among those that wait.
    pub(crate) fn requeue(&mut self, unit: UnitIndex) {
        if let Some(entry) = self.unit(unit).copied() {
            let rank = (entry.first, entry.expected_nanos);
            self.waiting.push(unit, rank, entry.guessed);
            self.lost_waiting += usize::from(entry.was_lost());
        }
    }

    /// Marks a unit as ended; false if it was before.
    pub(crate) fn close(&mut self, unit: UnitIndex) -> bool {
        let Some(entry) = self.units.get_mut(unit.0 as usize) else {
            return false;
        };
        let was_open = std::mem::replace(&mut entry.open, false);
        self.open_units -= usize::from(was_open);
        was_open
    }

    /// Notes that a unit is leased once more.
    pub(crate) fn begin_attempt(&mut self, unit: UnitIndex) -> AttemptNumber {
        let Some(entry) = self.units.get_mut(unit.0 as usize) else {
            return AttemptNumber(1);
        };
        entry.attempts = entry.attempts.saturating_add(1);
        AttemptNumber(entry.attempts)
    }

    /// Notes that what a unit was leased for last was not begun.
    pub(crate) fn take_back_attempt(&mut self, unit: UnitIndex) {
        if let Some(entry) = self.units.get_mut(unit.0 as usize) {
            entry.attempts = entry.attempts.saturating_sub(1);
        }
    }

    /// Units that have not ended, in order.
    pub(crate) fn open_unit_indexes(&self) -> impl Iterator<Item = UnitIndex> {
        let numbered = self.units.iter().zip(0..);
        numbered.filter_map(|(unit, index)| unit.open.then_some(UnitIndex(index)))
    }
}
