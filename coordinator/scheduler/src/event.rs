//! What goes into the scheduler, and what comes out.

use std::time::Duration;

use regatta_model::{
    AgentId, AttemptNumber, Digest, FencingToken, ImageReference, LeaseId, Platform, Resources,
    RunId, SlotIndex, TaskId, TenantId, Timestamp, UnitIndex,
};

use crate::{AdmissionError, UnitError};

/// Something that happened outside.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// Work arrives. Its [`TaskId`] has never been used before.
    Submit(Submission),
    /// Nobody wants a task any more. For a merged task, only when every submitter has said so.
    CancelTask(TaskId),
    /// Nobody wants anything of a run any more.
    CancelRun(TenantId, RunId),
    /// An agent told its whole state.
    AgentReported(AgentState),
    /// An agent's connection ended. What it holds stays its own until its leases expire.
    AgentDisconnected(AgentId),
    /// An operator wants an agent drained, or no longer.
    DrainAgent(AgentId, bool),
    /// Nothing new is to be leased as long as this is so, which is why; `None`: that is over. What is leased goes on.
    Hold(Option<String>),
    /// A lease was granted that its agent has not been told of and will not be: what it takes cannot be made now.
    ReturnLease(LeaseId),
    /// The time that [`Step::wake_at`] named has come.
    Tick,
}

/// An action, or a test job whose batches the scheduler cuts when a slot asks.
#[derive(Clone, PartialEq, Debug)]
pub struct Submission {
    /// Its name, chosen by the submitter.
    pub task: TaskId,
    /// Who pays: the first level of fair sharing.
    pub tenant: TenantId,
    /// On behalf of what: the second level of fair sharing.
    pub run: RunId,
    /// Lower runs sooner (REAPI `ExecutionPolicy.priority`): compared with the other work of its tenant,
    /// across runs as if it were at most 20 and at least -20. It gains nothing on other tenants.
    pub priority: i32,
    /// What the agent must offer.
    pub platform: Platform,
    /// What one slot's worth of it uses while it runs.
    pub resources: Resources,
    /// Prefer an agent that has this image.
    pub image: Option<ImageReference>,
    /// Prefer an agent that has this input root.
    pub tree: Option<Digest>,
    /// What may be leased apart. An action has one unit.
    pub units: Vec<ExpectedUnit>,
    /// What starting a batch costs besides its units: no batch is cut much shorter than it pays.
    pub batch_overhead: Duration,
    /// Tasks of one tenant with equal keys are one piece of work; `None` is never merged.
    pub merge_key: Option<Digest>,
    /// Where the same has just failed, if it is tried again: another agent is preferred, and then another slot of the
    /// same one. That one is waited for no longer than [`SchedulerConfig::retry_elsewhere`](crate::SchedulerConfig).
    pub failed_at: Option<FailedAt>,
}

/// A slot of an agent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FailedAt {
    /// Whose.
    pub agent: AgentId,
    /// Which of its slots.
    pub slot: SlotIndex,
}

/// A unit, as its submitter expects it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ExpectedUnit {
    /// How long it is expected to take.
    pub expected: Duration,
    /// Whether that is a guess, because neither it nor anything like it has been measured. So many units are never
    /// leased together that another slot has none of them, nor, where a batch costs little, that none is left for a slot
    /// that is early.
    pub guessed: bool,
    /// How long it takes at most if nothing is amiss. A batch that takes longer than its units do at most may be
    /// leased a second time while it runs. `None`: it is never run twice at once.
    pub late_after: Option<Duration>,
    /// Whether it goes before units that take longer, because its answer is wanted soon.
    pub first: bool,
    /// Whether it shares its batch with no other.
    pub alone: bool,
    /// What it is, for its tenant, whichever process submits it: an agent that was doing it for an earlier
    /// scheduler goes on. No two attempts at one thing may have the same unless either's answer will do for both.
    /// `None`: it is begun anew.
    pub key: Option<Digest>,
}

