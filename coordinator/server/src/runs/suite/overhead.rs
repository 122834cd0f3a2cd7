//! What starting a batch costs, measured. Pure: time is an argument.

use std::collections::HashMap;
use std::time::Duration;

use regatta_model::LeaseId;
use tokio::time::Instant;

/// No batch costs more to start than this, whatever a clock or a runner's report says.
const MOST: Duration = Duration::from_secs(60);
/// Nor less.
const LEAST: Duration = Duration::from_millis(1);

/// From the grant of each batch to its first answer, less what its tests took until then.
///
/// The least of them counts. What goes beyond it is a pull of an image, which is not to be expected again, or
/// grows with the batch, as a runner's fixtures do, and is not saved by larger batches.
#[derive(Debug, Default)]
pub(super) struct Overheads {
    granted: HashMap<LeaseId, Instant>,
    least: Option<Duration>,
}

impl Overheads {
    pub(super) fn granted(&mut self, lease: LeaseId, now: Instant) {
        self.granted.insert(lease, now);
    }

    /// A batch has its first answer, for which its tests ran for so long. Later ones do not count.
    pub(super) fn answered(&mut self, lease: LeaseId, tests_took: Duration, now: Instant) {
        let Some(granted) = self.granted.remove(&lease) else {
            return;
        };
        let since = now.duration_since(granted);
        // Tests that run beside each other, or a report that is wrong: it does not tell the overhead.
        let Some(overhead) = since.checked_sub(tests_took) else {
            return;
        };
        let overhead = overhead.clamp(LEAST, MOST);
        self.least = Some(self.least.map_or(overhead, |least| least.min(overhead)));
    }

    /// The answers of a batch say nothing of its overhead.
    pub(super) fn forget(&mut self, lease: LeaseId) {
        self.granted.remove(&lease);
    }

    pub(super) const fn measured(&self) -> Option<Duration> {
        self.least
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_least_counts_and_each_batch_once() {
        let start = Instant::now();
        let millis = Duration::from_millis;
        let mut overheads = Overheads::default();
        assert_eq!(overheads.measured(), None);
        for lease in 1..=4 {
            overheads.granted(LeaseId(lease), start);
        }
        overheads.answered(LeaseId(1), millis(100), start + millis(700));
        assert_eq!(overheads.measured(), Some(millis(600)));
        overheads.answered(LeaseId(2), millis(300), start + millis(800));
        overheads.answered(LeaseId(2), millis(900), start + millis(900));
        overheads.forget(LeaseId(3));
        overheads.answered(LeaseId(3), millis(0), start + millis(1));
        assert_eq!(overheads.measured(), Some(millis(500)));
        overheads.answered(LeaseId(4), millis(9000), start + millis(10));
        assert_eq!(overheads.measured(), Some(millis(500)));
    }
}
