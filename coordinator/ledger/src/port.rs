//! The port.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use regatta_model::{RunId, TenantId, Timestamp, Verdict};

use crate::{
    Forgetting, ForgottenSubject, GivenVerdict, KeptBlob, NamedArtefact, OldRun, OldRunsQuery,
    Place, SuiteKnowledge, SuiteObservation, TestHistory, VerdictQuery,
};

/// Remembers what outlives a process.
#[async_trait]
pub trait Ledger: fmt::Debug + Send + Sync + 'static {
    /// Remembers that a run has begun. A run that is known already stays as it is, and so does one that was forgotten.
    ///
    /// # Errors
    /// [`LedgerError`]: nothing was remembered.
    async fn start_run(&self, run: NewRun) -> Result<(), LedgerError>;

    /// Adds events to a run, and its end if `end` says that there will be no more; learns what they teach as
    /// [`observe_suite`](Self::observe_suite) does, all or nothing. An event whose sequence number the run has
    /// already is left out, and teaches nothing, so that a call may be repeated; so is any event of a run that was
    /// forgotten.
    ///
    /// # Errors
    /// [`LedgerError`]: nothing was remembered.
    async fn append_events(
        &self,
        run: &RunId,
        events: Vec<StoredEvent>,
        end: Option<RunEnd>,
    ) -> Result<(), LedgerError>;

    /// The events of a run with a sequence number above `after`, in order, at most `limit`.
    ///
    /// # Errors
    /// [`LedgerError`].
    async fn read_events(
        &self,
        run: &RunId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<StoredEvent>, LedgerError>;

    /// The runs that a query asks for, newest first.
    ///
    /// # Errors
    /// [`LedgerError`].
    async fn find_runs(&self, query: RunQuery) -> Result<Vec<RunRecord>, LedgerError>;

    /// Runs that ended long ago and were not forgotten, in the order in which they ended, and which of them may go.
    ///
    /// # Errors
    /// [`LedgerError`].
    async fn find_old_runs(&self, query: OldRunsQuery) -> Result<Vec<OldRun>, LedgerError>;

    /// Takes a step of letting runs go.
    ///
    /// # Errors
    /// [`LedgerError`]: nothing was done.
    async fn forget(&self, step: Forgetting) -> Result<(), LedgerError>;

    /// Runs that were forgotten and may have events yet, by their ids, at most `limit`.
    ///
    /// # Errors
    /// [`LedgerError`].
    async fn find_half_gone(&self, limit: usize) -> Result<Vec<RunId>, LedgerError>;

    /// Whether something was forgotten, as far as its name is kept.
    ///
    /// # Errors
    /// [`LedgerError`].
    async fn is_forgotten(&self, subject: ForgottenSubject) -> Result<bool, LedgerError>;

    /// Learns from a suite's executed tests: anywhere, with their image, and with their image on their branch.
    /// The times of a test are kept apart for a bounded number of images and branches, those that ran last.
    ///
    /// # Errors
    /// [`LedgerError`]: nothing was learnt; or, if the database went away meanwhile and has stayed away, all
    /// of it may have been, which the error says. So this is not to be repeated blindly.
    async fn observe_suite(&self, seen: SuiteObservation) -> Result<(), LedgerError>;

    /// What is known of a suite that is about to run somewhere.
    ///
    /// # Errors
    /// [`LedgerError`].
    async fn read_suite(
        &self,
        tenant: &TenantId,
        suite: &str,
        place: &Place,
    ) -> Result<SuiteKnowledge, LedgerError>;

    /// What is known of the tests of a suite, or of every suite of a tenant; by suite, then by id.
    ///
    /// # Errors
    /// [`LedgerError`].
    async fn read_history(
        &self,
        tenant: &TenantId,
        suite: Option<&str>,
    ) -> Result<Vec<TestHistory>, LedgerError>;

    /// Remembers that a verdict was given, whose bundle is stored, and what that names: artefacts, and runs besides the
    /// one that speaks first. One that was given before was given again: all that changes is when it was last.
    /// Nothing is remembered if the one that speaks first was forgotten, with which all others went that the verdict was
    /// made from; else that stays from then on, as long as the verdict does.
    ///
    /// # Errors
    /// [`LedgerError`]: nothing was remembered.
    async fn keep_verdict(
        &self,
        given: GivenVerdict,
        artefacts: Vec<NamedArtefact>,
        runs: Vec<RunId>,
    ) -> Result<(), LedgerError>;

    /// The verdicts that a query asks for; those that were given last come first.
    ///
    /// # Errors
    /// [`LedgerError`].
    async fn find_verdicts(&self, query: VerdictQuery) -> Result<Vec<GivenVerdict>, LedgerError>;

    /// What verdicts keep that were given at some time or later: each blob once for each tenant, at most `limit`,
    /// those of the last verdicts first.
    ///
    /// # Errors
    /// [`LedgerError`].
    async fn read_kept_blobs(
        &self,
        since: Timestamp,
        limit: usize,
    ) -> Result<Vec<KeptBlob>, LedgerError>;

    /// Makes it durable that every fencing token up to `last` may have been used.
    ///
    /// # Errors
    /// [`LedgerError`]: no token beyond the last reservation may be used.
    async fn reserve_tokens(&self, last: u64) -> Result<(), LedgerError>;

    /// The last fencing token that may have been used; 0 if there is none.
    ///
    /// # Errors
    /// [`LedgerError`].
    async fn reserved_tokens(&self) -> Result<u64, LedgerError>;
}

