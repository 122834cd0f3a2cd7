//! What happens outside.

use std::time::Duration;

use regatta_model::{FencingToken, LeaseId, SlotIndex};

use crate::container::Demand;

/// One connection to the coordinator; later ones are greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ConnectionId(pub u64);

/// A lease as it was granted. With another token it is another lease.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LeaseKey {
    /// Which lease.
    pub lease: LeaseId,
    /// What it may publish under.
    pub token: FencingToken,
}

/// Something that happened. `Spec` is what a lease asks for, `Outcome` what became of one of its
/// executions; the core looks into neither.
#[derive(Clone, Debug)]
pub enum Event<Spec, Outcome> {
    /// A connection is ready for reports.
    ConnectionOpened(ConnectionId),
    /// A connection ended.
    ConnectionLost(ConnectionId),
    /// The report in flight has left; the next may go.
    ReportSent(ConnectionId),
    /// The coordinator told what it wishes for.
    Desired(ConnectionId, DesiredState<Spec>),
    /// A lease's inputs are there and its first execution begins.
    LeaseStarted(SlotIndex, LeaseKey),
    /// An execution ended; outcomes of a lease come in the order of its executions.
    UnitFinished(SlotIndex, LeaseKey, Outcome),
    /// Nothing of the lease runs any more, stopped or not.
    LeaseFinished(SlotIndex, LeaseKey, ContainerFate),
    /// A lease's slot failed in a way that left no outcome: the lease is lost.
    SlotFailed(SlotIndex, LeaseKey),
    /// A container that was being started ahead, or was idle, is no more.
    ContainerLost(SlotIndex),
    /// The offer differs from what was last reported.
    OfferChanged,
    /// New work is refused for this reason from now on, or welcome again.
    Unavailable(Option<String>),
    /// Finish what runs, take nothing new, then exit (SIGTERM).
    Drain,
    /// Exit now.
    Kill,
    /// The time that `wake_at` named has come.
    Tick,
}

/// What became of a lease's container.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ContainerFate {
    /// It is wiped and may serve leases that it can be shared with.
    Kept,
    /// It is gone, or was never there.
    Gone,
}

/// What the coordinator wishes for.
#[derive(Clone, Debug)]
pub struct DesiredState<Spec> {
    /// Grows within a connection.
    pub version: u64,
    /// The last report of this connection that it takes into account; 0 before the first.
    pub observed_sequence: u64,
    /// Whether the coordinator drains this agent; it then needs no containers started ahead.
    pub drain: bool,
    /// How often to report when nothing changes.
    pub heartbeat_interval: Duration,
    /// Everything that the agent should hold.
    pub leases: Vec<DesiredLease<Spec>>,
}

/// A lease that the agent should hold.
#[derive(Clone, Debug)]
pub struct DesiredLease<Spec> {
    /// Which.
    pub key: LeaseKey,
    /// How many of its outcomes are recorded.
    pub acknowledged_outcomes: u32,
    /// What to do; `None` once the agent has reported the lease on this connection.
    pub work: Option<Work<Spec>>,
}

/// What a lease is.
#[derive(Clone, Debug)]
pub struct Work<Spec> {
    /// What it asks of its container.
    pub demand: Demand,
    /// The slot that it is put in only if no other is idle.
    pub avoid: Option<SlotIndex>,
    /// The rest, for whoever runs it.
    pub spec: Spec,
}
