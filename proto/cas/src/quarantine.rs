//! Blobs that came wrong, and count as absent for a while.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use regatta_model::Digest;
use tokio::time::Instant;

use crate::lru_map::LruMap;

/// How many blobs there may be in it; more let the oldest out.
const CAPACITY: usize = 10_000;

/// Remembers blobs that came wrong, each for a while.
pub(crate) struct Quarantine {
    period: Duration,
    /// Until when.
    held: Mutex<LruMap<Digest, Instant>>,
}

impl Quarantine {
    /// Remembers each blob for `period`.
    pub(crate) fn of(period: Duration) -> Self {
        Self {
            period,
            held: Mutex::new(LruMap::new()),
        }
    }

    pub(crate) const fn period(&self) -> Duration {
        self.period
    }

    /// Holds a blob from now on.
    pub(crate) fn hold(&self, digest: &Digest) {
        let until = Instant::now() + self.period;
        let mut held = self.held();
        held.insert(*digest, until, 1);
        if held.len() > CAPACITY {
            held.pop_oldest();
        }
    }

    /// Lets a blob out that was stored again, or is gone.
    pub(crate) fn release(&self, digest: &Digest) {
        self.held().remove(digest);
    }

    pub(crate) fn holds(&self, digest: &Digest) -> bool {
        let mut held = self.held();
        let is_held = held
            .touch(digest)
            .is_some_and(|until| *until > Instant::now());
        if !is_held {
            held.remove(digest);
        }
        is_held
    }

    fn held(&self) -> MutexGuard<'_, LruMap<Digest, Instant>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Quarantine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Quarantine")
            .field("period", &self.period)
            .field("held", &self.held().len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_blob_is_held_until_its_time_is_over_or_it_is_let_out() {
        let quarantine = Quarantine::of(Duration::from_secs(60));
        let [one, other] = [b"one" as &[u8], b"other"].map(Digest::of);
        quarantine.hold(&one);
        quarantine.hold(&other);
        quarantine.release(&other);
        tokio::time::advance(Duration::from_secs(59)).await;
        assert!(quarantine.holds(&one));
        assert!(!quarantine.holds(&other));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!quarantine.holds(&one));
        assert_eq!(quarantine.held().len(), 0);
    }

    #[test]
    fn the_oldest_gives_way() {
        let quarantine = Quarantine::of(Duration::from_secs(60));
        let of = |at: usize| Digest::of(&at.to_le_bytes());
        (0..=CAPACITY).for_each(|at| quarantine.hold(&of(at)));
        assert!(!quarantine.holds(&of(0)));
        assert!(quarantine.holds(&of(1)) && quarantine.holds(&of(CAPACITY)));
        assert_eq!(quarantine.held().len(), CAPACITY);
    }
}
