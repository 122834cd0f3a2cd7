//! Commands as plain processes of this machine, for where no Docker is.

mod container;
mod runtime;

pub use container::ProcessContainer;
pub use runtime::{ProcessIsolation, ProcessOptions, ProcessRuntime};
