//! A time in which nothing new is begun, because nothing could come of it: what agents make could not be stored, say.
//!
//! What is leased goes on, its outcomes count, and what is lost waits again; what agents hold from before a restart is
//! adopted. What waits is given up once it has waited in vain for as long as
//! [`SchedulerConfig::hold_limit`](crate::SchedulerConfig) says.

use std::time::Duration;

use regatta_model::Timestamp;

use crate::UnitError;
use crate::scheduler::Scheduler;
use crate::task::{Task, TaskKey};
use crate::timers::Timer;

/// How often in [`crate::SchedulerConfig::hold_limit`] it is looked at what has waited for long enough.
const LOOKS: u32 = 10;
/// But no more often than this.
const SHORTEST_LOOK: Duration = Duration::from_secs(1);

/// Why nothing new is begun.
#[derive(Debug)]
pub(crate) struct Hold {
    reason: String,
    since: Timestamp,
    /// When it is looked at next what has waited for long enough.
    look_at: Option<Timestamp>,
}

impl Scheduler {
    /// Begins to hold, or goes on with it for another reason, or ends it.
    pub(crate) fn hold(&mut self, reason: Option<String>) {
        let Some(reason) = reason else {
            return self.end_hold();
        };
        match &mut self.hold {
            Some(hold) => hold.reason = reason,
            None => {
                self.hold = Some(Hold {
                    reason,
                    since: self.now,
                    look_at: None,
                });
                self.look_at_held_later();
            }
        }
    }

    fn end_hold(&mut self) {
        let Some(mut hold) = self.hold.take() else {
            return;
        };
        self.timers.set(Timer::Held, &mut hold.look_at, None);
        let agents = self.fleet.agents.iter().map(|(key, _)| key);
        self.agents_to_fill.extend(agents);
    }

    /// Why nothing new is leased, if so.
    #[must_use]
    pub fn held(&self) -> Option<&str> {
        self.hold.as_ref().map(|hold| hold.reason.as_str())
    }

    fn look_at_held_later(&mut self) {
        let look_at = self.after((self.config.hold_limit / LOOKS).max(SHORTEST_LOOK));
        if let Some(hold) = &mut self.hold {
            self.timers
                .set(Timer::Held, &mut hold.look_at, Some(look_at));
        }
    }

    /// Gives up what has waited for long enough while nothing was begun.
    pub(crate) fn give_up_held(&mut self) {
        let Some(hold) = &self.hold else {
            return;
        };
        let (since, limit) = (hold.since, self.config.hold_limit);
        let error = UnitError::Held {
            waited: limit,
            reason: hold.reason.clone(),
        };
        let is_due = |task: &Task| {
            !task.waiting.is_empty() && task.waiting_since.max(since) + limit <= self.now
        };
        let due: Vec<TaskKey> = self
            .tasks
            .iter()
            .filter(|(_, task)| is_due(task))
            .map(|(key, _)| key)
            .collect();
        for key in due {
            self.fail_waiting(key, &error);
        }
        self.look_at_held_later();
    }
}
