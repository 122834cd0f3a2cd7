//! Runs that an earlier process left open.

use std::collections::BTreeMap;

use regatta_ledger::{Ledger, LedgerError, RunCounts, RunEnd, StoredEvent};
use regatta_model::{RunId, Verdict};
use regatta_wire::v1;
use regatta_wire::v1::run_event::Event;

use super::event;
use super::log::{encode, now, read_stored};

/// Gives a run that an earlier process left open its end. What passed in it is in the action cache.
pub(super) async fn close(ledger: &dyn Ledger, run: &RunId) -> Result<(), LedgerError> {
    let mut last = 0;
    let mut told = Told::default();
    loop {
        let events = read_stored(ledger, run, last).await?;
        let Some(event) = events.last() else { break };
        last = event.sequence;
        for event in events.into_iter().filter_map(|event| event.event) {
            told.take(event);
        }
    }
    tracing::warn!(%run, "a run of an earlier process has no end; it gets one");
    let reason =
        "the coordinator was restarted during the run; submit it again: what passed is known";
    let counts = told.counts();
    let finished = Event::RunFinished(v1::RunFinished {
        verdict: v1::Verdict::Unknown.into(),
        reasons: vec![reason.to_owned()],
        counts: Some(event::counts(&counts)),
        ..Default::default()
    });
    let stored = StoredEvent {
        sequence: last + 1,
        bytes: encode(last + 1, finished),
    };
    let end = RunEnd {
        finished_at: now(),
        verdict: Verdict::Unknown,
        counts,
        times: None,
    };
    ledger.append_events(run, vec![stored], Some(end)).await
}

/// What the events of a run told of its tests.
#[derive(Debug, Default)]
struct Told {
    planned: BTreeMap<String, u32>,
    counts: RunCounts,
}

impl Told {
    fn take(&mut self, event: Event) {
        match event {
            Event::SuitePlanned(planned) => {
                self.planned.insert(planned.job, planned.planned);
            }
            Event::TestsFinished(finished) => {
                for result in finished.results {
                    // An audit's result takes the place of a cached pass.
                    let cached = &mut self.counts.cached;
                    *cached = cached.saturating_sub(u32::from(result.is_audit));
                    self.count(result.status());
                }
            }
            Event::RunStarted(_)
            | Event::JobStarted(_)
            | Event::TestRetried(_)
            | Event::BuildRetried(_)
            | Event::JobOutput(_)
            | Event::JobFinished(_)
            | Event::RunFinished(_)
            | Event::InfrastructureRetry(_)
            | Event::Warning(_)
            | Event::HitsAudited(_)
            | Event::TestSlow(_) => {}
        }
    }

    fn count(&mut self, status: v1::TestStatus) {
        let counts = &mut self.counts;
        let count = match status {
            v1::TestStatus::Passed => &mut counts.passed,
            v1::TestStatus::Flaky => &mut counts.flaky,
            v1::TestStatus::Failed => &mut counts.failed,
            v1::TestStatus::Quarantined => &mut counts.quarantined,
            v1::TestStatus::Cached => &mut counts.cached,
            v1::TestStatus::Skipped => &mut counts.skipped,
            v1::TestStatus::NotRun | v1::TestStatus::Unspecified => &mut counts.not_run,
        };
        *count += 1;
    }

    /// With the planned tests that nothing was told of as not run.
    fn counts(self) -> RunCounts {
        let mut counts = self.counts;
        let told = counts.passed
            + counts.flaky
            + counts.failed
            + counts.cached
            + counts.skipped
            + counts.not_run
            + counts.quarantined;
        counts.planned = self.planned.values().sum::<u32>().max(told);
        counts.not_run += counts.planned - told;
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_is_counted_and_the_rest_was_not_run() {
        let mut told = Told::default();
        told.take(Event::SuitePlanned(v1::SuitePlanned {
            job: "a".to_owned(),
            planned: 5,
            ..Default::default()
        }));
        let result = |status: v1::TestStatus| v1::TestResult {
            status: status.into(),
            ..Default::default()
        };
        told.take(Event::TestsFinished(v1::TestsFinished {
            results: vec![
                result(v1::TestStatus::Passed),
                result(v1::TestStatus::Failed),
                result(v1::TestStatus::Cached),
            ],
        }));
        let expected = RunCounts {
            planned: 5,
            passed: 1,
            failed: 1,
            cached: 1,
            not_run: 2,
            ..RunCounts::default()
        };
        assert_eq!(told.counts(), expected);
    }

    #[test]
    fn what_an_audit_told_takes_the_place_of_a_cached_pass() {
        let mut told = Told::default();
        let result = |status: v1::TestStatus, is_audit| v1::TestResult {
            status: status.into(),
            is_audit,
            ..Default::default()
        };
        told.take(Event::TestsFinished(v1::TestsFinished {
            results: vec![
                result(v1::TestStatus::Cached, false),
                result(v1::TestStatus::Cached, false),
                result(v1::TestStatus::Failed, true),
            ],
        }));
        let counts = told.counts();
        assert_eq!((counts.planned, counts.cached, counts.failed), (2, 1, 1));
    }
}
