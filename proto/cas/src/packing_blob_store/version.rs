//! The order of writes.

use std::time::{SystemTime, UNIX_EPOCH};

/// Which of several writes of one key is the last: the greater, which was written later as far as clocks
/// agree. Microseconds of the Unix epoch, and always beyond what its writer has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Version(u64);

impl Version {
    /// Beyond it no clock gets, and counting on cannot overflow.
    const LIMIT: u64 = 1 << 62;

    /// A version that was read, if it can be one.
    pub(super) const fn new(version: u64) -> Option<Self> {
        if version < Self::LIMIT {
            Some(Self(version))
        } else {
            None
        }
    }

    /// A version for what is written now by somebody who has seen `newest`.
    pub(super) fn after(newest: Self) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |now| u64::try_from(now.as_micros()).unwrap_or(0));
        Self(now.max(newest.0 + 1).min(Self::LIMIT - 1))
    }

    pub(super) const fn get(self) -> u64 {
        self.0
    }
}

/// Now, in seconds of the Unix epoch.
pub(super) fn now_s() -> u32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| u32::try_from(now.as_secs()).unwrap_or(u32::MAX))
}
