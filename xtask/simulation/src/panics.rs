//! Notices panics, wherever they are caught.

use std::sync::{Mutex, PoisonError};

static PANICKED: Mutex<Option<String>> = Mutex::new(None);

/// Remembers the first panic from now on, instead of printing any.
pub(crate) fn notice() {
    std::panic::set_hook(Box::new(|panic| {
        let mut first = PANICKED.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert_with(|| panic.to_string());
    }));
}

/// The first panic since it was asked for last.
pub(crate) fn take() -> Option<String> {
    let mut first = PANICKED.lock().unwrap_or_else(PoisonError::into_inner);
    first.take()
}
