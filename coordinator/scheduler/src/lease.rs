//! A batch of units at an agent.

use regatta_model::{
    AttemptNumber, FencingToken, LeaseId, Resources, SlotIndex, TaskId, Timestamp, UnitIndex,
};

use crate::fleet::AgentKey;
use crate::queue::RunKey;
use crate::task::TaskKey;

/// What was granted, until the agent says that it is gone.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) id: LeaseId,
    pub(crate) token: FencingToken,
    pub(crate) agent: AgentKey,
    /// The slot that its agent has put it in, as far as it has said so.
    pub(crate) slot: Option<SlotIndex>,
    /// The task, as it was told to the driver.
    pub(crate) granted_for: TaskId,
    /// What it works for; nothing once nobody wants it any more. Only then it is not desired.
    pub(crate) task: Option<TaskKey>,
    /// On whose account.
    pub(crate) run: RunKey,
    /// Units without an outcome, in the order to run them, and the attempts that they are here.
    pub(crate) pending: Vec<(UnitIndex, AttemptNumber)>,
    /// What its agent calls its units, in order, with what they are called here; nothing if it is the same.
    pub(crate) numbering: Vec<(UnitIndex, UnitIndex)>,
    /// The other lease of the same units, if they are leased twice.
    pub(crate) twin: Option<LeaseId>,
    /// When it will be late, if it can be and is not.
    pub(crate) late_at: Option<Timestamp>,
    pub(crate) resources: Resources,
    pub(crate) granted_at: Timestamp,
    /// Since when it is not desired.
    pub(crate) released_at: Option<Timestamp>,
    /// What its run was charged for it, in nanoseconds of a slot.
    pub(crate) charged_nanos: u64,
    /// How many of its outcomes are taken.
    pub(crate) acknowledged: u32,
    /// The first desired state that had it, if one was sent.
    pub(crate) first_version: Option<u64>,
    /// The first report of this connection that had it.
    pub(crate) first_reported: Option<u64>,
    /// Whether any report of any connection had it.
    pub(crate) was_held: bool,
    /// Whether nothing of it runs any more, so that it occupies nothing.
    pub(crate) vacated: bool,
    /// Whether its agent has been blamed for losing some of it.
    pub(crate) blamed: bool,
}

impl Lease {
    /// Whether a report that lacks it says that it is gone: then the agent has been told of it, or has held it, in this
    /// connection or before it began. One that is taken up and answered for at once is in no state that is sent.
    pub(crate) fn is_gone(&self, observed_version: u64, first_of_connection: bool) -> bool {
        let was_told = self
            .first_version
            .is_some_and(|first| first <= observed_version);
        let had_it = self.first_reported.is_some() || (first_of_connection && self.was_held);
        was_told || had_it
    }

    /// Which unit its agent calls `own`; `None` if nobody wants what it is.
    pub(crate) fn unit_of(&self, own: UnitIndex) -> Option<UnitIndex> {
        if self.numbering.is_empty() {
            return Some(own);
        }
        let found = self.numbering.binary_search_by_key(&own, |(own, _)| *own);
        let (_, unit) = self.numbering.get(found.ok()?)?;
        Some(*unit)
    }

    /// Takes a unit out of those without an outcome, and says which attempt it was here; `None` if it is none
    /// of them.
    pub(crate) fn resolve(&mut self, unit: UnitIndex) -> Option<AttemptNumber> {
        let mut pending = self.pending.iter();
        let position = pending.position(|(pending, _)| *pending == unit)?;
        let (_, attempt) = self.pending.remove(position);
        Some(attempt)
    }

    pub(crate) fn awaits(&self, unit: UnitIndex) -> bool {
        self.pending.iter().any(|(pending, _)| *pending == unit)
    }
}
