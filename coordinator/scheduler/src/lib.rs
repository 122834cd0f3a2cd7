//! Decides who runs what, where, and next.
//!
//! The scheduler is a pure state machine (design, decision D1): [`Scheduler::step`] takes the time and
//! one [`Event`], and returns what must be durable, what to do, and when to come back.
//!
//! Invariants:
//! - It knows no clock, no random source, no I/O, no threads, and no order but that of its values:
//!   equal events at equal times give equal steps.
//! - Every unit of an accepted task ends in exactly one [`Effect::UnitAnswered`] or
//!   [`Effect::UnitFailed`] for each of its submitters, and then the task in one
//!   [`Effect::TaskFinished`].
//! - A unit has at most one lease whose token is valid, or two if the first is late, no unit of its task
//!   waits, and nothing waits that the second's agent could run. Tokens grow, across restarts too.
//! - An agent is never granted more than it offers; what it gives back counts only once it says that
//!   nothing of it runs any more.
//! - Nothing waits for ever: work that no agent can run, or that nobody is to begin, is given up in time
//!   ([`Step::wake_at`]), work that needs more than ever becomes free gets an agent reserved, and capacity
//!   that an agent does not give back is counted on no more.
//! - While it is told to hold ([`Event::Hold`]) nothing is leased; what is leased goes on, and counts.
//! - The cost of an assignment grows with the logarithm of the tasks and of the agents. It is linear
//!   only in what is bounded by name: the *different* requirements that wait, the kinds of agents that
//!   these tell apart, and the different amounts of CPU that those agents have free. A requirement that
//!   was not met for long costs one look at every agent that meets its platform.

mod admission;
mod adoption;
mod affinity;
mod agent;
mod agents;
mod asked;
mod avoidance;
mod batch;
mod cancel;
mod class;
mod config;
mod duplicate;
mod ending;
mod error;
mod event;
mod fleet;
mod forecast;
mod free_index;
mod grant;
mod hold;
mod kind;
mod lease;
mod leasing;
mod lookup;
mod merge;
mod nearest;
mod overdue;
mod placement;
mod queue;
mod report;
mod reservation;
mod satisfiability;
mod scheduler;
#[cfg(any(test, feature = "testing"))]
pub mod simulation;
mod slab;
mod snapshot;
mod task;
#[cfg(test)]
mod tests;
mod timers;
mod token;

pub use config::SchedulerConfig;
pub use error::{AdmissionError, UnitError};
pub use event::{
    AgentState, Claim, DesiredAgent, DesiredLease, Effect, Event, ExpectedUnit, FailedAt, Grant,
    HeldLease, Offer, OutcomeKind, Record, Step, Submission, UnitOutcome,
};
pub use forecast::{BatchForecast, Forecast, TaskForecast};
pub use scheduler::Scheduler;
pub use snapshot::{AgentSnapshot, LeaseSnapshot, RunSnapshot, Snapshot, TenantSnapshot};
