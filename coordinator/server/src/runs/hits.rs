//! Cached passes and skips that the events of a run tell of, and whether they were looked into. Pure.

use std::collections::BTreeMap;

use regatta_model::Digest;
use regatta_wire::v1;
use regatta_wire::v1::run_event::Event;

/// The cached passes and skips of a run, by their suites.
#[derive(Debug, Default)]
pub(super) struct RecordedHits {
    suites: BTreeMap<String, SuiteHits>,
}

#[derive(Debug, Default)]
struct SuiteHits {
    /// The keys of passes.
    passes: Vec<Digest>,
    /// The keys of skips, by their tests, of which nothing else was told.
    skips: BTreeMap<String, Digest>,
    /// Whether it was told what came of passes that were executed again.
    are_audited: bool,
}

impl RecordedHits {
    /// Takes in the next event.
    pub(super) fn take(&mut self, event: &Event) {
        if let Event::TestsFinished(finished) = event {
            finished.results.iter().for_each(|it| self.take_result(it));
        }
        if let Event::HitsAudited(audited) = event {
            self.suite(&audited.job).are_audited = true;
        }
    }

    fn take_result(&mut self, result: &v1::TestResult) {
        if result.is_audit {
            self.suite(&result.job).skips.remove(&result.test_id);
            return;
        }
        let key = result.key.as_ref();
        let Some(key) = key.and_then(|key| Digest::try_from(key).ok()) else {
            return;
        };
        // What its suite says not to run is skipped, too, and comes from no run.
        let is_from_cache = !result.cached_from.is_empty();
        if result.status() == v1::TestStatus::Cached {
            self.suite(&result.job).passes.push(key);
        } else if result.status() == v1::TestStatus::Skipped && is_from_cache {
            let skips = &mut self.suite(&result.job).skips;
            skips.insert(result.test_id.clone(), key);
        }
    }

    fn suite(&mut self, job: &str) -> &mut SuiteHits {
        self.suites.entry(job.to_owned()).or_default()
    }

    /// Whether a test has a cached skip that nothing else was told of.
    pub(super) fn has_skip(&self, job: &str, test: &str) -> bool {
        let suite = self.suites.get(job);
        suite.is_some_and(|suite| suite.skips.contains_key(test))
    }

    /// The keys of what is cached of a suite and was not told to have been looked into: of passes that is told, of skips
    /// that hold it is not.
    pub(super) fn unaudited(&self, job: &str) -> impl Iterator<Item = &Digest> {
        self.suites.get(job).into_iter().flat_map(|suite| {
            let passes = suite.passes.iter().filter(|_| !suite.are_audited);
            passes.chain(suite.skips.values())
        })
    }
}
