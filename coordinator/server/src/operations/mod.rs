//! Executions under way, and those that ended lately, as operations that clients can come back to.

mod operation;
mod registry;
mod service;

pub(crate) use operation::OperationWatch;
pub(crate) use registry::{ActiveOperation, OperationSettings, Operations};
pub(crate) use service::{OperationsService, unknown_operation};
