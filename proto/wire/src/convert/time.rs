//! `google.protobuf.Timestamp` and `google.protobuf.Duration` (the specification is the comments of
//! `timestamp.proto` and `duration.proto`).

use std::time::Duration;

use regatta_model::Timestamp;

const NANOS_PER_SECOND: u64 = 1_000_000_000;
/// The longest duration that `duration.proto` allows: ten thousand years.
const MAX_DURATION_SECONDS: i64 = 315_576_000_000;

/// Why a `google.protobuf.Timestamp` is no [`Timestamp`]. The sender has to fix it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTimestampError {
    /// The fraction of a second is negative, or a second or more.
    #[error("timestamp has {nanos} nanoseconds, expected 0 to 999999999")]
    NanosOutOfRange {
        /// The nanoseconds found.
        nanos: i32,
    },
    /// The instant lies before 1970.
    #[error("timestamp lies {seconds} s from 1970-01-01T00:00:00Z, which is before it")]
    BeforeEpoch {
        /// The seconds found, negative.
        seconds: i64,
    },
    /// The instant lies after [`Timestamp::MAX`], in the year 2554.
    #[error("timestamp lies {seconds} s after 1970-01-01T00:00:00Z, which is too late")]
    TooLate {
        /// The seconds found.
        seconds: i64,
    },
}

/// Why a `google.protobuf.Duration` is no [`Duration`]. The sender has to fix it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDurationError {
    /// The fraction of a second is negative, or a second or more.
    #[error("duration has {nanos} nanoseconds, expected 0 to 999999999")]
    NanosOutOfRange {
        /// The nanoseconds found.
        nanos: i32,
    },
    /// The duration is negative.
    #[error("duration of {seconds} s is negative")]
    Negative {
        /// The seconds found, negative.
        seconds: i64,
    },
    /// The duration is longer than its specification allows.
    #[error("duration of {seconds} s is longer than 315576000000 s")]
    TooLong {
        /// The seconds found.
        seconds: i64,
    },
}

/// The fraction of a second, if it is one.
fn fraction(nanos: i32) -> Option<u32> {
    let nanos = u32::try_from(nanos).ok()?;
    (u64::from(nanos) < NANOS_PER_SECOND).then_some(nanos)
}

/// An instant from its message.
///
/// # Errors
/// The message is malformed, or outside the years 1970 to 2554.
pub fn timestamp_from_wire(
    message: &prost_types::Timestamp,
) -> Result<Timestamp, InvalidTimestampError> {
    let &prost_types::Timestamp { seconds, nanos } = message;
    let fraction = fraction(nanos).ok_or(InvalidTimestampError::NanosOutOfRange { nanos })?;
    let whole =
        u64::try_from(seconds).map_err(|_| InvalidTimestampError::BeforeEpoch { seconds })?;
    whole
        .checked_mul(NANOS_PER_SECOND)
        .and_then(|nanos| nanos.checked_add(u64::from(fraction)))
        .map(Timestamp::from_nanos)
        .ok_or(InvalidTimestampError::TooLate { seconds })
}

/// The message of an instant.
#[must_use]
pub fn timestamp_to_wire(timestamp: Timestamp) -> prost_types::Timestamp {
    let (seconds, nanos) = (
        timestamp.as_nanos() / NANOS_PER_SECOND,
        timestamp.as_nanos() % NANOS_PER_SECOND,
    );
    prost_types::Timestamp {
        // Neither quotient nor remainder comes near the limits of its type.
        seconds: i64::try_from(seconds).unwrap_or(i64::MAX),
        nanos: i32::try_from(nanos).unwrap_or(i32::MAX),
    }
}

/// A length of time from its message.
///
/// # Errors
/// The message is malformed, or the duration negative or longer than the specification allows.
pub fn duration_from_wire(
    message: &prost_types::Duration,
) -> Result<Duration, InvalidDurationError> {
    let &prost_types::Duration { seconds, nanos } = message;
    if seconds < 0 || (seconds == 0 && nanos < 0) {
        return Err(InvalidDurationError::Negative { seconds });
    }
    let fraction = fraction(nanos).ok_or(InvalidDurationError::NanosOutOfRange { nanos })?;
    if seconds > MAX_DURATION_SECONDS || (seconds == MAX_DURATION_SECONDS && nanos > 0) {
        return Err(InvalidDurationError::TooLong { seconds });
    }
    Ok(Duration::new(seconds.unsigned_abs(), fraction))
}