impl From<Duration> for ExpectedUnit {
    /// A unit that is never run twice at once.
    fn from(expected: Duration) -> Self {
        Self {
            expected,
            ..Self::default()
        }
    }
}

/// What an agent says of itself.
#[derive(Clone, PartialEq, Debug)]
pub struct AgentState {
    /// Which agent.
    pub agent: AgentId,
    /// Counts the reports of one connection.
    pub sequence: u64,
    /// The version of the last desired state that this report takes into account.
    pub observed_version: u64,
    /// What it has to give; `None` if unchanged since this connection's last report.
    pub offer: Option<Offer>,
    /// What it holds.
    pub leases: Vec<HeldLease>,
    /// Why it takes no new work, for people; `None` if it does.
    pub refusal: Option<String>,
}

/// What an agent has to give.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Offer {
    /// How many leases at once.
    pub slots: u32,
    /// How much of the machine, for all leases together.
    pub resources: Resources,
    /// What tasks may ask for.
    pub platform: Platform,
    /// Images that start without a pull.
    pub images: Vec<ImageReference>,
    /// Input roots that are laid out already.
    pub trees: Vec<Digest>,
}

/// A lease as an agent sees it.
#[derive(Clone, PartialEq, Debug)]
pub struct HeldLease {
    /// Which lease.
    pub lease: LeaseId,
    /// The token it was granted with.
    pub token: FencingToken,
    /// The slot that works on it or did; `None` while it waits for one.
    pub slot: Option<SlotIndex>,
    /// Units with a new outcome since the last report that was acknowledged.
    pub outcomes: Vec<UnitOutcome>,
    /// Nothing of it runs any more.
    pub finished: bool,
    /// What it is for, if the agent can prove that an earlier scheduler granted it. It need be told once on each
    /// connection.
    pub claim: Option<Claim>,
}

/// What a lease is for that was granted before this scheduler was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claim {
    /// Who pays.
    pub tenant: TenantId,
    /// What it occupies.
    pub resources: Resources,
    /// Its units as the agent knows them, in the order to run them, with their keys.
    pub units: Vec<(UnitIndex, Option<Digest>)>,
    /// Whether the units have one outcome in common, so that it answers all of them or none.
    pub together: bool,
    /// How many of its outcomes were taken.
    pub acknowledged: u32,
}

/// How one unit ended at an agent.
#[derive(Clone, PartialEq, Debug)]
pub struct UnitOutcome {
    /// Which unit, as its agent was told of it.
    pub unit: UnitIndex,
    /// Its place among the lease's outcomes, from 0.
    pub index: u32,
    /// The slot it ran in.
    pub slot: SlotIndex,
    /// What became of it.
    pub kind: OutcomeKind,
}

/// What became of a unit, as far as the scheduler cares.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OutcomeKind {
    /// It has an answer, good or bad: a result, a timeout, a rejection.
    Answered,
    /// The machine failed it.
    Infrastructure(String),
    /// The agent lacks what it takes and another may have it: an answer, unless another can be tried.
    Unsuitable(String),
    /// Something that it takes could not be reached from the agent: it is lost, and no machine is to blame.
    Unreachable(String),
    /// It was stopped because it was no longer desired.
    Cancelled,
}

/// What one event led to.
#[derive(Debug, Default, PartialEq)]
pub struct Step {
    /// What must be durable before any effect is carried out.
    pub commit: Vec<Record>,
    /// What to do, in order.
    pub effects: Vec<Effect>,
    /// When to come back with [`Event::Tick`] if nothing else happens.
    pub wake_at: Option<Timestamp>,
}

/// A fact that must outlive the process.
#[derive(Clone, PartialEq, Debug)]
pub enum Record {
    /// No token up to this one may be granted again. One record covers many grants.
    TokensReserved(FencingToken),
}

