//! What can go wrong with runs before they are under way.

use regatta_ledger::LedgerError;
use regatta_model::{Digest, RunId};

use crate::cas::InputTreeError;
use crate::runs::plan::PlanError;

/// Why the runs cannot be taken up after a start.
#[derive(Debug, thiserror::Error)]
#[error("the runs of an earlier process could not be looked for")]
pub struct StartRunsError(#[from] LedgerError);

/// Why a run was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum SubmitRunError {
    /// The specification is wrong. Fix it.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Blobs have to be uploaded first.
    #[error("{} blobs are missing", missing.len())]
    MissingBlobs {
        /// All that are known to be missing.
        missing: Vec<Digest>,
    },
    /// It is not known whether the inputs are complete.
    #[error("the inputs could not be checked")]
    Inputs(#[from] InputTreeError),
    /// Too many runs are under way, or being planned. Come back later.
    #[error("{limit} runs are under way or being planned, which is as many as may be")]
    TooMany {
        /// How many may be.
        limit: usize,
    },
    /// The id is another run's. Take another one.
    #[error(
        "run `{run}` is known, and has another specification or tenant; submit this one under another id"
    )]
    Taken {
        /// The id.
        run: RunId,
    },
    /// An earlier submission of the run has not come to its end. Come back later.
    #[error(
        "an earlier submission of run `{run}` has not come to its end; submit it again in a moment"
    )]
    Undecided {
        /// The id.
        run: RunId,
    },
    /// An earlier submission was refused, and left something under this id. Take another one.
    #[error(
        "run `{run}` could not be begun when it was submitted first; submit it under another id"
    )]
    NeverBegan {
        /// The id.
        run: RunId,
    },
    /// The id is that of a run that is kept no longer. Take another one.
    #[error(
        "run `{run}` ended so long ago that it is no longer kept; submit this one under another id"
    )]
    Forgotten {
        /// The id.
        run: RunId,
    },
    /// The ledger failed. Come back later.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Why a run cannot be told about.
#[derive(Debug, thiserror::Error)]
pub enum FindRunError {
    /// There is no such run.
    #[error("no run `{run}` is known")]
    Unknown {
        /// What was asked for.
        run: String,
    },
    /// There was, and it is kept no longer.
    #[error(
        "run `{run}` is no longer kept: it ended longer ago than runs are kept for (the coordinator's --keep-runs)"
    )]
    Forgotten {
        /// Which one.
        run: RunId,
    },
    /// It was left open by an earlier process, and has not been taken up yet. Come back later.
    #[error("run `{run}` has not been taken up yet after a restart; ask again in a moment")]
    NotResumed {
        /// Which one.
        run: RunId,
    },
    /// What was to be told, or was asked for, cannot be made durable for now. Make room for the ledger, or mend
    /// its database, and come back.
    #[error(
        "nothing more of the run can be stored, or shown before it is: {0}; make room for the ledger or mend its \
         database, and the run goes on by itself"
    )]
    NotDurable(LedgerError),
    /// The ledger failed. Come back later.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}
