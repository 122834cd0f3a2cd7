//! Work arrives.

use regatta_model::TaskId;

use crate::affinity::Wish;
use crate::batch::WaitingUnits;
use crate::queue::{Queued, RunKey};
use crate::scheduler::Scheduler;
use crate::task::{Submitter, Task, TaskKey};
use crate::{AdmissionError, Effect, Submission};

impl Scheduler {
    pub(crate) fn submit(&mut self, submission: Submission) {
        let task = submission.task;
        if self.submitted.contains(&task) {
            return;
        }
        if submission.units.is_empty() {
            self.refuse(task, AdmissionError::Empty);
            return;
        }
        let twin = self.mergeable(&submission);
        let more = if twin.is_some() {
            1
        } else {
            submission.units.len()
        };
        if let Some(error) = self.too_many(more) {
            self.refuse(task, error);
            return;
        }
        let weights = &self.config.tenant_weights;
        let weight = weights
            .get(&submission.tenant)
            .map_or(1, |weight| weight.get());
        let run = self
            .queue
            .enter(&submission.tenant, weight, &submission.run);
        self.queue.run_mut(run).tasks.insert(task);
        match twin {
            Some(twin) => self.merge(twin, Submitter { task, run }, submission.priority),
            None => self.admit(submission, run),
        }
    }

    fn refuse(&mut self, task: TaskId, error: AdmissionError) {
        self.effect(Effect::Refused { task, error });
    }

    fn too_many(&self, more: usize) -> Option<AdmissionError> {
        let queued = self.queued_units.saturating_add(self.merged_submitters);
        let limit = self.config.queue_limit_units;
        let full = queued > 0 && queued.saturating_add(more) > limit;
        full.then_some(AdmissionError::QueueFull {
            queued,
            limit,
            retry_after: self.config.queue_full_retry,
        })
    }

    fn admit(&mut self, submission: Submission, run: RunKey) {
        let id = submission.task;
        let class = self
            .fleet
            .join_class(submission.platform, submission.resources);
        self.arrivals += 1;
        let units = Task::units_of(&submission.units);
        let count = units.len();
        let key = self.tasks.insert(Task {
            submitters: vec![Submitter { task: id, run }],
            run,
            class,
            merge_key: submission.merge_key,
            wish: Wish::new(submission.image.as_ref(), submission.tree.as_ref()),
            priority: submission.priority,
            arrival: self.arrivals,
            overhead: submission.batch_overhead,
            units,
            waiting: WaitingUnits::new(&submission.units),
            waiting_since: self.now,
            open_units: count,
            place: None,
            leases: Vec::new(),
            avoid: None,
            avoid_until: self.now,
            lost_waiting: 0,
            passed_over: 0,
            ended: Vec::new(),
        });
        self.submitted.insert(id, (key, run));
        self.offer_for_merging(key);
        self.begin_waiting(key, count);
        self.file(key);
    }

    /// Counts units of a task that wait from now on.
    pub(crate) fn begin_waiting(&mut self, key: TaskKey, units: usize) {
        self.queued_units += units;
        let run = self.tasks[key].run;
        self.queue.run_mut(run).queued_units += units;
    }

    /// Counts units of a task that wait no longer.
    pub(crate) fn end_waiting(&mut self, key: TaskKey, units: usize) {
        self.queued_units -= units;
        let run = self.tasks[key].run;
        self.queue.run_mut(run).queued_units -= units;
    }

    /// Brings a task to where it belongs in the queue, after its waiting units have changed.
    pub(crate) fn file(&mut self, key: TaskKey) {
        let task = &mut self.tasks[key];
        let new = (!task.waiting.is_empty()).then(|| task.rank());
        let old = std::mem::replace(&mut task.place, new);
        if old == new {
            return;
        }
        let (class, run) = (task.class, task.run);
        if let Some(place) = old {
            self.queue.remove(class, run, place);
        }
        if let Some(place) = new {
            let wish = self.tasks[key].wish;
            self.queue
                .insert(Queued { task: key, wish }, class, run, place);
        }
        if old.is_none() {
            self.tasks[key].passed_over = 0;
            self.await_satisfaction(key);
            // What waits ahead may do so only to avoid an agent that this task need not avoid.
            if self.fleet.classes[class].retry_anywhere_at.is_some() {
                self.classes_to_place.insert(class);
            }
        }
        let queued = self.queue.has(class);
        if queued != self.fleet.classes[class].queued {
            self.fleet.set_queued(class, queued);
            self.fleet.mark_changed(class);
        }
    }
}
