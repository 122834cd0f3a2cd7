//! What submitters get back.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use regatta_model::{AgentId, AttemptNumber, LeaseId, SlotIndex, TaskId, UnitIndex};
use regatta_scheduler::UnitError;
use regatta_wire::v1;

use super::Dispatcher;
use super::mailbox::Mailbox;

/// Something that happened to submitted work.
#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "the large one is the common one, and lives for a moment"
)]
pub enum TaskEvent {
    /// Units were leased to an agent.
    Granted {
        /// Which lease.
        lease: LeaseId,
        /// Who holds it.
        agent: AgentId,
        /// Which units.
        units: Vec<UnitIndex>,
        /// The attempt of the first of them.
        attempt: AttemptNumber,
        /// How long the oldest of them waited.
        queued: Duration,
        /// The lease that has the same units and is late. What either answers first counts.
        duplicates: Option<LeaseId>,
    },
    /// A piece of live output. Pieces may be lost; the outcome has everything.
    Output {
        /// Which unit.
        unit: UnitIndex,
        /// Which stream.
        stream: v1::OutputStream,
        /// Where `data` begins in that stream, in bytes.
        offset: u64,
        /// The piece.
        data: Bytes,
    },
    /// A unit has its one answer, good or bad.
    Answered {
        /// Which unit.
        unit: UnitIndex,
        /// The answer, never of kind INFRASTRUCTURE, REGISTRY_UNREACHABLE or CANCELLED.
        outcome: v1::ExecutionOutcome,
        /// The lease it comes from.
        lease: LeaseId,
        /// The agent it comes from.
        agent: AgentId,
        /// The slot it comes from.
        slot: SlotIndex,
        /// The attempt it comes from.
        attempt: AttemptNumber,
    },
    /// A unit was lost with a machine and will be tried again.
    Retried {
        /// Which unit.
        unit: UnitIndex,
        /// Where it was lost.
        agent: AgentId,
        /// The attempt that was lost.
        attempt: AttemptNumber,
        /// What happened.
        reason: String,
    },
    /// A unit waits again, as if it had not been leased: nothing new is begun now.
    Returned {
        /// Which unit.
        unit: UnitIndex,
    },
    /// A unit will never be answered.
    Failed {
        /// Which unit.
        unit: UnitIndex,
        /// Why.
        error: UnitError,
    },
    /// Every unit has been answered or has failed. The last event.
    Finished,
}

/// A submitter's hold on its work: dropping it before [`TaskEvent::Finished`] cancels the work, unless
/// another submitter's identical work was merged with it.
#[derive(Debug)]
pub struct TaskHandle {
    pub(super) task: TaskId,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) dispatcher: Arc<Dispatcher>,
}

impl TaskHandle {
    /// The task's id, for logs.
    #[must_use]
    pub const fn id(&self) -> TaskId {
        self.task
    }

    /// The next event; `None` after [`TaskEvent::Finished`]. Cancel-safe.
    pub async fn next(&mut self) -> Option<TaskEvent> {
        self.mailbox.next().await
    }
}

impl Drop for TaskHandle {
    fn drop(&mut self) {
        if !self.mailbox.is_finished() {
            self.dispatcher.cancel_task(self.task);
        }
    }
}
