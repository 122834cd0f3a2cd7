//! What happens by itself, and when.

use std::collections::BTreeSet;

use regatta_model::{LeaseId, Timestamp};

use crate::fleet::{AgentKey, ClassKey};

/// What a deadline is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// The agent has been silent for too long.
    AgentSilent(AgentKey),
    /// The agent's pause is over.
    CooledOff(AgentKey),
    /// The lost agent need not be remembered any more.
    ForgetAgent(AgentKey),
    /// Work of this class has waited too long for an agent that can run it.
    Unsatisfiable(ClassKey),
    /// Lost work of this class may go back to the agent that lost it.
    RetryAnywhere(ClassKey),
    /// The agent may hold something for too long that it was to let go of.
    Overdue(AgentKey),
    /// The agent has been kept free for a class for long enough.
    Reserved(AgentKey),
    /// The lease takes longer than it should.
    Late(LeaseId),
    /// What agents hold from before this scheduler, and nobody has asked for, is not wanted any more.
    AdoptionEnds,
    /// What waits while nothing is begun may have waited for long enough.
    Held,
}

/// Deadlines, soonest first. Each timer is set at most once at a time, by whoever remembers when.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    deadlines: BTreeSet<(Timestamp, Timer)>,
}

impl Timers {
    /// Moves a timer from where it was to where it should be.
    pub(crate) fn set(
        &mut self,
        timer: Timer,
        current: &mut Option<Timestamp>,
        deadline: Option<Timestamp>,
    ) {
        if *current == deadline {
            return;
        }
        if let Some(old) = *current {
            self.deadlines.remove(&(old, timer));
        }
        if let Some(new) = deadline {
            self.deadlines.insert((new, timer));
        }
        *current = deadline;
    }

    /// When the next one is due.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// The next one that is due by now. Whoever set it must set it anew or take it away.
    pub(crate) fn due(&self, now: Timestamp) -> Option<Timer> {
        let (deadline, timer) = self.deadlines.first()?;
        (*deadline <= now).then_some(*timer)
    }
}
