//! Runs that ended so long ago that they are kept no longer.
//!
//! All runs of a tenant's commit go together, once the last of them may go: what is said of the commit is never said
//! by a part of them. First they are forgotten, all at once: from then on nothing is told of them but that they were
//! there. Their events are deleted afterwards, a portion at a time, and at last their names.

use regatta_model::{RunId, TenantId, Timestamp};

/// Where to look for runs that may go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OldRunsQuery {
    /// Only those that ended before.
    pub ended_before: Timestamp,
    /// None that a verdict names which was given at this time or later, nor others of the same commit.
    pub verdicts_since: Timestamp,
    /// Only those that come after this one.
    pub after: Option<OldRunPlace>,
    /// At so many, at most, it is looked.
    pub limit: usize,
}

/// The place of a run among all that ended: by when that was, then by their ids.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct OldRunPlace {
    /// When it ended.
    pub finished_at: Timestamp,
    /// Which run.
    pub run: RunId,
}

/// A run that ended long ago.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OldRun {
    /// Which, and where the next one is to be looked for.
    pub place: OldRunPlace,
    /// Whether it may go, with all others of its commit: none of them goes on or ended later, and no verdict keeps one.
    pub may_go: bool,
}

/// One step of letting runs go. Each is done whole or not at all, and may be repeated.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Forgetting {
    /// From now on nothing is told of a run, nor of the others of its commit, unless that has come to be kept
    /// since it was looked for.
    Run {
        /// The one of them that ended last.
        run: RunId,
        /// Only if it ended before.
        ended_before: Timestamp,
        /// Only if no verdict names any of them which was given at this time or later.
        verdicts_since: Timestamp,
        /// The time.
        now: Timestamp,
    },
    /// Deletes events of a forgotten run.
    Events {
        /// Which run.
        run: RunId,
        /// So many, at most.
        limit: usize,
    },
    /// Deletes the names of runs that have no events any more: from then on they were never there.
    Names {
        /// Only of those that were forgotten before.
        forgotten_before: Timestamp,
        /// So many, at most.
        limit: usize,
    },
}

/// Of what it is asked whether it was forgotten.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ForgottenSubject {
    /// A run.
    Run(RunId),
    /// Any run of a tenant's commit.
    Commit(TenantId, String),
}
