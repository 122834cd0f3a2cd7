//! The time by which uses are told apart.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use super::entry::Seconds;

/// Tells the time.
pub(super) type Clock = Box<dyn Fn() -> Seconds + Send + Sync>;

pub(super) fn seconds(duration: Duration) -> Seconds {
    Seconds::try_from(duration.as_secs()).unwrap_or(Seconds::MAX)
}

/// Goes on from what another clock says now, whatever that says later: nothing grows old because somebody sets the
/// time.
pub(super) fn steady_clock(wall: &dyn Fn() -> Seconds) -> Clock {
    let (wall, since) = (wall(), Instant::now());
    Box::new(move || wall.saturating_add(seconds(since.elapsed())))
}

pub(super) fn system_time() -> Seconds {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, seconds)
}