/// What the driver is to do.
#[derive(Clone, PartialEq, Debug)]
pub enum Effect {
    /// Tell an agent what it should hold.
    Desire(DesiredAgent),
    /// A lease was granted; the following `Desire` for its agent has it. Tell watchers.
    Granted(Grant),
    /// An outcome is valid and is the unit's only one: publish it. For merged tasks it comes once for
    /// each of them.
    UnitAnswered {
        /// The task as its submitter knows it.
        task: TaskId,
        /// Which unit.
        unit: UnitIndex,
        /// The lease that produced it.
        lease: LeaseId,
        /// Its place among the lease's outcomes.
        index: u32,
        /// Who produced it.
        agent: AgentId,
        /// Where.
        slot: SlotIndex,
        /// At which attempt.
        attempt: AttemptNumber,
    },
    /// An outcome came too late: its lease had expired or its unit was answered. Drop it.
    Fenced {
        /// The lease it came from.
        lease: LeaseId,
        /// The agent it came from.
        agent: AgentId,
    },
    /// A unit was lost with a machine and will be tried again.
    UnitRetried {
        /// Which task.
        task: TaskId,
        /// Which unit.
        unit: UnitIndex,
        /// Where it was lost.
        agent: AgentId,
        /// The attempt that was lost.
        attempt: AttemptNumber,
        /// What happened.
        reason: String,
    },
    /// A unit of a lease that was given back waits again, as if it had not been leased.
    UnitReturned {
        /// Which task.
        task: TaskId,
        /// Which unit.
        unit: UnitIndex,
    },
    /// A unit will never be answered.
    UnitFailed {
        /// Which task.
        task: TaskId,
        /// Which unit.
        unit: UnitIndex,
        /// Why.
        error: UnitError,
    },
    /// A task does the same as another that is queued or running; it gets that one's outcomes.
    Merged {
        /// The task that arrived.
        task: TaskId,
        /// The task that does the work.
        into: TaskId,
    },
    /// Every unit of a task is answered or failed; its id means nothing any more.
    TaskFinished(TaskId),
    /// A task was not accepted.
    Refused {
        /// The task that arrived.
        task: TaskId,
        /// Why.
        error: AdmissionError,
    },
    /// An agent was silent for too long; its leases have expired.
    AgentLost(AgentId),
}

/// A lease, as it is granted.
#[derive(Clone, PartialEq, Debug)]
pub struct Grant {
    /// Which lease.
    pub lease: LeaseId,
    /// Its fencing token.
    pub token: FencingToken,
    /// Who holds it.
    pub agent: AgentId,
    /// What it is for.
    pub task: TaskId,
    /// Which units, in the order to run them.
    pub units: Vec<(UnitIndex, AttemptNumber)>,
    /// How long the oldest of them waited; nothing if another lease has them, too.
    pub queued: Duration,
    /// The lease that has the same units and is late. What either answers first counts.
    pub duplicates: Option<LeaseId>,
    /// If an earlier scheduler granted it, what the agent calls each of `units`. It is running already.
    pub adopted: Option<Vec<UnitIndex>>,
    /// The slot in which it has failed before, for the agent to leave out if another is free.
    pub avoid_slot: Option<SlotIndex>,
}

/// The state an agent should reach.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DesiredAgent {
    /// Which agent.
    pub agent: AgentId,
    /// Grows with each.
    pub version: u64,
    /// The last report taken into account.
    pub observed_sequence: u64,
    /// What it should hold.
    pub leases: Vec<DesiredLease>,
    /// Whether it should take nothing new.
    pub drain: bool,
}

/// A lease that an agent should hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DesiredLease {
    /// Which lease.
    pub lease: LeaseId,
    /// Its fencing token.
    pub token: FencingToken,
    /// How many of its outcomes are taken.
    pub acknowledged_outcomes: u32,
    /// Whether the agent has reported it on this connection, so that it knows what to do.
    pub known_to_agent: bool,
}
