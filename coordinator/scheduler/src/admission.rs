//! Work arrives.

use std::time::Duration;

use regatta_model::TaskId;

use crate::affinity::Wish;
use crate::batch::{WaitingUnits, nanos};
use crate::fleet::ClassKey;
use crate::queue::{Lane, Place, Queued, RunKey};
use crate::scheduler::Scheduler;
use crate::task::{Submitter, Task, TaskKey};
use crate::{AdmissionError, Effect, Submission};

/// Windows shorter than this cannot be told apart.
const SHORTEST_WINDOW: Duration = Duration::from_nanos(1);

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
        let refusal = self
            .too_many(more)
            .or_else(|| self.too_many_of_tenant(&submission, more))
            .or_else(|| {
                self.too_many_requirements(&submission)
                    .filter(|_| twin.is_none())
            });
        if let Some(error) = refusal {
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
            None => {
                let key = self.admit(&submission, run);
                self.adopt_for(&submission);
                self.refuse_unknown_properties(key);
            }
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

    fn too_many_of_tenant(&self, submission: &Submission, more: usize) -> Option<AdmissionError> {
        let tenant = self.queue.tenant_key(&submission.tenant)?;
        let tenant = self.queue.tenant(tenant);
        let queued = tenant.queued_units.saturating_add(tenant.merged_submitters);
        let limit = self.config.tenant_queue_limit_units();
        let full = queued > 0 && queued.saturating_add(more) > limit;
        full.then_some(AdmissionError::TenantQueueFull {
            queued,
            limit,
            retry_after: self.config.queue_full_retry,
        })
    }

    /// Every assignment pays for each requirement that waits, so they are bounded, for all tenants
    /// together and for each.
    fn too_many_requirements(&self, submission: &Submission) -> Option<AdmissionError> {
        let limit = self.config.requirement_limit.max(1);
        let known = self
            .fleet
            .known_class(&submission.platform, submission.resources);
        let busy = known.filter(|class| self.fleet.classes[*class].tasks > 0);
        let too_many_classes = busy.is_none() && self.fleet.busy_classes() >= limit;
        let too_many_lanes = || {
            let tenant = self.queue.tenant_key(&submission.tenant)?;
            let is_open = known.is_some_and(|class| {
                let lane = Lane::new(class, submission.priority);
                self.queue.waits_in(tenant, lane)
            });
            Some(!is_open && self.queue.tenant(tenant).lanes() >= limit)
        };
        let full = too_many_classes || too_many_lanes() == Some(true);
        full.then_some(AdmissionError::TooManyRequirements {
            limit,
            retry_after: self.config.queue_full_retry,
        })
    }

    fn admit(&mut self, submission: &Submission, run: RunKey) -> TaskKey {
        let id = submission.task;
        let class = self
            .fleet
            .join_class(&submission.platform, submission.resources);
        let window = self.config.longest_first_window.max(SHORTEST_WINDOW);
        let window = self.now.as_nanos() / nanos(window);
        self.arrivals += 1;
        let units = Task::units_of(&submission.units);
        let count = units.len();
        let avoid = self.avoid_failed(submission, class);
        let key = self.tasks.insert(Task {
            submitters: vec![Submitter { task: id, run }],
            run,
            class,
            merge_key: submission.merge_key,
            wish: Wish::new(submission.image.as_ref(), submission.tree.as_ref()),
            priority: submission.priority,
            arrival: self.arrivals,
            window,
            overhead: submission.batch_overhead,
            units,
            waiting: WaitingUnits::new(&submission.units),
            waiting_since: self.now,
            open_units: count,
            place: None,
            leases: Vec::new(),
            expected_ends_nanos: 0,
            avoid,
            lost_waiting: 0,
            passed_over: 0,
            ended: Vec::new(),
        });
        self.submitted.insert(id, (key, run));
        self.offer_for_merging(key);
        self.begin_waiting(key, count);
        self.file(key);
        key
    }

    /// Counts units of a task that wait from now on.
    pub(crate) fn begin_waiting(&mut self, key: TaskKey, units: usize) {
        self.queued_units += units;
        let run = self.queue.run_mut(self.tasks[key].run);
        run.queued_units += units;
        let tenant = run.tenant;
        self.queue.tenant_mut(tenant).queued_units += units;
    }

    /// Counts units of a task that wait no longer.
    pub(crate) fn end_waiting(&mut self, key: TaskKey, units: usize) {
        self.queued_units -= units;
        let run = self.queue.run_mut(self.tasks[key].run);
        run.queued_units -= units;
        let tenant = run.tenant;
        self.queue.tenant_mut(tenant).queued_units -= units;
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
            self.unfile(class, run, place);
        }
        if let Some(place) = new {
            self.fleet.classes[class].waiting += 1;
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
        let queued = self.fleet.classes[class].waiting > 0;
        if queued != self.fleet.classes[class].queued {
            self.fleet.set_queued(class, queued);
            self.fleet.mark_changed(class);
            if !queued {
                self.end_reservations(class);
            }
        }
    }

    /// Takes a task out of the queue.
    pub(crate) fn unfile(&mut self, class: ClassKey, run: RunKey, place: Place) {
        self.queue.remove(class, run, place);
        self.fleet.classes[class].waiting -= 1;
    }
}
