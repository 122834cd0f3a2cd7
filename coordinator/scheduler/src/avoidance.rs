//! Where tasks should rather not go.
//!
//! What a machine has lost goes to another one. What has failed goes to another one, too, if it is tried again, or
//! else to another slot of the same: a pass in the very place where it failed says less. Neither waits for that longer
//! than [`SchedulerConfig::retry_elsewhere`](crate::SchedulerConfig), nor at all where there is no other place.
//!
//! A scheduler that goes on for an earlier one is told of failures on agents that it has not heard of. For as long as
//! agents may go on with what they began before, these are expected to come back, and count as known.
//!
//! An agent loses little before it gets a pause, but everything may fail on it. Tasks that have failed in one slot
//! therefore wait side by side ([`Try`]), and are passed over together.

use std::num::NonZeroU32;

use regatta_model::{AgentId, SlotIndex, Timestamp};

use crate::Submission;
use crate::fleet::{AgentKey, ClassKey, Fleet};
use crate::scheduler::Scheduler;
use crate::task::Task;
use crate::timers::Timer;

/// An agent that a task should not go to, for a while.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avoided {
    pub(crate) agent: AgentKey,
    pub(crate) until: Timestamp,
    pub(crate) cause: Cause,
}

/// Why it should not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The agent has lost some of the task's units.
    Lost,
    /// The task has failed in this slot of it.
    Failed { slot: SlotIndex, group: Group },
}

/// Tasks that avoid the same slot until the same time.
pub(crate) type Group = NonZeroU32;

/// Whether a task has failed before: those that have go before the others of their window, for they are late, and
/// those of one group one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Try {
    Again(Group),
    First,
}

impl Avoided {
    pub(crate) const fn group(&self) -> Option<Group> {
        match self.cause {
            Cause::Lost => None,
            Cause::Failed { group, .. } => Some(group),
        }
    }
}

impl Fleet {
    /// What a task avoids now: nothing if there is no other place for it.
    pub(crate) fn avoided_by(&self, task: &Task, now: Timestamp) -> Option<Avoided> {
        let avoided = task.avoid.filter(|avoided| avoided.until > now)?;
        let class = &self.classes[task.class];
        let is_worth_it = match avoided.cause {
            Cause::Lost => task.lost_waiting >= task.waiting.len() && class.willing > 1,
            Cause::Failed { .. } => class.slots > 1,
        };
        is_worth_it.then_some(avoided)
    }

    /// Whether a task must wait for another place than this agent.
    pub(crate) fn must_avoid(&self, task: &Task, agent: AgentKey, now: Timestamp) -> bool {
        let avoided = self.avoided_by(task, now);
        avoided.is_some_and(|avoided| {
            avoided.agent == agent
                && match avoided.cause {
                    Cause::Lost => true,
                    Cause::Failed { slot, .. } => !self.agents[agent].has_free_besides(slot),
                }
        })
    }
}

impl Scheduler {
    /// What a task of a class avoids because of what has failed before; nothing if that agent is not known any more.
    pub(crate) fn avoid_failed(
        &mut self,
        submission: &Submission,
        class: ClassKey,
    ) -> Option<Avoided> {
        let failed_at = submission.failed_at.as_ref()?;
        let agent = self.known_or_expected(&failed_at.agent)?;
        let until = self.avoid_until(class);
        let next = &mut self.last_group;
        let groups = &mut self.fleet.classes[class].groups;
        let group = *groups.entry((agent, failed_at.slot)).or_insert_with(|| {
            *next = next.checked_add(1).unwrap_or(Group::MIN);
            *next
        });
        let slot = failed_at.slot;
        Some(Avoided {
            agent,
            until,
            cause: Cause::Failed { slot, group },
        })
    }

    /// The key of an agent that is known, or that an earlier scheduler may have known.
    fn known_or_expected(&mut self, id: &AgentId) -> Option<AgentKey> {
        let known = self.fleet.agent_key(id);
        if known.is_some() || !self.adoptions.is_open() {
            return known;
        }
        let key = self.fleet.enter(id);
        self.remember_lost(key);
        Some(key)
    }

    /// Until when tasks of a class that are to be tried again wait for another place. One deadline serves all of them,
    /// so that they never cost a timer each.
    pub(crate) fn avoid_until(&mut self, class_key: ClassKey) -> Timestamp {
        let ends_at = self.after(self.config.retry_elsewhere);
        let class = &mut self.fleet.classes[class_key];
        let until = class.retry_anywhere_at.unwrap_or(ends_at);
        let timer = Timer::RetryAnywhere(class_key);
        self.timers
            .set(timer, &mut class.retry_anywhere_at, Some(until));
        until
    }

    /// Lets tasks go back to where they were lost or have failed, if no other place was found for them.
    pub(crate) fn retry_anywhere(&mut self, class_key: ClassKey) {
        let class = &mut self.fleet.classes[class_key];
        class.groups.clear();
        let timer = Timer::RetryAnywhere(class_key);
        self.timers.set(timer, &mut class.retry_anywhere_at, None);
        self.classes_to_place.insert(class_key);
    }
}
