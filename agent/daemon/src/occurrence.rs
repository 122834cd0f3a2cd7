//! What reaches the driver from the tasks around it.

use std::sync::Arc;

use regatta_agent_core::Event;
use regatta_model::ImageReference;
use tokio::sync::mpsc;

use crate::connection::Outgoing;
use crate::error::AgentError;
use crate::lease_spec::Assignment;
use crate::outcome::Outcome;

/// How many occurrences wait for the driver.
const QUEUED_OCCURRENCES: usize = 256;

/// An event of the core, as this driver feeds it.
pub(crate) type CoreEvent = Event<Arc<Assignment>, Outcome>;

/// Something that happened around the driver.
#[derive(Debug)]
pub(crate) enum Occurrence {
    /// Something for the core.
    Core(CoreEvent),
    /// A connection is open; this is the way out of it.
    Opened(Outgoing),
    /// The coordinator will never take this agent as it is.
    Refused(AgentError),
    /// The images that start without a pull.
    Images(Vec<(ImageReference, String)>),
    /// Other trees may be laid out than before.
    TreesChanged,
}

/// The way to the driver.
pub(crate) type OccurrenceSender = mpsc::Sender<Occurrence>;

/// A queue of occurrences.
pub(crate) fn occurrence_queue() -> (OccurrenceSender, mpsc::Receiver<Occurrence>) {
    mpsc::channel(QUEUED_OCCURRENCES)
}
