//! Cached passes that the events of a run tell of, and whether they were looked into. Pure.

use std::collections::BTreeMap;

use regatta_model::Digest;
use regatta_wire::v1;
use regatta_wire::v1::run_event::Event;

/// The cached passes of a run, by their suites.
#[derive(Debug, Default)]
pub(super) struct RecordedHits {
    suites: BTreeMap<String, SuiteHits>,
}

#[derive(Debug, Default)]
struct SuiteHits {
    keys: Vec<Digest>,
    /// Whether it was told what came of those that were executed again.
    are_audited: bool,
}

impl RecordedHits {
    /// Takes in the next event.
    pub(super) fn take(&mut self, event: &Event) {
        if let Event::TestsFinished(finished) = event {
            finished.results.iter().for_each(|it| self.take_result(it));
        }
        if let Event::HitsAudited(audited) = event {
            let suite = self.suites.entry(audited.job.clone()).or_default();
            suite.are_audited = true;
        }
    }

    fn take_result(&mut self, result: &v1::TestResult) {
        let is_hit = result.status() == v1::TestStatus::Cached;
        let key = result.key.as_ref().filter(|_| is_hit);
        if let Some(key) = key.and_then(|key| Digest::try_from(key).ok()) {
            let suite = self.suites.entry(result.job.clone()).or_default();
            suite.keys.push(key);
        }
    }

    /// The keys of a suite's cached passes, if nothing was told of those that were to be executed again.
    pub(super) fn unaudited(&self, job: &str) -> &[Digest] {
        let suite = self.suites.get(job).filter(|suite| !suite.are_audited);
        suite.map_or(&[], |suite| &suite.keys)
    }
}
