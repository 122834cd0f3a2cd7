//! The values that every other crate of Regatta speaks: digests, ids, times, platforms, outcomes.
//!
//! Invariants:
//! - Every value is valid once it exists; parsing is the only way in.
//! - This crate depends on no other crate of the workspace and does no I/O.
//! - Nothing here reads a clock or a random source: times and ids are given.

mod action;
mod backoff;
mod digest;
mod ids;
mod outcome;
mod planted_bug;
mod platform;
mod time;
mod truncation;

pub use action::{Isolation, NetworkAccess, ParseIsolationError, RootDirectory};
pub use backoff::Backoff;
pub use digest::{Digest, DigestHasher, ParseDigestError};
pub use ids::{
    AgentId, AttemptNumber, FencingToken, ImageReference, InvalidIdError, JobName, LeaseId, RunId,
    SlotIndex, TaskId, TenantId, TestId, UnitIndex,
};
pub use outcome::{FailureClass, TestStatus, Verdict};
pub use planted_bug::PlantedBug;
pub use platform::{Platform, Resources, UnmetRequirement};
pub use time::Timestamp;
pub use truncation::Truncation;
