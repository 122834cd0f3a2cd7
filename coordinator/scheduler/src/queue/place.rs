//! Where a task waits.

use std::cmp::Reverse;
use std::ops::RangeInclusive;

use crate::avoidance::{Group, Try};
use crate::batch::UnitRank;
use crate::fleet::ClassKey;

/// A task's rank among those of its run: priority, then when it came, roughly, then what is tried again, then what is
/// wanted first, then the longest, then the first to arrive.
///
/// The longest go first so that nothing long is left for the end; but only among those that came within
/// one window, so that the short ones do not wait for ever behind longer ones that keep coming.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) priority: i32,
    pub(crate) window: u64,
    pub(crate) attempt: Try,
    pub(crate) next_unit: Reverse<UnitRank>,
    pub(crate) arrival: u64,
}

impl Place {
    /// The group of tasks that it waits among, if it has failed before.
    pub(crate) const fn group(&self) -> Option<Group> {
        match self.attempt {
            Try::Again(group) => Some(group),
            Try::First => None,
        }
    }

    /// Behind the last of its group.
    pub(super) const fn end_of_group(&self) -> Self {
        Self {
            next_unit: Reverse((false, 0)),
            arrival: u64::MAX,
            ..*self
        }
    }
}

/// Tasks of one class that are equally urgent to their tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Lane {
    pub(crate) class: ClassKey,
    pub(crate) urgency: i8,
}

/// Priorities are told apart between the runs of a tenant up to here, and down to its negative; within a
/// run all of them are. It bounds how many lanes a class has.
const MAX_URGENCY: i8 = 20;

impl Lane {
    pub(crate) fn new(class: ClassKey, priority: i32) -> Self {
        let bounded = priority.clamp(-i32::from(MAX_URGENCY), i32::from(MAX_URGENCY));
        let urgency = i8::try_from(bounded).unwrap_or(MAX_URGENCY);
        Self { class, urgency }
    }

    /// All lanes of a class, the most urgent first.
    pub(crate) const fn all_of(class: ClassKey) -> RangeInclusive<Self> {
        Self {
            class,
            urgency: i8::MIN,
        }..=Self {
            class,
            urgency: i8::MAX,
        }
    }
}
