//! Reports of batches that have tests yet to be answered.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};

use regatta_model::LeaseId;
use regatta_wire::v1;
use regatta_wire::v1::run_event::Event;
use tokio::time::Instant;

use super::contract::BatchReport;
use super::execution::Execution;
use super::outbox::Purpose;
use crate::junit::KnownIds;
use crate::runs::event::duration_of;

/// What batches' runners reported. A report holds all that its tests wrote, so that it is kept no longer
/// than until the last of them is answered.
#[derive(Debug, Default)]
pub(super) struct Reports {
    held: HashMap<LeaseId, Held>,
    /// Of all tests of the run; made when the first report is read.
    known: OnceLock<Arc<KnownIds>>,
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

impl Execution<'_> {
    /// Takes in what fails the suite and is no test's fault. It is told before any result of its batch is, so
    /// that a restart in between does not lose it; whoever comes to it again after that says nothing new.
    pub(super) fn complain(&mut self, message: String) {
        if self.complaints.contains(&message) {
            return;
        }
        if self.purpose == Purpose::Answer {
            self.job
                .run
                .log
                .append(Event::SuiteComplained(v1::SuiteComplained {
                    job: self.job.name(),
                    message: message.clone(),
                    is_audit: false,
                }));
        }
        self.complaints.push(message);
    }

    /// The report of a lease's batch, read once for all its tests.
    pub(super) async fn report(
        &mut self,
        submission: usize,
        junit_path: &str,
        outcome: &v1::ExecutionOutcome,
        lease: LeaseId,
    ) -> Arc<BatchReport> {
        if let Some(report) = self.reports.take(lease) {
            return report;
        }
        let answered_at = Instant::now();
        self.job.run.times.worked(duration_of(outcome));
        let units = self.leases.remove(&lease).unwrap_or_default();
        let others = units.len().saturating_sub(1);
        let tests = units
            .into_iter()
            .filter_map(|unit| self.test_of(submission, unit));
        let all = self.tests;
        let by_id: BTreeMap<&str, usize> =
            tests.map(|test| (all[test].id.as_str(), test)).collect();
        let asked: BTreeSet<&str> = by_id.keys().copied().collect();
        let known = self.reports.known.get_or_init(|| {
            let ids = all.iter().map(|test| test.id.as_str());
            Arc::new(KnownIds::of(ids))
        });
        let known = Arc::clone(known);
        let mut report = BatchReport::read(self.job, junit_path, outcome, &asked, &known).await;
        match report.tests_took() {
            Some(took) => self.overheads.answered(lease, took, answered_at),
            None => self.overheads.forget(lease),
        }
        let tests: Vec<usize> = by_id.values().copied().collect();
        let mut again = self.suspected(&report, &tests);
        let left: Vec<usize> = report.left(&asked).iter().map(|id| by_id[id]).collect();
        again.extend((!left.is_empty()).then_some(left));
        for batch in again {
            report.continued();
            if let Err(end) = self.submit(batch.clone()).await {
                self.give_up(batch, &end);
            }
        }
        let report = Arc::new(report);
        for complaint in &report.complaints {
            self.complain(complaint.clone());
        }
        // The job's own failure, which counts when it ends; unless the first failure stops the run.
        if !report.complaints.is_empty() && self.job.run.plan.spec.max_failures == 1 {
            self.job.run.failures.add_one();
        }
        self.reports.keep(lease, Arc::clone(&report), others);
        report
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
