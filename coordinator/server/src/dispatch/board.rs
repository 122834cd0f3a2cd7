//! Everything behind the dispatcher's lock.

mod forecast;
mod observed;
mod output;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use regatta_model::{
    AgentId, FencingToken, LeaseId, PlantedBug, Platform, Resources, TaskId, Timestamp, UnitIndex,
};
use regatta_scheduler::{
    AdmissionError, Effect, Event, Grant, Record, Scheduler, Step, Submission, UnitError,
};
use regatta_wire::v1;

use super::agents::{Agents, CloseReason};
use super::claim::Claims;
use super::lease_book::LeaseBook;
use super::leases::{Lease, Recipe};
use super::mailbox::Mailbox;
use super::{IMAGE_RUNTIME, RUNTIME_PROPERTY, TaskEvent, Work};

/// The outcomes that came with a report, each under its lease and its index there.
pub(super) type Payloads = HashMap<(LeaseId, u32), v1::ExecutionOutcome>;

/// The scheduler, and what is known of its tasks, leases and agents beyond what it cares about.
#[derive(Debug)]
pub(super) struct Board {
    scheduler: Scheduler,
    tasks: HashMap<TaskId, Task>,
    groups: HashMap<TaskId, Group>,
    pub(super) leases: LeaseBook,
    /// What agents say of leases that are not in the book.
    pub(super) claims: Claims,
    pub(super) agents: Agents,
    next_task: u64,
    /// Steps whose effects wait for a record to become durable, in order. Bounded by what the
    /// scheduler admits and by the reports of connected agents.
    waiting: VecDeque<(Step, Payloads)>,
}

/// A task that has not finished, as its submitter knows it.
#[derive(Debug)]
struct Task {
    mailbox: Arc<Mailbox>,
    /// The task that does the work: itself, or the one it was merged into.
    group: TaskId,
    /// What to tell instead of "cancelled", when that is how the dispatcher ends a task.
    failure: Option<UnitError>,
}

/// Tasks that are one piece of work, under the one that came first.
#[derive(Debug)]
struct Group {
    work: Arc<Work>,
    members: BTreeSet<TaskId>,
}

/// What a step leaves to its caller.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) refused: Option<AdmissionError>,
    pub(super) wake_at: Option<Timestamp>,
    /// Whether effects wait for [`Board::next_commit`].
    pub(super) must_commit: bool,
}

impl Board {
    pub(super) fn new(scheduler: Scheduler) -> Self {
        Self {
            scheduler,
            tasks: HashMap::new(),
            groups: HashMap::new(),
            leases: LeaseBook::default(),
            claims: Claims::default(),
            agents: Agents::default(),
            next_task: 0,
            waiting: VecDeque::new(),
        }
    }

    /// Lets the scheduler decide, and carries out what may be carried out already.
    pub(super) fn take(&mut self, now: Timestamp, event: Event, payloads: Payloads) -> Taken {
        let step = self.scheduler.step(now, event);
        let refused = step.effects.iter().find_map(|effect| match effect {
            Effect::Refused { error, .. } => Some(error.clone()),
            Effect::Desire(_)
            | Effect::Granted(_)
            | Effect::UnitAnswered { .. }
            | Effect::Fenced { .. }
            | Effect::UnitRetried { .. }
            | Effect::UnitReturned { .. }
            | Effect::UnitFailed { .. }
            | Effect::Merged { .. }
            | Effect::TaskFinished(_)
            | Effect::AgentLost(_) => None,
        });
        let wake_at = step.wake_at;
        let must_commit = !step.commit.is_empty() || !self.waiting.is_empty();
        if must_commit && !PlantedBug::CommitSkipped.is_planted() {
            self.waiting.push_back((step, payloads));
        } else {
            self.perform(now, step.effects, &payloads);
        }
        Taken {
            refused,
            wake_at,
            must_commit,
        }
    }

    /// Adds a task and asks the scheduler to take it.
    pub(super) fn submit(&mut self, now: Timestamp, work: Work) -> (TaskId, Arc<Mailbox>, Taken) {
        self.next_task += 1;
        let task = TaskId(self.next_task);
        let submission = submission(task, &work);
        let mailbox = Arc::new(Mailbox::default());
        let entry = Task {
            mailbox: Arc::clone(&mailbox),
            group: task,
            failure: None,
        };
        self.tasks.insert(task, entry);
        let group = Group {
            work: Arc::new(work),
            members: BTreeSet::from([task]),
        };
        self.groups.insert(task, group);
        let taken = self.take(now, Event::Submit(submission), Payloads::new());
        (task, mailbox, taken)
    }

