//! The driver around the pure scheduler: it owns the one lock that the scheduler's state lives behind,
//! makes commit records durable before it carries out effects, and connects agents with submitters.
//!
//! Invariants:
//! - An effect is carried out only once every commit record before it is durable.
//! - A submitter hears exactly one [`TaskEvent::Answered`] or [`TaskEvent::Failed`] for each unit, then
//!   [`TaskEvent::Finished`]; an outcome that the scheduler fenced off reaches nobody.
//! - Nothing here waits for a submitter or an agent: a submitter that does not listen loses live output
//!   ([`MAX_BUFFERED_OUTPUT_BYTES`]) and nothing else, an agent that does not listen gets the latest
//!   desired state when it listens again.
//! - The lock is never held across an await. What one event does under it takes microseconds, however
//!   many agents, tasks and leases there are; only what lists all agents takes as long as they are many.

mod agents;
mod background;
mod board;
mod claim;
mod clock;
mod desired_state;
mod dispatcher;
mod lease_book;
mod leases;
mod mailbox;
mod report;
mod task;
mod timings;
mod work;

/// The property under which an agent's runtime is offered.
const RUNTIME_PROPERTY: &str = "runtime";
/// The runtime whose agents run images, as agents call it.
pub(crate) const IMAGE_RUNTIME: &str = "docker";

pub use agents::{CloseReason, Connection, Listener};
pub use claim::ClaimKey;
pub use dispatcher::{DispatchConfig, Dispatcher, StartError};
pub use mailbox::MAX_BUFFERED_OUTPUT_BYTES;
pub use regatta_scheduler::{AdmissionError, UnitError};
pub use report::{InvalidChunkError, InvalidReportError, ValidChunk, ValidReport};
pub use task::{TaskEvent, TaskHandle};
pub use work::{BatchPreparer, BatchShape, PrepareError, UnitPlan, Work};
