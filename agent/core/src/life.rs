//! From serving, through draining, to the end.

use regatta_model::Timestamp;

use crate::config::UNACKNOWLEDGED_EXIT_LIMIT;

/// How far an agent's life has come. It never goes back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Life {
    /// Takes new work.
    Serving,
    /// Takes none, and ends when what it has is done and told.
    Draining {
        deadline: Timestamp,
        /// Since when nothing runs any more.
        quiet_since: Option<Timestamp>,
    },
    /// Does nothing more.
    Ended,
}

impl Life {
    pub(crate) fn draining(deadline: Timestamp) -> Self {
        Self::Draining {
            deadline,
            quiet_since: None,
        }
    }

    /// Whether a drain is over: nothing runs and nothing is held, or it took too long.
    pub(crate) fn is_drained(&mut self, now: Timestamp, idle: bool, nothing_held: bool) -> bool {
        let Self::Draining {
            deadline,
            quiet_since,
        } = self
        else {
            return false;
        };
        if idle {
            quiet_since.get_or_insert(now);
        }
        let waited = |since| now.since(since) >= UNACKNOWLEDGED_EXIT_LIMIT;
        let nothing_left = quiet_since.is_some() && nothing_held;
        nothing_left || quiet_since.is_some_and(waited) || *deadline <= now
    }

    /// When a drain ends if nothing else happens.
    pub(crate) fn wake_at(self) -> Option<Timestamp> {
        match self {
            Self::Serving | Self::Ended => None,
            Self::Draining {
                deadline,
                quiet_since,
            } => {
                let quiet = quiet_since.map(|since| since + UNACKNOWLEDGED_EXIT_LIMIT);
                Some(quiet.map_or(deadline, |quiet| quiet.min(deadline)))
            }
        }
    }
}
