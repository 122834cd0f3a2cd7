//! What must not happen.

use std::fmt;

/// What holds in every run of the simulation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Invariant {
    /// Every submitted test has exactly one counted result.
    EachTestCountedOnce,
    /// No result from an expired fence is published.
    NoResultOfAnExpiredFence,
    /// Fencing tokens grow, whatever becomes of the coordinator, and belong to one lease each.
    TokensGrow,
    /// No served action result names an absent blob.
    ServedResultsAreComplete,
    /// What was told to be stored is there for as long as that is promised, and what runs need that go on.
    PromisesAreKept,
    /// As long as nothing fails, no stored action result names a blob that was let go, and no list a chunk.
    ResultsGoFirst,
    /// Every run ends.
    EveryRunEnds,
    /// Capacity returns to full.
    CapacityReturns,
    /// What a watcher has seen of a run stays.
    WhatWasSeenStays,
    /// A result says what an execution came to: no pass that did not pass, no failure that did not fail.
    ResultsAreTrue,
    /// An agent begins a lease once.
    NoLeaseRunsTwice,
    /// Nothing panics.
    NothingPanics,
}

impl Invariant {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::EachTestCountedOnce => "each_test_counted_once",
            Self::NoResultOfAnExpiredFence => "no_result_of_an_expired_fence",
            Self::TokensGrow => "tokens_grow",
            Self::ServedResultsAreComplete => "served_results_are_complete",
            Self::PromisesAreKept => "promises_are_kept",
            Self::ResultsGoFirst => "results_go_first",
            Self::EveryRunEnds => "every_run_ends",
            Self::CapacityReturns => "capacity_returns",
            Self::WhatWasSeenStays => "what_was_seen_stays",
            Self::ResultsAreTrue => "results_are_true",
            Self::NoLeaseRunsTwice => "no_lease_runs_twice",
            Self::NothingPanics => "nothing_panics",
        }
    }
}

/// An invariant that does not hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Violation {
    pub(crate) invariant: Invariant,
    pub(crate) what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.invariant.name(), self.what)
    }
}

/// Whether everything is as it must be.
pub(crate) type Checked = Result<(), Violation>;

impl Invariant {
    /// Says so if it does not hold.
    pub(crate) fn holds(self, holds: bool, what: impl FnOnce() -> String) -> Checked {
        if holds {
            return Ok(());
        }
        Err(self.violated(what()))
    }

    pub(crate) const fn violated(self, what: String) -> Violation {
        Violation {
            invariant: self,
            what,
        }
    }
}
