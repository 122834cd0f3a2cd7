//! When bytes came that were not those that were stored.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// Remembers when a store sent wrong bytes last, for whoever waits for right ones. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct WrongReads {
    last: watch::Sender<Option<Instant>>,
}

impl WrongReads {
    /// Wrong bytes have come.
    pub fn note(&self) {
        self.last.send_replace(Some(Instant::now()));
    }

    /// Whether any have come in the last `period`.
    #[must_use]
    pub fn any_within(&self, period: Duration) -> bool {
        let last = *self.last.borrow();
        last.is_some_and(|last| last.elapsed() < period)
    }

    /// Waits until more come. Dropping the future loses nothing but what comes before the next.
    pub async fn next(&self) {
        // The sender lives in `self`, so this cannot fail.
        drop(self.last.subscribe().changed().await);
    }
}
