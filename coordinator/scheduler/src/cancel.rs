//! Work that is not wanted any more.

use regatta_model::TaskId;

use crate::scheduler::Scheduler;
use crate::task::TaskKey;
use crate::{Effect, UnitError};

impl Scheduler {
    /// Takes one submitter's interest in a task away, and the task with the last of them.
    pub(crate) fn cancel_task(&mut self, id: TaskId) {
        let Some((key, run)) = self.submitted.remove(&id) else {
            return;
        };
        let open: Vec<_> = self.tasks[key].open_unit_indexes().collect();
        for unit in open {
            self.effect(Effect::UnitFailed {
                task: id,
                unit,
                error: UnitError::Cancelled,
            });
        }
        self.effect(Effect::TaskFinished(id));
        self.queue.run_mut(run).tasks.remove(&id);
        let task = &mut self.tasks[key];
        task.submitters.retain(|submitter| submitter.task != id);
        if task.submitters.is_empty() {
            self.stop(key);
        } else {
            self.uncount_merged(run, 1);
            self.rehome(key);
            self.queue.leave(run);
        }
    }

    /// Drops what waits of a task, and lets go of what runs.
    fn stop(&mut self, key: TaskKey) {
        let dropped = self.tasks[key].waiting.clear().len();
        self.end_waiting(key, dropped);
        self.file(key);
        self.remove(key);
    }

    /// Moves a task to the run of its first submitter, if nobody of its run wants it any more.
    fn rehome(&mut self, key: TaskKey) {
        let task = &mut self.tasks[key];
        let still_wanted = task
            .submitters
            .iter()
            .any(|submitter| submitter.run == task.run);
        let heir = task.submitters.first().map(|submitter| submitter.run);
        let Some(heir) = heir.filter(|_| !still_wanted) else {
            return;
        };
        let waiting = task.waiting.len();
        let place = task.place.take();
        let (class, run) = (task.class, task.run);
        if let Some(place) = place {
            self.unfile(class, run, place);
        }
        self.end_waiting(key, waiting);
        self.tasks[key].run = heir;
        self.begin_waiting(key, waiting);
        self.file(key);
    }
}
