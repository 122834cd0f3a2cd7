//! Units are answered, lost or given up, and tasks finish.

use regatta_model::{LeaseId, PlantedBug, UnitIndex};

use crate::avoidance::{Avoided, Cause};
use crate::fleet::{AgentKey, ClassKey};
use crate::scheduler::Scheduler;
use crate::task::{Answer, Ended, TaskKey};
use crate::timers::Timer;
use crate::{Effect, UnitError};

impl Scheduler {
    /// Takes a unit's only answer.
    pub(crate) fn answer_unit(&mut self, key: TaskKey, unit: UnitIndex, answer: Answer) {
        if self.tasks[key].close(unit) {
            self.announce(key, unit, Ended::Answered(answer));
        }
    }

    /// Gives a unit up.
    pub(crate) fn fail_unit(&mut self, key: TaskKey, unit: UnitIndex, error: UnitError) {
        if self.tasks[key].close(unit) {
            self.announce(key, unit, Ended::Failed(error));
        }
    }

    /// Puts a unit that a machine has lost back into the queue, unless it has been lost too often. The
    /// caller ends with [`Self::conclude`].
    pub(crate) fn lose_unit(
        &mut self,
        key: TaskKey,
        unit: UnitIndex,
        agent: AgentKey,
        reason: &str,
    ) {
        let task = &self.tasks[key];
        let Some(attempts) = task.unit(unit).map(|unit| unit.attempts) else {
            return;
        };
        if attempts >= self.config.max_attempts {
            let last_reason = reason.to_owned();
            let error = UnitError::AttemptsExhausted {
                attempts,
                last_reason,
            };
            self.fail_unit(key, unit, error);
            return;
        }
        if PlantedBug::LostUnitForgotten.is_planted() {
            return;
        }
        let until = self.avoid_until(self.tasks[key].class);
        self.tasks[key].avoid = Some(Avoided {
            agent,
            until,
            cause: Cause::Lost,
        });
        self.requeue_unit(key, unit);
        let agent = self.fleet.agents[agent].id.clone();
        for position in 0..self.tasks[key].submitters.len() {
            let task = self.tasks[key].submitters[position].task;
            self.effect(Effect::UnitRetried {
                task,
                unit,
                agent: agent.clone(),
                attempt: regatta_model::AttemptNumber(attempts),
                reason: reason.to_owned(),
            });
        }
    }

    /// Puts a unit back into the queue that nothing was begun of. The caller ends with [`Self::conclude`].
    pub(crate) fn return_unit(&mut self, key: TaskKey, unit: UnitIndex) {
        self.tasks[key].take_back_attempt(unit);
        self.requeue_unit(key, unit);
        for position in 0..self.tasks[key].submitters.len() {
            let task = self.tasks[key].submitters[position].task;
            self.effect(Effect::UnitReturned { task, unit });
        }
    }

    fn requeue_unit(&mut self, key: TaskKey, unit: UnitIndex) {
        let task = &mut self.tasks[key];
        if task.waiting.is_empty() {
            task.waiting_since = self.now;
        }
        task.requeue(unit);
        let class = task.class;
        self.begin_waiting(key, 1);
        self.classes_to_place.insert(class);
    }

    /// Files a task anew after its units have changed, or finishes it.
    pub(crate) fn conclude(&mut self, key: TaskKey) {
        self.file(key);
        let task = &self.tasks[key];
        if task.open_units > 0 {
            return;
        }
        for submitter in task.submitters.clone() {
            self.effect(Effect::TaskFinished(submitter.task));
            self.submitted.remove(&submitter.task);
            self.queue
                .run_mut(submitter.run)
                .tasks
                .remove(&submitter.task);
        }
        self.remove(key);
    }

    /// Forgets a task that nobody waits for and that waits for nothing.
    pub(crate) fn remove(&mut self, key: TaskKey) {
        self.withdraw_from_merging(key);
        for lease in std::mem::take(&mut self.tasks[key].leases) {
            self.orphan(lease);
        }
        let Some(task) = self.tasks.remove(key) else {
            return;
        };
        self.uncount_merged(task.run, task.submitters.len().saturating_sub(1));
        for submitter in &task.submitters {
            self.queue.leave(submitter.run);
        }
        self.queue.leave(task.run);
        if self.fleet.leave_class(task.class) {
            self.calm(task.class);
        }
    }

    /// Takes away what a class without tasks has set up.
    fn calm(&mut self, key: ClassKey) {
        self.end_reservations(key);
        let class = &mut self.fleet.classes[key];
        class.unsatisfiable.clear();
        class.grace = None;
        class.groups.clear();
        let (give_up, retry) = (Timer::Unsatisfiable(key), Timer::RetryAnywhere(key));
        self.timers.set(give_up, &mut class.give_up_at, None);
        self.timers.set(retry, &mut class.retry_anywhere_at, None);
    }

    /// Ends a lease's claim to its task: from now on it is not desired.
    pub(crate) fn orphan(&mut self, id: LeaseId) {
        self.expect_no_more(id);
        let Some(lease) = self.leases.get_mut(&id) else {
            return;
        };
        lease.task = None;
        lease.released_at = Some(self.now);
        let agent = lease.agent;
        let pending = std::mem::take(&mut lease.pending);
        self.unlease(id, pending.into_iter().map(|(unit, _)| unit).collect());
        self.agents_to_tell.insert(agent);
    }
}
