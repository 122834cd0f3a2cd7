//! The runs that an earlier process has left open, until each is taken up.

use std::collections::BTreeSet;

use regatta_model::RunId;
use tokio::sync::watch;

/// Those that nobody has taken up yet.
#[derive(Debug, Default)]
pub(super) struct LeftOpen {
    runs: watch::Sender<BTreeSet<RunId>>,
}

impl LeftOpen {
    /// These.
    pub(super) fn new(runs: impl IntoIterator<Item = RunId>) -> Self {
        Self {
            runs: watch::Sender::new(runs.into_iter().collect()),
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.runs.borrow().len()
    }

    /// Says that a run goes on, or will not.
    pub(super) fn taken_up(&self, run: &RunId) {
        self.runs.send_if_modified(|runs| runs.remove(run));
    }

    /// Waits until a run is none of them.
    pub(super) async fn wait_for(&self, run: &RunId) {
        let mut runs = self.runs.subscribe();
        // The sender lives in `self`, so this cannot fail.
        drop(runs.wait_for(|runs| !runs.contains(run)).await);
    }
}
