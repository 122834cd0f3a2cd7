//! The time as a dispatcher knows it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use regatta_model::Timestamp;
use tokio::time::Instant;

/// How often somebody asks for the time, whatever happens.
pub(super) const BEAT: Duration = Duration::from_secs(1);
/// Nobody has asked for the time for so long: the process, or its machine, has stood still.
const STANDSTILL: Duration = Duration::from_secs(4);

/// The wall clock as it was at the start, and what has passed since in which the process ran. It never goes back.
///
/// While the process stands still (SIGSTOP, a suspended machine, no processor to be had) nobody hears what agents say,
/// so that is no silence of theirs: no lease expires for it.
#[derive(Debug)]
pub(super) struct Clock {
    started: (Timestamp, Instant),
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    /// When it was asked for the time last.
    last: Instant,
    /// For how long it has stood still altogether.
    stood_still: Duration,
}

impl Clock {
    /// One that begins now, and is asked for the time every [`BEAT`].
    pub(super) fn start() -> Self {
        let now = Instant::now();
        Self {
            started: (Timestamp::from(SystemTime::now()), now),
            seen: Mutex::new(Seen {
                last: now,
                stood_still: Duration::ZERO,
            }),
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        let mut seen = self.seen();
        let now = Instant::now();
        let unseen = now.saturating_duration_since(seen.last);
        if unseen >= STANDSTILL {
            tracing::warn!(
                seconds = unseen.as_secs(),
                "the coordinator has stood still; agents get that time for what they hold"
            );
            seen.stood_still += unseen;
        }
        seen.last = seen.last.max(now);
        let (time, instant) = self.started;
        time + seen
            .last
            .saturating_duration_since(instant + seen.stood_still)
    }

    /// When it will be a time, unless it stands still before.
    pub(super) fn instant_of(&self, time: Timestamp) -> Instant {
        let (started, instant) = self.started;
        instant + self.seen().stood_still + time.since(started)
    }

    /// A recent time as people know it, whose clocks did not stand still.
    pub(super) fn shown(&self, time: Timestamp) -> Timestamp {
        time + self.seen().stood_still
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn time_in_which_nobody_asks_for_it_does_not_pass() {
        let clock = Clock::start();
        let started = clock.now();
        let deadline = started + Duration::from_secs(10);
        for _ in 0..5 {
            tokio::time::advance(BEAT).await;
            clock.now();
        }
        assert_eq!(clock.now(), started + Duration::from_secs(5));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(clock.now(), started + Duration::from_secs(5));
        let left = clock.instant_of(deadline) - Instant::now();
        assert_eq!(left, Duration::from_secs(5));
        tokio::time::advance(BEAT).await;
        assert_eq!(clock.now(), started + Duration::from_secs(6));
        assert_eq!(clock.shown(deadline), deadline + Duration::from_secs(60));
    }
}
