//! Executions under way, and those that ended lately, as operations that clients can come back to.

mod registry;
mod service;

pub(crate) use registry::{ActiveOperation, OperationSettings, OperationWatch, Operations};
pub(crate) use service::{OperationsService, unknown_operation};
