//! What is going to happen.

use regatta_agent_core::LeaseKey;
use regatta_wire::v1;

use crate::said::Link;

/// An entry of the agenda. What comes too late is told by the life, the link or the part that it belongs to.
#[derive(Debug)]
pub(crate) enum Happening {
    Fault(usize),
    Mended,
    CoordinatorStarts,
    MachineStarts(usize),
    /// An agent's timer.
    Wakes {
        machine: usize,
        life: u64,
    },
    Connects {
        machine: usize,
        life: u64,
    },
    /// An agent notices that its connection is gone.
    LinkLost(Link),
    /// The coordinator notices.
    LinkEnds(Link),
    KeepAlive(Link),
    ReportLeft(Link),
    ReportArrives(Link, Box<v1::AgentReport>),
    StateArrives(Link, Box<v1::DesiredState>),
    /// The next thing in a slot.
    Works(Slot),
    Stopped(Slot, LeaseKey),
    Uploads(u64),
    StorageMended(Mood),
    Submits {
        run: usize,
        attempt: u32,
    },
    Watches(usize),
    Cancels(usize),
    Sweeps,
    LooksUp,
    /// The coordinator that stood still goes on.
    Awakes,
    /// Somebody uploads what is missing of this one of the plan's.
    Provides(usize),
    /// Somebody does something with a large blob, as this place of the plan has it.
    HasLarge(usize),
}

/// A part of the work in a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Slot {
    pub(crate) machine: usize,
    pub(crate) life: u64,
    pub(crate) slot: usize,
    pub(crate) part: u64,
}

/// What storage may be like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mood {
    Slow,
    Failing,
    /// The ledger takes nothing.
    Full,
    Lying,
}
