//! What would come of work.

use regatta_model::TaskId;

use super::super::Work;
use super::{Board, submission};

impl Board {
    /// What would come of work if it were submitted now.
    pub(in super::super) fn forecast(&self, works: &[Work]) -> regatta_scheduler::Forecast {
        let tasks = (self.next_task + 1..).zip(works);
        let submissions: Vec<_> = tasks
            .map(|(task, work)| submission(TaskId(task), work))
            .collect();
        self.scheduler.forecast(&submissions)
    }
}
