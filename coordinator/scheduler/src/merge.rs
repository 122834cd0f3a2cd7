//! Equal work is done once.

use regatta_model::{TaskId, UnitIndex};

use crate::queue::RunKey;
use crate::scheduler::Scheduler;
use crate::task::{Ended, Submitter, TaskKey};
use crate::{Effect, Submission};

impl Scheduler {
    /// Whether a submission would be merged with earlier work, if it came now.
    #[must_use]
    pub fn would_merge(&self, submission: &Submission) -> bool {
        self.mergeable(submission).is_some()
    }

    /// The task that does the same as a submission asks for, if there is one.
    pub(crate) fn mergeable(&self, submission: &Submission) -> Option<TaskKey> {
        let tenant = self.queue.tenant_key(&submission.tenant)?;
        let key = *self.merging.get(&(tenant, submission.merge_key?))?;
        let task = self.tasks.get(key)?;
        let class = &self.fleet.classes[task.class];
        let same = task.units.len() == submission.units.len()
            && class.resources == submission.resources
            && *self.fleet.platform_of(class) == submission.platform;
        same.then_some(key)
    }

    /// Lets later submissions find a task.
    pub(crate) fn offer_for_merging(&mut self, key: TaskKey) {
        let task = &self.tasks[key];
        if let Some(merge_key) = task.merge_key {
            let tenant = self.queue.run(task.run).tenant;
            if !self.merging.contains(&(tenant, merge_key)) {
                self.merging.insert((tenant, merge_key), key);
            }
        }
    }

    /// Ends what [`Self::offer_for_merging`] began.
    pub(crate) fn withdraw_from_merging(&mut self, key: TaskKey) {
        let task = &self.tasks[key];
        let Some(merge_key) = task.merge_key else {
            return;
        };
        let entry = (self.queue.run(task.run).tenant, merge_key);
        if self.merging.get(&entry) == Some(&key) {
            self.merging.remove(&entry);
        }
    }

    /// Adds a submitter to a task; the more urgent of their priorities counts.
    pub(crate) fn merge(&mut self, key: TaskKey, submitter: Submitter, priority: i32) {
        self.submitted.insert(submitter.task, (key, submitter.run));
        self.count_merged(submitter.run, 1);
        let task = &mut self.tasks[key];
        let into = task
            .submitters
            .first()
            .map_or(submitter.task, |first| first.task);
        task.submitters.push(submitter);
        if priority < task.priority {
            task.priority = priority;
            self.file(key);
        }
        let task = submitter.task;
        self.effect(Effect::Merged { task, into });
        for (unit, ended) in self.tasks[key].ended.clone() {
            self.effect(ended_effect(task, unit, &ended));
        }
    }

    fn count_merged(&mut self, run: RunKey, more: usize) {
        self.merged_submitters += more;
        let tenant = self.queue.run(run).tenant;
        self.queue.tenant_mut(tenant).merged_submitters += more;
    }

    /// Counts submitters of the tenant of a run that wait no longer for what another one submitted.
    pub(crate) fn uncount_merged(&mut self, run: RunKey, fewer: usize) {
        self.merged_submitters -= fewer;
        let tenant = self.queue.run(run).tenant;
        self.queue.tenant_mut(tenant).merged_submitters -= fewer;
    }

    /// Tells every submitter how a unit ended, those who will come later too.
    pub(crate) fn announce(&mut self, key: TaskKey, unit: UnitIndex, ended: Ended) {
        for position in 0..self.tasks[key].submitters.len() {
            let task = self.tasks[key].submitters[position].task;
            self.effect(ended_effect(task, unit, &ended));
        }
        let task = &mut self.tasks[key];
        if task.merge_key.is_some() && task.open_units > 0 {
            task.ended.push((unit, ended));
        }
    }
}

fn ended_effect(task: TaskId, unit: UnitIndex, ended: &Ended) -> Effect {
    match ended {
        Ended::Answered(answer) => Effect::UnitAnswered {
            task,
            unit,
            lease: answer.lease,
            index: answer.index,
            agent: answer.agent.clone(),
            slot: answer.slot,
            attempt: answer.attempt,
        },
        Ended::Failed(error) => Effect::UnitFailed {
            task,
            unit,
            error: error.clone(),
        },
    }
}
