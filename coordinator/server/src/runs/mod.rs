//! Runs: a pipeline for one source tree, from its submission to its verdict.
//!
//! `plan` checks what was submitted, `state` and `tally` decide, all pure; `driver` carries a run out,
//! `build` and `suite` its jobs; `log` keeps its events, `registry` the runs.
//!
//! Invariants:
//! - Every job of a run ends exactly once, and so does every planned test: planned = passed + flaky +
//!   failed + cached + skipped + not run + quarantined. A run where that does not hold is never RELEASABLE.
//! - Nothing is red that the machines are to blame for: what they lost too often is UNKNOWN.
//! - Only passes are stored as action results, and only those of outcomes that the scheduler accepted.
//! - A watcher gets every event once and in order, whatever its speed; it holds up nobody.
//! - An event is seen by nobody before it is durable, unless the ledger has failed for so long that its run
//!   is ended for it.
//! - A cached pass that is executed again and does not hold is forgotten, and its run is not RELEASABLE if
//!   the test failed.
//! - A verdict that is given is kept as it was, its bundle before anybody can know of it; one that cannot be is given
//!   all the same, and says so.
//! - No run waits for ever: not for a ledger without room either.
//! - A run that was submitted ends, whatever becomes of the coordinator: after a restart it goes on from what
//!   its events say, and nothing that they say has ended is told or counted again.

mod action;
mod ahead;
mod audit;
mod build;
mod conclusion;
mod context;
mod driver;
mod event;
mod forecast;
mod given;
mod hits;
mod keys;
mod lessons;
mod log;
mod logs;
mod needed;
mod origin;
mod output;
mod overlay;
mod plan;
mod preparation;
mod record;
mod recorded;
mod registry;
mod run_services;
mod service;
mod state;
mod suite;
mod surroundings;
mod tally;
mod times;
mod tried;
mod verdict;
mod waiting;

pub use audit::{AuditShare, InvalidAuditShareError};
pub(crate) use lessons::{is_repetition, lesson, results_of};
pub(crate) use log::now;
pub use plan::PlanError;
pub(crate) use registry::MAX_LIST;
pub use registry::{FindRunError, RunRegistry, StartRunsError, SubmitRunError};
pub use run_services::RunServices;
pub use service::RunsService;
pub(crate) use service::of_ledger;

#[cfg(test)]
pub(crate) mod tests;
