//! Why work has no answer, or was not taken.

use std::time::Duration;

/// Why a unit has no answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum UnitError {
    /// No agent, connected or expected back, can ever run it.
    #[error("no agent can run it: the nearest, {nearest}, lacks {mismatch}")]
    Unsatisfiable {
        /// The agent that comes nearest.
        nearest: String,
        /// What it lacks.
        mismatch: String,
    },
    /// There was none for too long. Start one.
    #[error("no agent is connected; start one with `regatta agent`")]
    NoAgent,
    /// It was lost with too many machines, or what it takes could not be reached from them.
    #[error("lost {attempts} times, last: {last_reason}")]
    AttemptsExhausted {
        /// How often.
        attempts: u32,
        /// What happened last.
        last_reason: String,
    },
    /// Nothing new was begun for too long, for a reason that has nothing to do with it. Remove the reason, and submit
    /// it again.
    #[error("nothing new was begun for {} s: {reason}", waited.as_secs())]
    Held {
        /// For how long, at least.
        waited: Duration,
        /// Why.
        reason: String,
    },
    /// It was cancelled.
    #[error("cancelled")]
    Cancelled,
}

/// Why a task was not accepted.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AdmissionError {
    /// Too much is waiting. Come back later.
    #[error("the queue is full: {queued} of {limit} units are waiting")]
    QueueFull {
        /// How much is waiting, in units.
        queued: usize,
        /// How much may wait.
        limit: usize,
        /// When it may be worth trying again.
        retry_after: Duration,
    },
    /// Too much of one tenant is waiting; others are not concerned. Come back later.
    #[error("this tenant's part of the queue is full: {queued} of {limit} units are waiting")]
    TenantQueueFull {
        /// How much of the tenant is waiting, in units.
        queued: usize,
        /// How much of it may wait.
        limit: usize,
        /// When it may be worth trying again.
        retry_after: Duration,
    },
    /// Work with too many different requirements is waiting. Come back later, or ask for less variety.
    #[error(
        "work with more than {limit} different platforms, resources and priorities is under way: \
         use fewer of them, or wait"
    )]
    TooManyRequirements {
        /// How many there may be.
        limit: usize,
        /// When it may be worth trying again.
        retry_after: Duration,
    },
    /// A task without units.
    #[error("a task needs at least one unit")]
    Empty,
}