    /// Whether work that is submitted now would be merged with earlier work.
    pub(super) fn would_merge(&self, work: &Work) -> bool {
        self.scheduler
            .would_merge(&submission(TaskId(self.next_task + 1), work))
    }

    /// The last token that the next waiting steps need durable; `None` if none waits.
    pub(super) fn next_commit(&self) -> Option<FencingToken> {
        let (step, _) = self.waiting.front()?;
        let tokens = step
            .commit
            .iter()
            .map(|Record::TokensReserved(token)| *token);
        Some(tokens.max().unwrap_or(FencingToken(0)))
    }

    /// Carries out the first waiting step, now durable, and those after it that need nothing.
    pub(super) fn committed(&mut self, now: Timestamp) {
        let mut first = true;
        while let Some((step, payloads)) = self
            .waiting
            .pop_front_if(|(step, _)| first || step.commit.is_empty())
        {
            first = false;
            self.perform(now, step.effects, &payloads);
        }
    }

    /// Makes `failure` the reason that the submitters of a lease's work hear, and names their tasks.
    pub(super) fn doom(&mut self, lease: LeaseId, failure: &UnitError) -> Vec<TaskId> {
        // Without a duplicate there is still the lease that it duplicates.
        let lease = self.leases.get(lease).filter(|it| !it.is_duplicate);
        let Some(group) = lease.and_then(|lease| self.groups.get(&lease.task)) else {
            return Vec::new();
        };
        let members: Vec<TaskId> = group.members.iter().copied().collect();
        for member in &members {
            if let Some(task) = self.tasks.get_mut(member) {
                task.failure = Some(failure.clone());
            }
        }
        members
    }

    /// What waits and who works.
    pub(super) fn snapshot(&self) -> regatta_scheduler::Snapshot {
        self.scheduler.snapshot()
    }

    fn perform(&mut self, now: Timestamp, effects: Vec<Effect>, payloads: &Payloads) {
        for effect in effects {
            self.perform_one(now, effect, payloads);
        }
    }

    fn perform_one(&mut self, now: Timestamp, effect: Effect, payloads: &Payloads) {
        match effect {
            Effect::Desire(desired) => {
                let held: BTreeSet<LeaseId> = desired.leases.iter().map(|it| it.lease).collect();
                self.leases.retain(&desired.agent, &held);
                self.claims.retain(&desired.agent, &held);
                self.agents.desire(desired);
            }
            Effect::Granted(grant) => self.granted(now, grant),
            Effect::UnitAnswered {
                task,
                unit,
                lease,
                index,
                agent,
                slot,
                attempt,
            } => {
                if let Some(outcome) = payloads.get(&(lease, index)).cloned() {
                    self.measure(now, lease, &outcome);
                    let event = TaskEvent::Answered {
                        unit,
                        outcome,
                        lease,
                        agent,
                        slot,
                        attempt,
                    };
                    self.tell(task, event);
                } else {
                    tracing::error!(
                        task = task.0,
                        lease = lease.0,
                        "an answer without an outcome"
                    );
                }
            }
            Effect::Fenced { lease, agent } => {
                metrics::counter!("regatta_outcomes_fenced_total").increment(1);
                tracing::warn!(lease = lease.0, %agent, "an outcome came too late and was dropped");
            }
            Effect::UnitRetried {
                task,
                unit,
                agent,
                attempt,
                reason,
            } => self.retried((task, unit), agent, attempt, reason),
            Effect::UnitReturned { task, unit } => self.tell(task, TaskEvent::Returned { unit }),
            Effect::UnitFailed { task, unit, error } => self.failed(task, unit, error),
            Effect::Merged { task, into } => self.merged(task, into),
            Effect::TaskFinished(task) => self.finished(task),
            Effect::Refused { task, .. } => self.remove(task),
            Effect::AgentLost(agent) => self.lost(&agent),
        }
    }

