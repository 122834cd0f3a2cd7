//! How long to wait before something is tried again.

use std::time::Duration;

/// Delays that double up to a bound, each shortened at random by up to a half, so that all who wait for the
/// same do not come back at once.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// Delays from `first` to `longest`.
    #[must_use]
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            next: first,
        }
    }

    /// The next delay. `randomness` is any number.
    pub fn delay(&mut self, randomness: u64) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(self.longest);
        let half = whole / 2;
        let spread = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX).max(1);
        half + Duration::from_nanos(randomness % spread)
    }

    /// Begins with the first delay again.
    pub const fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(5);

    #[test]
    fn delays_grow_to_their_bound() {
        let mut backoff = Backoff::new(FIRST, LONGEST);
        for number in 0..50u64 {
            let delay = backoff.delay(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            assert!(delay >= FIRST / 2 && delay <= LONGEST);
        }
        assert!(backoff.delay(0) >= LONGEST / 2);
        backoff.reset();
        assert!(backoff.delay(u64::MAX) <= FIRST);
    }
}
