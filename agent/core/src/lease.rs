//! A lease from its arrival until nobody wants it.

use std::collections::VecDeque;

use regatta_model::SlotIndex;

use crate::container::Demand;
use crate::effect::{LeasePhase, LeaseReport};
use crate::event::LeaseKey;

/// A lease that the agent holds.
#[derive(Clone, Debug)]
pub(crate) struct Lease<Spec, Outcome> {
    pub(crate) place: Place,
    spec: Spec,
    /// The report of this connection that first named it.
    pub(crate) reported_in: Option<u64>,
    outcomes: VecDeque<Outcome>,
    acknowledged: u32,
}

/// Where a lease is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    Waiting,
    Staging(SlotIndex),
    Running(SlotIndex),
    Finished(SlotIndex),
}

/// A lease that waits for a slot, with what it takes to start it.
#[derive(Clone, Debug)]
pub(crate) struct Waiting<Spec> {
    pub(crate) key: LeaseKey,
    pub(crate) demand: Demand,
    pub(crate) avoid: Option<SlotIndex>,
    pub(crate) spec: Spec,
}

impl Place {
    pub(crate) fn slot(self) -> Option<SlotIndex> {
        match self {
            Self::Waiting => None,
            Self::Staging(slot) | Self::Running(slot) | Self::Finished(slot) => Some(slot),
        }
    }

    /// The slot in which something of the lease may still run.
    pub(crate) fn working_slot(self) -> Option<SlotIndex> {
        match self {
            Self::Waiting | Self::Finished(_) => None,
            Self::Staging(slot) | Self::Running(slot) => Some(slot),
        }
    }

    fn phase(self) -> LeasePhase {
        match self {
            Self::Waiting | Self::Staging(_) => LeasePhase::Staging,
            Self::Running(_) => LeasePhase::Running,
            Self::Finished(_) => LeasePhase::Finished,
        }
    }
}

impl<Spec: Clone, Outcome: Clone> Lease<Spec, Outcome> {
    pub(crate) fn waiting(spec: Spec) -> Self {
        Self {
            spec,
            place: Place::Waiting,
            reported_in: None,
            outcomes: VecDeque::new(),
            acknowledged: 0,
        }
    }

    pub(crate) fn add_outcome(&mut self, outcome: Outcome) {
        self.outcomes.push_back(outcome);
    }

    /// Whether it has outcomes that the coordinator has not recorded.
    pub(crate) fn has_news(&self) -> bool {
        !self.outcomes.is_empty()
    }

    /// Forgets outcomes that the coordinator has recorded; it never has more than there are.
    pub(crate) fn acknowledge(&mut self, count: u32) {
        while self.acknowledged < count && self.outcomes.pop_front().is_some() {
            self.acknowledged += 1;
        }
    }

    /// What the coordinator is to know of it, and what it is, if that may be news.
    pub(crate) fn report(&self, key: LeaseKey, with_spec: bool) -> LeaseReport<Spec, Outcome> {
        let waiting = u32::try_from(self.outcomes.len()).unwrap_or(u32::MAX);
        LeaseReport {
            key,
            phase: self.place.phase(),
            spec: with_spec.then(|| self.spec.clone()),
            slot: self.place.slot(),
            outcomes: self.outcomes.iter().cloned().collect(),
            outcome_count: self.acknowledged.saturating_add(waiting),
        }
    }
}
