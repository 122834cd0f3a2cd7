//! For how long a coordinator that does not answer is asked again.

use std::time::Duration;

use regatta_model::Backoff;
use tokio::time::Instant;
use uuid::Uuid;

/// For how long it is asked again.
pub(crate) const GIVE_UP_AFTER: Duration = Duration::from_secs(60);
/// How long to wait before the first new attempt; it doubles with every further one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// How long to wait at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What is left of the time in which something is asked again.
#[derive(Debug)]
pub(crate) struct Patience {
    /// How long that is in all.
    limit: Duration,
    /// Since when nothing has come, and how long to wait next.
    trouble: Option<(Instant, Backoff)>,
}

impl Default for Patience {
    fn default() -> Self {
        Self::of(GIVE_UP_AFTER)
    }
}

impl Patience {
    /// For so long.
    pub(crate) const fn of(limit: Duration) -> Self {
        Self {
            limit,
            trouble: None,
        }
    }

    /// Something has come: what was waited before does not count.
    pub(crate) fn renew(&mut self) {
        self.trouble = None;
    }

    /// Whether nothing has been waited for yet.
    pub(crate) const fn is_whole(&self) -> bool {
        self.trouble.is_none()
    }

    /// Whether there is to be no further attempt.
    pub(crate) fn is_over(&self) -> bool {
        self.trouble
            .as_ref()
            .is_some_and(|(since, _)| since.elapsed() >= self.limit)
    }

    /// Whether there is to be a further attempt after so long.
    pub(crate) fn outlasts(&self, pause: Duration) -> bool {
        let waited = self
            .trouble
            .as_ref()
            .map_or(Duration::ZERO, |(since, _)| since.elapsed());
        waited + pause < self.limit
    }

    /// Waits until it is time for the next attempt. Dropping the future loses nothing.
    pub(crate) async fn pause(&mut self) {
        self.pause_for(Duration::ZERO).await;
    }

    /// The same, but for longer than `least`. Chance spreads those who wait for the same.
    pub(crate) async fn pause_for(&mut self, least: Duration) {
        let begin = || (Instant::now(), Backoff::new(FIRST_PAUSE, LONGEST_PAUSE));
        let (_, pauses) = self.trouble.get_or_insert_with(begin);
        // The last bits of a version 4 UUID are random, which saves a dependency.
        let (_, randomness) = Uuid::new_v4().as_u64_pair();
        tokio::time::sleep(least + pauses.delay(randomness)).await;
    }
}
