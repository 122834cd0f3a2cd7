//! How often, and when, something is asked again.

use std::time::Duration;

use object_store::{Error, Result};
use regatta_model::Backoff;
use tokio::time::Instant;

use super::guard::Guard;

/// How often a request is made at most: a store that fails one request in ten, which is a bad day, then fails
/// one call in ten thousand.
pub(super) const MAX_ATTEMPTS: u32 = 4;
/// When the third and later ones begin at the latest, after the first. A second one there always is: what is
/// given minutes may have hung for all of them.
pub(super) const REPEAT_WITHIN: Duration = Duration::from_secs(60);
/// How long the first wait between two attempts is at most: about as long as an answer takes.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// How long any of them is at most.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// The attempts at one thing since it last made progress.
#[derive(Debug)]
pub(super) struct Attempts {
    failed: u32,
    waits: Backoff,
    until: Instant,
}

impl Attempts {
    pub(super) fn begin() -> Self {
        Self {
            failed: 0,
            waits: Backoff::new(FIRST_WAIT, LONGEST_WAIT),
            until: Instant::now() + REPEAT_WITHIN,
        }
    }

    /// Whether any has failed.
    pub(super) const fn has_failed(&self) -> bool {
        self.failed > 0
    }

    /// Waits until it is time for the next attempt, after one that failed with `error`.
    ///
    /// # Errors
    /// `error`, if there is to be no other attempt.
    pub(super) async fn again(&mut self, guard: &Guard, error: Error) -> Result<()> {
        self.failed += 1;
        let wait = self.waits.delay(guard.randomness());
        let too_late = self.failed > 1 && Instant::now() + wait > self.until;
        if too_late || self.failed >= MAX_ATTEMPTS {
            return Err(error);
        }
        guard.repeats(&error, wait);
        tokio::time::sleep(wait).await;
        Ok(())
    }
}
