//! The agent of a machine: takes leases from the coordinator and carries them out in its slots.
//!
//! [`Agent`] drives the pure core of `regatta_agent_core`: tasks around it turn what happens on the
//! connection, in the slots and on the disk into events, one loop feeds them to the core and carries out
//! what it decides. Containers are behind the port of `regatta_runtime`, bytes behind that of
//! `regatta_cas`.
//!
//! Invariants:
//! - The loop never waits for a slot, an upload or the disk: heartbeats do not depend on them.
//! - A lost connection stops no work; results wait for the coordinator, within bounds.
//! - Every execution of a lease gets an outcome, unless the lease is no longer wished for. Every blob that
//!   an outcome names was stored before.
//! - Paths of a job are resolved beneath its view alone; names from the wire become single path
//!   components or nothing.
//! - One agent at a time uses a state directory. When an agent has ended, no container, no process and no
//!   scratch file of it is left.
//! - Nothing here writes the action cache, decides what is retried, or knows other agents.

mod agent;
mod availability;
mod blobs;
mod clock;
mod config;
mod connection;
mod disk_watch;
mod driver;
mod engine_watch;
mod error;
mod image_watch;
mod input_tree;
mod lease_spec;
mod live_output;
mod occurrence;
mod offered_properties;
mod outcome;
mod retry;
mod slot;
mod state_directory;
mod timestamps;
mod view_path;

pub use agent::Agent;
pub use config::AgentConfig;
pub use error::AgentError;
pub use view_path::{InvalidPathError, ViewPath};