    fn granted(&mut self, now: Timestamp, grant: Grant) {
        // The scheduler names the oldest task that is still wanted; the group keeps its first name.
        let group = self
            .tasks
            .get(&grant.task)
            .map_or(grant.task, |task| task.group);
        let Some(work) = self.groups.get(&group).map(|group| Arc::clone(&group.work)) else {
            tracing::error!(
                task = grant.task.0,
                lease = grant.lease.0,
                "a lease for no task"
            );
            return;
        };
        observed::count_grant(&grant, &work);
        tracing::debug!(
            run = %work.run, task = grant.task.0, lease = grant.lease.0, agent = %grant.agent,
            units = grant.units.len(), "leased"
        );
        let units: Vec<UnitIndex> = grant.units.iter().map(|(unit, _)| *unit).collect();
        let attempt = grant.units.first().map(|(_, attempt)| *attempt);
        let lease = Lease {
            token: grant.token,
            agent: grant.agent.clone(),
            task: group,
            recipe: match grant.adopted {
                Some(_) => Recipe::Known {
                    one_execution: self.claims.take(&grant.agent, grant.lease),
                },
                None => Lease::recipe(&work, grant.lease, &units),
            },
            work,
            units: units.clone(),
            called: grant.adopted,
            avoid_slot: grant.avoid_slot,
            is_duplicate: grant.duplicates.is_some(),
            granted_at: now,
            answered: false,
            phase: v1::LeasePhase::Staging,
        };
        self.leases.insert(grant.lease, lease);
        self.tell_group(group, || TaskEvent::Granted {
            lease: grant.lease,
            agent: grant.agent.clone(),
            units: units.clone(),
            attempt: attempt.unwrap_or(regatta_model::AttemptNumber(1)),
            queued: grant.queued,
            duplicates: grant.duplicates,
        });
    }

    fn failed(&self, task: TaskId, unit: UnitIndex, error: UnitError) {
        if !self.is_ahead(task) {
            metrics::counter!("regatta_units_failed_total").increment(1);
        }
        let told = self.tasks.get(&task).and_then(|task| task.failure.clone());
        let error = match (error, told) {
            (UnitError::Cancelled, Some(failure)) => failure,
            (error, _) => error,
        };
        self.tell(task, TaskEvent::Failed { unit, error });
    }

    fn merged(&mut self, task: TaskId, into: TaskId) {
        self.groups.remove(&task);
        let group = self.tasks.get(&into).map_or(into, |into| into.group);
        if let Some(entry) = self.tasks.get_mut(&task) {
            entry.group = group;
        }
        if let Some(group) = self.groups.get_mut(&group) {
            group.members.insert(task);
        }
    }

    fn finished(&mut self, task: TaskId) {
        self.tell(task, TaskEvent::Finished);
        self.remove(task);
    }

    fn remove(&mut self, task: TaskId) {
        let Some(entry) = self.tasks.remove(&task) else {
            return;
        };
        let Some(group) = self.groups.get_mut(&entry.group) else {
            return;
        };
        group.members.remove(&task);
        if group.members.is_empty() {
            self.groups.remove(&entry.group);
        }
    }

    fn lost(&mut self, agent: &AgentId) {
        metrics::counter!("regatta_agents_lost_total").increment(1);
        tracing::warn!(%agent, "an agent was silent for too long; its leases have expired");
        self.leases.retain(agent, &BTreeSet::new());
        self.claims.retain(agent, &BTreeSet::new());
        self.agents.close(agent, CloseReason::Silent);
    }

    fn tell(&self, task: TaskId, event: TaskEvent) {
        if let Some(task) = self.tasks.get(&task) {
            task.mailbox.push(event);
        }
    }

    fn tell_group(&self, group: TaskId, event: impl Fn() -> TaskEvent) {
        for member in self
            .groups
            .get(&group)
            .iter()
            .flat_map(|group| &group.members)
        {
            self.tell(*member, event());
        }
    }
}

/// What an agent must offer. One without a container runtime would refuse an image only once it has the
/// lease.
fn platform_of(work: &Work) -> Platform {
    let mut platform = work.platform.clone();
    if !work.spec.image.is_empty() {
        platform.insert(RUNTIME_PROPERTY, IMAGE_RUNTIME);
    }
    platform
}

fn submission(task: TaskId, work: &Work) -> Submission {
    let spec = &work.spec;
    Submission {
        task,
        tenant: work.tenant.clone(),
        run: work.run.clone(),
        priority: work.priority,
        platform: platform_of(work),
        resources: Resources {
            cpu_milli: spec.cpu_milli,
            memory_bytes: spec.memory_bytes,
        },
        image: spec.image.parse().ok(),
        tree: spec
            .input_root
            .as_ref()
            .and_then(|digest| digest.try_into().ok()),
        units: work.units.iter().map(|unit| unit.expected).collect(),
        batch_overhead: work.batch_overhead,
        // Whoever joined late would hear of outcomes whose messages are gone.
        merge_key: work.merge_key.filter(|_| work.units.len() == 1),
        failed_at: work.failed_at.clone(),
    }
}
