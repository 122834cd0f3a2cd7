//! What a run's leases take.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use regatta_ledger::RunTimes;

use crate::dispatch::TaskEvent;

/// Adds up what leases take while their jobs go on.
#[derive(Debug, Default)]
pub(super) struct Times {
    sum: Mutex<RunTimes>,
}

impl Times {
    /// Something happened to submitted work: a lease, once it is granted, says how long it waited.
    pub(super) fn take(&self, event: &TaskEvent) {
        if let TaskEvent::Granted { queued, .. } = event {
            self.add(|sum| sum.queued = sum.queued.saturating_add(*queued));
        }
    }

    /// An execution took so long.
    pub(super) fn worked(&self, duration: Duration) {
        self.add(|sum| sum.worked = sum.worked.saturating_add(duration));
    }

    /// All of them so far.
    pub(super) fn sum(&self) -> RunTimes {
        *self.sum.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, change: impl FnOnce(&mut RunTimes)) {
        change(&mut self.sum.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
