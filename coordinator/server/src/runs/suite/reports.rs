//! Reports of batches that have tests yet to be answered.

use std::collections::HashMap;
use std::sync::Arc;

use regatta_model::LeaseId;

use super::contract::BatchReport;

/// What batches' runners reported. A report holds all that its tests wrote, so that it is kept no longer
/// than until the last of them is answered.
#[derive(Debug, Default)]
pub(super) struct Reports {
    held: HashMap<LeaseId, Held>,
}

#[derive(Debug)]
struct Held {
    report: Arc<BatchReport>,
    /// How many tests have yet to be answered.
    open: usize,
}

impl Reports {
    /// Keeps a report for this many more tests.
    pub(super) fn keep(&mut self, lease: LeaseId, report: Arc<BatchReport>, tests: usize) {
        if tests > 0 {
            let open = tests;
            self.held.insert(lease, Held { report, open });
        }
    }

    /// The report for one more of its tests.
    pub(super) fn take(&mut self, lease: LeaseId) -> Option<Arc<BatchReport>> {
        let held = self.held.get_mut(&lease)?;
        held.open -= 1;
        if held.open == 0 {
            return self.held.remove(&lease).map(|held| held.report);
        }
        Some(Arc::clone(&held.report))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_goes_with_its_last_test() {
        let mut reports = Reports::default();
        let report = Arc::new(BatchReport::default());
        reports.keep(LeaseId(1), Arc::clone(&report), 2);
        reports.keep(LeaseId(2), Arc::clone(&report), 0);
        assert_eq!(Arc::strong_count(&report), 2);
        assert!(reports.take(LeaseId(1)).is_some());
        assert_eq!(Arc::strong_count(&report), 2);
        assert!(reports.take(LeaseId(1)).is_some());
        assert_eq!(Arc::strong_count(&report), 1);
        assert!(reports.take(LeaseId(1)).is_none());
    }
}
