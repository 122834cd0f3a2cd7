//! What a simulation finds wrong.

use std::fmt;

use regatta_model::Timestamp;

use crate::Event;

/// An invariant that does not hold.
pub struct Violation {
    /// Which, and what breaks it.
    pub what: String,
    /// Every event since the scheduler last started, up to the one that broke it. Giving them to a new
    /// scheduler of the same configuration leads there again.
    pub trace: Vec<(Timestamp, Event)>,
}

impl fmt::Debug for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, event) in &self.trace {
            writeln!(formatter, "{at} {event:?}")?;
        }
        write!(formatter, "{}", self.what)
    }
}
