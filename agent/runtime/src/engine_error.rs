//! Turns what adapters meet into the port's errors.

use std::io;

use tokio::task::JoinError;

use crate::port::RuntimeError;

/// For `map_err` on calls to the kernel.
pub(crate) fn io_error<E: Into<io::Error>>(operation: &'static str) -> impl Fn(E) -> RuntimeError {
    move |source| RuntimeError::Io {
        operation,
        source: source.into(),
    }
}

/// For work that its task did not finish.
pub(crate) fn task_lost(operation: &'static str, error: &JoinError) -> RuntimeError {
    RuntimeError::Engine {
        operation,
        detail: error.to_string(),
    }
}
