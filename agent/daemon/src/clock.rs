//! The driver's clock: the time of day at its start, and from then on what has passed since, so that
//! setting the machine's clock neither expires nor delays anything.

use regatta_model::Timestamp;
use tokio::time::Instant;

use crate::timestamps::now;

/// A clock that never goes back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    started: Instant,
    started_at: Timestamp,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            started_at: now(),
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.started_at + self.started.elapsed()
    }

    /// Waits until an instant has come; for ever if there is none.
    pub(crate) async fn sleep_until(&self, timestamp: Option<Timestamp>) {
        match timestamp {
            // Timers may ring a moment early in terms of nanoseconds; never before the instant itself.
            Some(instant) => {
                tokio::time::sleep_until(self.started + instant.since(self.started_at)).await;
            }
            None => std::future::pending().await,
        }
    }
}
