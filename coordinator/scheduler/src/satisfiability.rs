//! Work that no agent can run waits for one that can, but not for ever.

use regatta_model::Timestamp;

use crate::class::{Grace, Unsatisfiable};
use crate::fleet::ClassKey;
use crate::scheduler::Scheduler;
use crate::task::TaskKey;
use crate::timers::Timer;
use crate::{SchedulerConfig, UnitError};

impl Scheduler {
    /// Looks at every class whose agents have changed.
    pub(crate) fn review_satisfiability(&mut self) {
        let has_live = self.fleet.has_live_agents();
        if has_live != self.had_live_agents {
            self.had_live_agents = has_live;
            let all: Vec<_> = self.fleet.classes.iter().map(|(key, _)| key).collect();
            for class in all {
                self.fleet.mark_changed(class);
            }
        }
        for class in self.fleet.take_changed_classes() {
            self.review_class(class);
            self.classes_to_place.insert(class);
        }
    }

    fn review_class(&mut self, key: ClassKey) {
        let class = &mut self.fleet.classes[key];
        if !class.queued || class.willing > 0 {
            class.unsatisfiable.clear();
            class.grace = None;
            let timer = Timer::Unsatisfiable(key);
            self.timers.set(timer, &mut class.give_up_at, None);
            return;
        }
        let grace = if class.live > 0 || !self.had_live_agents {
            Grace::NoAgent
        } else {
            Grace::Mismatch
        };
        if class.grace.is_none_or(|(_, old)| old != grace) {
            class.grace = Some((self.now, grace));
        }
        if class.unsatisfiable.is_empty() {
            let (tasks, since) = (&self.tasks, self.now);
            let waiting = self.queue.due(key).map(|(_, queued)| Unsatisfiable {
                task: queued.task,
                arrival: tasks[queued.task].arrival,
                since,
            });
            class.unsatisfiable = waiting.collect();
        }
        self.arm(key);
    }

    /// Notes that a task has begun to wait, if it is for an agent to appear.
    pub(crate) fn await_satisfaction(&mut self, key: TaskKey) {
        let task = &self.tasks[key];
        let class = &mut self.fleet.classes[task.class];
        if class.willing > 0 {
            return;
        }
        if !class.unsatisfiable.is_empty() {
            class.unsatisfiable.push_back(Unsatisfiable {
                task: key,
                arrival: task.arrival,
                since: self.now,
            });
        }
        self.fleet.mark_changed(task.class);
    }

    /// Fails what has waited for long enough.
    pub(crate) fn give_up(&mut self, key: ClassKey) {
        let error = self.nearest_mismatch(key);
        loop {
            let class = &mut self.fleet.classes[key];
            let due = class.unsatisfiable.front().is_some_and(|first| {
                give_up_at(&self.config, class.grace, first.since) <= self.now
            });
            let Some(first) = due.then(|| class.unsatisfiable.pop_front()).flatten() else {
                break;
            };
            if self.is_waiting(&first) {
                self.fail_waiting(first.task, &error);
            }
            if self.fleet.classes.get(key).is_none() {
                return;
            }
        }
        self.arm(key);
    }

    fn is_waiting(&self, entry: &Unsatisfiable) -> bool {
        let task = self.tasks.get(entry.task);
        task.is_some_and(|task| task.arrival == entry.arrival && task.place.is_some())
    }

    pub(crate) fn fail_waiting(&mut self, key: TaskKey, error: &UnitError) {
        let units = self.tasks[key].waiting.clear();
        self.end_waiting(key, units.len());
        for unit in units {
            self.fail_unit(key, unit, error.clone());
        }
        self.conclude(key);
    }

    /// Sets the class's timer for the first that still waits.
    fn arm(&mut self, key: ClassKey) {
        while let Some(first) = self.fleet.classes[key].unsatisfiable.front().copied() {
            if self.is_waiting(&first) {
                break;
            }
            self.fleet.classes[key].unsatisfiable.pop_front();
        }
        let class = &mut self.fleet.classes[key];
        let first = class.unsatisfiable.front().map(|first| first.since);
        let deadline = first.map(|since| give_up_at(&self.config, class.grace, since));
        let timer = Timer::Unsatisfiable(key);
        self.timers.set(timer, &mut class.give_up_at, deadline);
    }

    /// Gives a task up at once that asks for a property of which no agent offers any value: that is a
    /// wrong name, and waiting mends it no more than an answer now. What waited before the fleet changed
    /// keeps its time.
    pub(crate) fn refuse_unknown_properties(&mut self, key: TaskKey) {
        let class = self.tasks[key].class;
        let is_hopeless = self.fleet.has_live_agents()
            && self.fleet.classes[class].live == 0
            && self.fleet.unknown_property(class).is_some();
        if is_hopeless {
            let error = self.nearest_mismatch(class);
            self.fail_waiting(key, &error);
        }
    }
}

/// When work is given up that waits since a time.
///
/// The wait starts anew, but only once, when agents appear of which none will do: another of their
/// fleet may be about to.
fn give_up_at(
    config: &SchedulerConfig,
    grace: Option<(Timestamp, Grace)>,
    since: Timestamp,
) -> Timestamp {
    let longest = since + config.no_agent_grace.max(config.unsatisfiable_grace);
    match grace {
        Some((changed_at, Grace::Mismatch)) => {
            longest.min(since.max(changed_at) + config.unsatisfiable_grace)
        }
        Some((_, Grace::NoAgent)) | None => longest,
    }
}