/// The message of a length of time. What is longer than the specification allows (ten thousand years)
/// becomes the longest there is.
#[must_use]
pub fn duration_to_wire(duration: Duration) -> prost_types::Duration {
    let nanos = i32::try_from(duration.subsec_nanos()).unwrap_or(i32::MAX);
    match i64::try_from(duration.as_secs()) {
        Ok(seconds) if seconds < MAX_DURATION_SECONDS => prost_types::Duration { seconds, nanos },
        Ok(_) | Err(_) => prost_types::Duration {
            seconds: MAX_DURATION_SECONDS,
            nanos: 0,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check_timestamp(seconds: i64, nanos: i32, expected: Result<u64, InvalidTimestampError>) {
        let found = timestamp_from_wire(&prost_types::Timestamp { seconds, nanos });
        assert_eq!(found.map(Timestamp::as_nanos), expected);
    }

    #[test]
    fn timestamps_are_checked() {
        use InvalidTimestampError::{BeforeEpoch, NanosOutOfRange, TooLate};
        check_timestamp(1, 5, Ok(1_000_000_005));
        check_timestamp(-1, 0, Err(BeforeEpoch { seconds: -1 }));
        check_timestamp(1, -1, Err(NanosOutOfRange { nanos: -1 }));
        let second = 1_000_000_000;
        check_timestamp(1, second, Err(NanosOutOfRange { nanos: second }));
        check_timestamp(18_446_744_073, 709_551_615, Ok(u64::MAX));
        let seconds = 18_446_744_073;
        check_timestamp(seconds, 709_551_616, Err(TooLate { seconds }));
        check_timestamp(i64::MAX, 0, Err(TooLate { seconds: i64::MAX }));
    }

    #[track_caller]
    fn check_duration(seconds: i64, nanos: i32, expected: Result<Duration, InvalidDurationError>) {
        let found = duration_from_wire(&prost_types::Duration { seconds, nanos });
        assert_eq!(found, expected);
    }

    #[test]
    fn durations_are_checked() {
        use InvalidDurationError::{NanosOutOfRange, Negative, TooLong};
        check_duration(1, 5, Ok(Duration::new(1, 5)));
        check_duration(0, -1, Err(Negative { seconds: 0 }));
        check_duration(-1, -1, Err(Negative { seconds: -1 }));
        check_duration(1, -1, Err(NanosOutOfRange { nanos: -1 }));
        let seconds = MAX_DURATION_SECONDS;
        check_duration(seconds, 0, Ok(Duration::from_secs(315_576_000_000)));
        check_duration(seconds, 1, Err(TooLong { seconds }));
    }

    #[test]
    fn the_longest_duration_is_what_longer_ones_become() {
        let longest = duration_to_wire(Duration::MAX);
        assert_eq!(longest.seconds, MAX_DURATION_SECONDS);
        assert!(duration_from_wire(&longest).is_ok());
    }

    proptest! {
        #[test]
        fn timestamps_survive_the_wire(nanos: u64) {
            let timestamp = Timestamp::from_nanos(nanos);
            let message = timestamp_to_wire(timestamp);
            prop_assert_eq!(timestamp_from_wire(&message), Ok(timestamp));
        }

        #[test]
        fn durations_survive_the_wire(nanos: u64) {
            let duration = Duration::from_nanos(nanos);
            let message = duration_to_wire(duration);
            prop_assert_eq!(duration_from_wire(&message), Ok(duration));
        }

        #[test]
        fn no_message_makes_it_panic(seconds: i64, nanos: i32) {
            let timestamp = prost_types::Timestamp { seconds, nanos };
            if let Ok(parsed) = timestamp_from_wire(&timestamp) {
                prop_assert_eq!(timestamp_to_wire(parsed), timestamp);
            }
            let duration = prost_types::Duration { seconds, nanos };
            if let Ok(parsed) = duration_from_wire(&duration) {
                prop_assert_eq!(duration_to_wire(parsed), duration);
            }
        }
    }
}
