//! Every service over loopback, with real clients against a whole coordinator.
#![expect(
    clippy::unwrap_used,
    reason = "this is all test code; a panic is how a test fails"
)]

mod action_cache;
mod byte_stream;
mod conformance;
mod content_addressable_storage;
mod execution;
mod fake_agent;
mod harness;
mod lifecycle;
mod operations;