/// Why the ledger did not do what it was asked to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// The database failed, or is away. Trying again may help if its disk was full, it was locked or it was
    /// restarted.
    #[error("the ledger is unavailable: {detail}")]
    Unavailable {
        /// What the database said.
        detail: String,
    },
    /// Something that was stored cannot be read. Restore the database, or move it away.
    #[error("the ledger is corrupt: {detail}")]
    Corrupt {
        /// What was found.
        detail: String,
    },
    /// Another coordinator has used the database since this one lost it, and what this one knows of it holds
    /// no more. Restart this one, or stop it.
    #[error(
        "another coordinator has taken the ledger over; stop this one, or restart it once the other has gone"
    )]
    Superseded,
    /// The ledger has been closed.
    #[error("the ledger has been closed")]
    Closed,
}

/// A run that begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewRun {
    /// Which run.
    pub run: RunId,
    /// Whose.
    pub tenant: TenantId,
    /// For people.
    pub description: String,
    /// The commit its tree comes from; empty if none.
    pub commit: String,
    /// The branch of it.
    pub branch: String,
    /// When that commit was made, if its tree is the commit's and somebody says.
    pub committed_at: Option<Timestamp>,
    /// When it was submitted.
    pub submitted_at: Timestamp,
}

/// How a run ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RunEnd {
    /// When.
    pub finished_at: Timestamp,
    /// With which answer.
    pub verdict: Verdict,
    /// With how many tests of each kind.
    pub counts: RunCounts,
    /// What it cost; `None` if nobody knows any more.
    pub times: Option<RunTimes>,
}

/// What a run and all of its leases took, by clocks that are never set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RunTimes {
    /// How long they waited for their slots.
    pub queued: Duration,
    /// How long something was executed in them.
    pub worked: Duration,
    /// From its submission to its end; `None` for runs of earlier releases.
    pub took: Option<Duration>,
}

/// Tests by how they ended; `planned` is the sum of the others.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RunCounts {
    /// All of them.
    pub planned: u32,
    /// Ran and passed.
    pub passed: u32,
    /// Failed, then passed.
    pub flaky: u32,
    /// Did not pass.
    pub failed: u32,
    /// Were known to pass.
    pub cached: u32,
    /// Are ignored by their suite.
    pub skipped: u32,
    /// Were not reached.
    pub not_run: u32,
    /// Failed, which did not count.
    pub quarantined: u32,
}

/// An event of a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredEvent {
    /// Its place among the run's events, from 1.
    pub sequence: u64,
    /// Its encoding.
    pub bytes: Bytes,
    /// What is to be learnt with it when it is added; nothing once it is read.
    pub teaches: Option<Arc<SuiteObservation>>,
}

/// Which runs to find.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RunQuery {
    /// Only this one.
    pub run: Option<RunId>,
    /// Only this tenant's.
    pub tenant: Option<TenantId>,
    /// Only those of this commit.
    pub commit: Option<String>,
    /// Only those that have not ended.
    pub active_only: bool,
    /// At most so many.
    pub limit: usize,
}

/// What is known of a run besides its events.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunRecord {
    /// How it began.
    pub new: NewRun,
    /// How it ended, if it has.
    pub end: Option<RunEnd>,
    /// If it has: a number that is greater than that of every run that ended before it, which its time need not
    /// be, for clocks are set.
    pub ended: Option<u64>,
}
