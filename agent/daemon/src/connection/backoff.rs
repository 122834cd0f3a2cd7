//! How long to wait before connecting again.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

/// Delays that double up to a bound, each shortened at random by up to a half, so that the agents of a
/// fleet do not come back all at once.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self { next: FIRST }
    }

    /// The next delay. `randomness` is any number.
    pub(crate) fn delay(&mut self, randomness: u64) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(LONGEST);
        let half = whole / 2;
        let spread = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX).max(1);
        half + Duration::from_nanos(randomness % spread)
    }

    pub(crate) fn reset(&mut self) {
        *self = Self::new();
    }
}

/// A number nobody else has.
pub(crate) fn randomness() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_their_bound() {
        let mut backoff = Backoff::new();
        for number in 0..50u64 {
            let delay = backoff.delay(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            assert!(delay >= FIRST / 2 && delay <= LONGEST);
        }
        assert!(backoff.delay(0) >= LONGEST / 2);
        backoff.reset();
        assert!(backoff.delay(u64::MAX) <= FIRST);
    }
}
