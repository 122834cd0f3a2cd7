//! Every service over loopback, with real clients against a whole coordinator.
#![expect(
    clippy::unwrap_used,
    reason = "this is all test code; a panic is how a test fails"
)]

mod action_cache;
mod adoption;
mod assets;
mod byte_stream;
mod chunking;
mod compression;
mod conformance;
mod content_addressable_storage;
mod digests;
mod execution;
mod fake_agent;
mod harness;
mod large_requests;
mod lifecycle;
mod operations;
mod outputs;
mod queue;
