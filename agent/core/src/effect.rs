//! What to do about what happened.

use regatta_model::{SlotIndex, Timestamp};

use crate::container::Shape;
use crate::event::{ConnectionId, LeaseKey};

/// What one event led to.
#[derive(Debug, PartialEq, Eq)]
pub struct Step<Spec, Outcome> {
    /// What to do, in order.
    pub effects: Vec<Effect<Spec, Outcome>>,
    /// When to come back with a tick if nothing else happens.
    pub wake_at: Option<Timestamp>,
}

/// What the driver is to do. Effects of one slot are carried out one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect<Spec, Outcome> {
    /// Tell the coordinator; `ReportSent` follows, or `ConnectionLost`.
    SendReport(Report<Spec, Outcome>),
    /// Run a lease; `LeaseFinished` or `SlotFailed` follows, whatever happens.
    Start {
        /// Where.
        slot: SlotIndex,
        /// Which lease.
        lease: LeaseKey,
        /// What it asks for.
        spec: Spec,
        /// In which container.
        container: ContainerPlan,
    },
    /// Kill what a lease runs.
    Stop {
        /// Where it works.
        slot: SlotIndex,
        /// Which lease.
        lease: LeaseKey,
    },
    /// Start a container ahead, in place of whatever the slot has.
    Warm {
        /// Where.
        slot: SlotIndex,
        /// What it is like.
        shape: Shape,
    },
    /// End the container that the slot has.
    Evict {
        /// Where.
        slot: SlotIndex,
    },
    /// Nothing is left to do: stop every container and end.
    Exit,
}

/// In which container a lease runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ContainerPlan {
    /// The one that the slot has, or a new one should it turn out to be gone.
    Reuse,
    /// A new one; the slot's, if any, is ended.
    Replace,
}

/// The agent's whole state, as the coordinator is told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report<Spec, Outcome> {
    /// The connection that it goes over.
    pub connection: ConnectionId,
    /// Counts the reports of the connection from 1.
    pub sequence: u64,
    /// The version of the last desired state of this connection that it takes into account, or 0.
    pub observed_version: u64,
    /// Whether the offer is to be sent along.
    pub with_offer: bool,
    /// Everything held.
    pub leases: Vec<LeaseReport<Spec, Outcome>>,
    /// Whether the agent was told to stop.
    pub draining: bool,
    /// Why nothing new is taken for now.
    pub unavailable_reason: Option<String>,
}

/// A lease, as the coordinator is told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseReport<Spec, Outcome> {
    /// Which.
    pub key: LeaseKey,
    /// What it is, for a coordinator that may not know: in the first report of a connection.
    pub spec: Option<Spec>,
    /// How far it is.
    pub phase: LeasePhase,
    /// The slot that works on it or did; none while it waits for one.
    pub slot: Option<SlotIndex>,
    /// Outcomes in order, less the acknowledged ones.
    pub outcomes: Vec<Outcome>,
    /// How many outcomes there were, acknowledged ones included.
    pub outcome_count: u32,
}

/// How far a lease is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LeasePhase {
    /// Waiting for a slot or its inputs.
    Staging,
    /// Its executions run.
    Running,
    /// Nothing of it runs any more.
    Finished,
}
