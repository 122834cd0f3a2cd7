//! REAPI `Execution`: actions from clients to agents and their results back.

mod conclusion;
mod driver;
mod fair_gate;
mod load;
mod publications;
mod service;

pub(crate) use publications::Publications;
pub(crate) use service::ExecutionService;

use std::sync::Arc;

use regatta_cas::BlobStore;
use tokio_util::sync::CancellationToken;

use crate::action_cache::ActionCache;
use crate::action_plan::PlanDefaults;
use crate::cas::InputTrees;
use crate::dispatch::Dispatcher;
use crate::operations::Operations;
use crate::retention::Retention;

/// Everything that executing an action takes.
#[derive(Debug)]
pub(crate) struct ExecutionParts {
    /// Where actions, commands and inputs are.
    pub(crate) blobs: Arc<dyn BlobStore>,
    /// Knows whether there is room for what is made.
    pub(crate) room: Arc<Retention>,
    /// Where results are looked up and kept.
    pub(crate) cache: Arc<ActionCache>,
    /// Results that are about to be kept.
    pub(crate) publications: Arc<Publications>,
    /// Checks that inputs are complete.
    pub(crate) inputs: Arc<InputTrees>,
    /// Gives work to agents.
    pub(crate) dispatcher: Arc<Dispatcher>,
    /// Where clients find their executions again.
    pub(crate) operations: Arc<Operations>,
    /// What applies where actions say nothing.
    pub(crate) defaults: PlanDefaults,
    /// Cancelled when the coordinator stops.
    pub(crate) stopping: CancellationToken,
}
