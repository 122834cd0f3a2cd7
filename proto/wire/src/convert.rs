//! From messages to the validated values of `regatta_model`, and back.
//!
//! What belongs to a message of ours is a [`TryFrom`] or [`From`]; well-known types of Protocol Buffers,
//! which are ours as little as the values are, have a pair of functions `*_from_wire` and `*_to_wire`.

mod digest;
mod platform;
mod retry;
mod time;

pub use digest::{
    InvalidDigestError, RequiredDigestError, UnsupportedDigestFunctionError, check_digest_function,
    required_digest,
};
pub use retry::retry_delay;
pub use time::{
    InvalidDurationError, InvalidTimestampError, duration_from_wire, duration_to_wire,
    timestamp_from_wire, timestamp_to_wire,
};
