//! Whether the simulation finds what it is to find.

use std::io;

use regatta_model::PlantedBug;

use super::{Arguments, play_each};
use crate::violation::Invariant;

/// What a bug breaks.
const fn broken_by(bug: PlantedBug) -> Invariant {
    match bug {
        PlantedBug::FenceDropped | PlantedBug::SilenceIgnored => {
            Invariant::NoResultOfAnExpiredFence
        }
        PlantedBug::CommitSkipped => Invariant::TokensGrow,
        PlantedBug::LostUnitForgotten | PlantedBug::RunsForgotten => Invariant::EveryRunEnds,
        PlantedBug::CapacityKept | PlantedBug::StopForgotten => Invariant::CapacityReturns,
        PlantedBug::LossForgotten => Invariant::NoLeaseRunsTwice,
        PlantedBug::SeenBeforeDurable | PlantedBug::LedgerFenceSkipped => {
            Invariant::WhatWasSeenStays
        }
        PlantedBug::HistoryForgotten => Invariant::EachTestCountedOnce,
        PlantedBug::CompletenessSkipped | PlantedBug::PresenceKept => {
            Invariant::ServedResultsAreComplete
        }
        PlantedBug::PinsForgotten
        | PlantedBug::UseUncounted
        | PlantedBug::UsesForgotten
        | PlantedBug::LastPromisesForgotten
        | PlantedBug::TermOutlived
        | PlantedBug::DeletionNotAwaited
        | PlantedBug::AnsweredBeforePacked
        | PlantedBug::LivePacksDeleted
        | PlantedBug::ChunksUnchecked
        | PlantedBug::WholeForgottenFirst
        | PlantedBug::ListTakenForBlob
        | PlantedBug::DoubtIgnored => Invariant::PromisesAreKept,
        PlantedBug::ResultsKept => Invariant::ResultsGoFirst,
        PlantedBug::VerificationSkipped | PlantedBug::FailureCached => Invariant::ResultsAreTrue,
    }
}

/// Plants each bug and plays seeds until what it is to break is broken; whether all were found.
pub(super) fn find_all(arguments: &Arguments) -> io::Result<bool> {
    let mut all = true;
    for bug in PlantedBug::ALL {
        let invariant = broken_by(bug);
        let (mut played, mut found) = (0_u64, None);
        play_each(arguments, Some(bug), |told| {
            played += 1;
            if told.breaks(invariant) {
                found = Some(told.seed);
            }
            found.is_none()
        })?;
        let name = invariant.name();
        match found {
            Some(seed) => println!("{bug:?} breaks {name} in seed {seed}, the {played}. played"),
            None => println!("{bug:?} DOES NOT BREAK {name} in {played} seeds"),
        }
        all &= found.is_some();
    }
    Ok(all)
}
