//! Whether a store that fails is worth asking.

use std::time::Duration;

use regatta_model::Backoff;
use tokio::time::Instant;

/// How many requests in a row fail before a store counts as away: more than one caller makes of its own.
pub(super) const AWAY_AFTER_FAILURES: u32 = 10;
/// How long there has been nothing but failures by then, at least: a crowd of requests that fails at once is a
/// busy store's way to ask for a moment, which their waits give it.
pub(super) const AWAY_AFTER: Duration = Duration::from_secs(2);
/// How long a store that is away is left alone at first: as long as callers are told to wait.
pub(super) const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// How long it is left alone at most: nobody should wait much longer than the store is away.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Counts what comes of requests, and refuses them while the store is away. After each pause one of them is
/// let through: if it succeeds, all are again.
///
/// It knows no clock and no chance: whoever asks says what time it is, and brings any number.
#[derive(Debug)]
pub(super) struct CircuitBreaker {
    state: State,
}

#[derive(Debug)]
enum State {
    Closed {
        /// How many requests failed since the last that did not.
        failures: u32,
        /// When the first of them failed.
        since: Option<Instant>,
    },
    Open(Open),
}

#[derive(Debug)]
struct Open {
    /// When the first of the requests failed that brought this about.
    since: Instant,
    /// What the last failure was.
    reason: String,
    pauses: Backoff,
    /// The pause that goes on, or that follows the request that was let through.
    pause: Duration,
    /// When the next request is let through.
    again_at: Instant,
}

/// A store is away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Away {
    /// How long it has done nothing but fail.
    pub(super) failing: Duration,
    /// How long until it is asked again.
    pub(super) again_in: Duration,
    /// What its last failure was.
    pub(super) reason: String,
}

/// What an answer changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing.
    None,
    /// The store counts as away from now on.
    Opened,
    /// The store is back, having been away for so long.
    Closed(Duration),
}

impl CircuitBreaker {
    pub(super) const fn new() -> Self {
        Self {
            state: State::Closed {
                failures: 0,
                since: None,
            },
        }
    }

    /// Lets a request through or refuses it.
    pub(super) fn admit(&mut self, now: Instant, randomness: u64) -> Result<(), Away> {
        let State::Open(open) = &mut self.state else {
            return Ok(());
        };
        if now < open.again_at {
            return Err(Away {
                failing: now - open.since,
                again_in: open.again_at - now,
                reason: open.reason.clone(),
            });
        }
        // Should nothing ever come of this request, another is let through a pause later.
        open.pause = open.pauses.delay(randomness);
        open.again_at = now + open.pause;
        Ok(())
    }

    /// A request was answered, be it with a refusal.
    pub(super) fn answered(&mut self, now: Instant) -> Change {
        let before = std::mem::replace(self, Self::new());
        match before.state {
            State::Closed { .. } => Change::None,
            State::Open(open) => Change::Closed(now - open.since),
        }
    }

    /// A request failed in a way that says nothing of the request.
    pub(super) fn failed(&mut self, now: Instant, reason: &str, randomness: u64) -> Change {
        match &mut self.state {
            State::Open(open) => {
                reason.clone_into(&mut open.reason);
                open.again_at = open.again_at.max(now + open.pause);
                Change::None
            }
            State::Closed { failures, since } => {
                *failures += 1;
                let since = *since.get_or_insert(now);
                if *failures < AWAY_AFTER_FAILURES || now - since < AWAY_AFTER {
                    return Change::None;
                }
                self.state = State::Open(Open::at(now, since, reason, randomness));
                Change::Opened
            }
        }
    }
}

impl Open {
    fn at(now: Instant, since: Instant, reason: &str, randomness: u64) -> Self {
        let mut pauses = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        let pause = pauses.delay(randomness);
        Self {
            since,
            reason: reason.to_owned(),
            pauses,
            pause,
            again_at: now + pause,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STEP: Duration = Duration::from_millis(250);

    /// A breaker that has just opened, and when.
    fn open() -> (CircuitBreaker, Instant) {
        let mut breaker = CircuitBreaker::new();
        let mut now = Instant::now();
        for _ in 1..AWAY_AFTER_FAILURES {
            assert_eq!(breaker.failed(now, "down", 0), Change::None);
            now += STEP;
        }
        assert_eq!(breaker.failed(now, "down for good", 0), Change::Opened);
        (breaker, now)
    }

    #[test]
    fn it_says_since_when_why_and_when_it_asks_again() {
        let (mut breaker, now) = open();
        let away = breaker.admit(now, 0).unwrap_err();
        let expected = Away {
            failing: STEP * (AWAY_AFTER_FAILURES - 1),
            again_in: FIRST_PAUSE / 2,
            reason: "down for good".to_owned(),
        };
        assert_eq!(away, expected);
    }

    #[test]
    fn a_crowd_that_fails_at_once_and_few_failures_over_a_long_time_open_nothing() {
        let mut breaker = CircuitBreaker::new();
        let now = Instant::now();
        for _ in 0..10 * AWAY_AFTER_FAILURES {
            assert_eq!(breaker.failed(now, "busy", 0), Change::None);
        }
        assert_eq!(breaker.failed(now + AWAY_AFTER, "x", 0), Change::Opened);
        let mut breaker = CircuitBreaker::new();
        for failure in 1..AWAY_AFTER_FAILURES {
            let now = now + AWAY_AFTER * failure;
            assert_eq!(breaker.failed(now, "busy", 0), Change::None);
        }
        assert_eq!(breaker.answered(now), Change::None);
        assert_eq!(breaker.failed(now, "busy", 0), Change::None);
    }

    #[test]
    fn one_answer_lets_all_through_again() {
        let (mut breaker, opened) = open();
        let now = opened + FIRST_PAUSE;
        breaker.admit(now, 0).unwrap();
        breaker.admit(now, 0).unwrap_err();
        let Change::Closed(failing) = breaker.answered(now) else {
            panic!("it closes");
        };
        assert_eq!(failing, STEP * (AWAY_AFTER_FAILURES - 1) + FIRST_PAUSE);
        for _ in 0..10 {
            breaker.admit(now, 0).unwrap();
        }
    }

    proptest! {
        /// However long a store is away, and whatever becomes of those that are let through: they are few,
        /// and yet never long in coming.
        #[test]
        fn a_store_that_is_away_is_asked_seldom_but_again_and_again(
            fates in prop::collection::vec((any::<bool>(), any::<u64>()), 12),
        ) {
            let (mut breaker, opened) = open();
            let (mut now, mut admitted) = (opened, vec![opened]);
            for (fails, randomness) in fates {
                // Somebody asks again and again until somebody is let through.
                while breaker.admit(now, randomness).is_err() {
                    now += STEP;
                    prop_assert!(now - admitted[admitted.len() - 1] <= LONGEST_PAUSE + FIRST_PAUSE);
                }
                let before = admitted[admitted.len() - 1];
                let doubled = FIRST_PAUSE / 2 * (1 << (admitted.len() - 1).min(20));
                prop_assert!(now - before >= doubled.min(LONGEST_PAUSE / 2));
                admitted.push(now);
                if fails {
                    prop_assert_eq!(breaker.failed(now, "down", randomness), Change::None);
                }
            }
        }
    }
}
