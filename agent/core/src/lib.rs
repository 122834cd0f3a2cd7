//! The life of an agent's slots and leases, as a pure state machine.
//!
//! A driver feeds [`AgentCore::step`] with what happened and carries out the [`Effect`]s that come
//! back; their results return as events (design, decisions D1 and D2). What a lease asks for and what
//! came out of it are opaque here: type parameters that travel through.
//!
//! Invariants, each of which the property tests check after every event:
//! - `no_lease_runs_twice`: a lease starts at most once, however often it is wished for.
//! - `no_undesired_lease_survives`: what a desired state leaves out, having seen it reported, is
//!   stopped and forgotten; nothing else is. Losing a connection stops nothing.
//! - `every_outcome_reported_until_acknowledged`: each report names every outcome not yet acknowledged.
//! - `container_never_shared_across_runs`: a container is reused only for the same tenant, run, image,
//!   resources, network and work path, and never after or for a lease that wants one for itself.
//! - `slots_never_exceeded`: at most one lease works in a slot, and there are no other places to work.
//! - `no_avoided_slot_while_another_is_idle`: a lease is not put in the slot where it failed before unless no other
//!   is idle, whatever container that has, or ends what nobody wishes for any more.
//! - `no_lease_waits_beside_an_idle_slot`: not even if that is the one to avoid, but for such an end.
//!
//! The core knows no clock, no randomness, no I/O, no threads and no wire messages.

mod agent_core;
mod config;
mod connection;
mod container;
mod effect;
mod event;
mod lease;
mod life;
mod slot;

pub use agent_core::AgentCore;
pub use config::{
    CoreConfig, DEFAULT_HEARTBEAT_INTERVAL, HEARTBEAT_INTERVAL_LIMITS, RUN_CONTAINER_IDLE_LIMIT,
    STARTED_REPORT_DELAY, UNACKNOWLEDGED_EXIT_LIMIT, WARM_RETRY_DELAY,
};
pub use container::{Demand, Shape, ShareKey};
pub use effect::{ContainerPlan, Effect, LeasePhase, LeaseReport, Report, Step};
pub use event::{ConnectionId, ContainerFate, DesiredLease, DesiredState, Event, LeaseKey, Work};
