//! Turns what adapters meet into the port's errors.

use std::io;

use tokio::task::JoinError;

use crate::port::RuntimeError;
use crate::view::Unfit;

/// For `map_err` on calls to the kernel.
pub(crate) fn io_error<E: Into<io::Error>>(operation: &'static str) -> impl Fn(E) -> RuntimeError {
    move |source| RuntimeError::Io {
        operation,
        source: source.into(),
    }
}

/// For `map_err` on the making of a view.
pub(crate) fn view_error(source: io::Error) -> RuntimeError {
    let unfit = source.get_ref().and_then(|error| error.downcast_ref());
    match unfit {
        Some(Unfit(detail)) => RuntimeError::UnfitTree {
            detail: detail.clone(),
        },
        None => io_error("make a view")(source),
    }
}

/// For work that its task did not finish.
pub(crate) fn task_lost(operation: &'static str, error: &JoinError) -> RuntimeError {
    RuntimeError::Engine {
        operation,
        detail: error.to_string(),
    }
}
