//! What is going to happen in a simulated world.

use regatta_model::{LeaseId, TaskId};

use crate::{AgentState, DesiredAgent};

/// An entry of the agenda: machines are named by their place in the plan, and what comes too late for a
/// machine is told by the connection or the life that it belongs to.
#[derive(Debug)]
pub(crate) enum Happening {
    Submit(usize),
    /// After a restart, unless it was cancelled meanwhile or there was another restart.
    Resubmit {
        task: TaskId,
        restart: usize,
    },
    Cancel(usize),
    Fault(usize),
    Connect {
        machine: usize,
        life: u64,
    },
    Unsilence {
        machine: usize,
    },
    /// Unless something else holds the scheduler by then.
    Unhold {
        fault: usize,
    },
    Undrain {
        machine: usize,
    },
    Heartbeat {
        machine: usize,
        connection: u64,
    },
    Report {
        machine: usize,
    },
    ReportArrives(Box<AgentState>),
    DesireArrives {
        machine: usize,
        connection: u64,
        desired: DesiredAgent,
    },
    UnitEnds {
        machine: usize,
        life: u64,
        lease: LeaseId,
    },
    Stopped {
        machine: usize,
        life: u64,
        lease: LeaseId,
    },
    Tick,
}
