//! Cached passes and skips that the events of a run tell of, and whether they were looked into. Pure.
//!
//! What the run itself has left in the cache is none of them: a restart found it there before anything was told of it,
//! and to look into it would be to execute it a second time for the same run.

use std::collections::BTreeMap;

use regatta_model::{Digest, RunId};
use regatta_wire::v1;
use regatta_wire::v1::run_event::Event;

/// The cached passes and skips of a run, by their suites.
#[derive(Debug, Default)]
pub(super) struct RecordedHits {
    /// Whose they are; nobody's as long as there are none.
    run: Option<RunId>,
    suites: BTreeMap<String, SuiteHits>,
}

#[derive(Debug, Default)]
struct SuiteHits {
    /// The keys of passes, by their tests, of which nothing else was told.
    passes: BTreeMap<String, Digest>,
    /// The same of skips.
    skips: BTreeMap<String, Digest>,
    /// Whether it was told what came of passes that were executed again.
    are_audited: bool,
}

impl RecordedHits {
    /// Those of a run of which nothing has been told yet.
    pub(super) fn of(run: &RunId) -> Self {
        Self {
            run: Some(run.clone()),
            ..Self::default()
        }
    }

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
            let suite = self.suite(&result.job);
            suite.passes.remove(&result.test_id);
            suite.skips.remove(&result.test_id);
            return;
        }
        let key = result.key.as_ref();
        let Some(key) = key.and_then(|key| Digest::try_from(key).ok()) else {
            return;
        };
        let run = self.run.as_ref();
        if run.is_some_and(|run| is_own(run, &result.cached_from)) {
            return;
        }
        // What its suite says not to run is skipped, too, and comes from no run.
        let is_from_cache = !result.cached_from.is_empty();
        let (test, suite) = (result.test_id.clone(), self.suite(&result.job));
        if result.status() == v1::TestStatus::Cached {
            suite.passes.insert(test, key);
        } else if result.status() == v1::TestStatus::Skipped && is_from_cache {
            suite.skips.insert(test, key);
        }
    }

    fn suite(&mut self, job: &str) -> &mut SuiteHits {
        self.suites.entry(job.to_owned()).or_default()
    }

    /// Whether a test has a cached pass that nothing else was told of.
    pub(super) fn has_pass(&self, job: &str, test: &str) -> bool {
        let suite = self.suites.get(job);
        suite.is_some_and(|suite| suite.passes.contains_key(test))
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
            let passes = suite.passes.values().filter(|_| !suite.are_audited);
            passes.chain(suite.skips.values())
        })
    }
}

/// Whether what is cached was left there by this very run: before a restart, or for another of its jobs.
pub(super) fn is_own(run: &RunId, cached_from: &str) -> bool {
    cached_from == run.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is known of a pass and a skip of a run `own` that come from another run, if anything is.
    #[track_caller]
    fn check(cached_from: &str, is_told_anew: bool, are_hits: bool) {
        let run = "own".parse().expect("is an id");
        let mut hits = RecordedHits::of(&run);
        let result = |test: &str, status: v1::TestStatus, is_audit| v1::TestResult {
            job: "a".to_owned(),
            test_id: test.to_owned(),
            status: status.into(),
            key: Some(Digest::of(test.as_bytes()).into()),
            cached_from: cached_from.to_owned(),
            is_audit,
            ..Default::default()
        };
        let mut results = vec![
            result("passes", v1::TestStatus::Cached, false),
            result("skips", v1::TestStatus::Skipped, false),
        ];
        if is_told_anew {
            results.push(result("passes", v1::TestStatus::Failed, true));
            results.push(result("skips", v1::TestStatus::Passed, true));
        }
        hits.take(&Event::TestsFinished(v1::TestsFinished { results }));
        let found = (hits.has_pass("a", "passes"), hits.has_skip("a", "skips"));
        assert_eq!(found, (are_hits, are_hits), "{cached_from}");
        let unaudited = hits.unaudited("a").count();
        assert_eq!(unaudited, if are_hits { 2 } else { 0 }, "{cached_from}");
    }

    #[test]
    fn what_the_run_itself_has_left_in_the_cache_is_no_hit() {
        check("another", false, true);
        check("own", false, false);
    }

    #[test]
    fn what_was_told_anew_is_no_hit_any_more() {
        check("another", true, false);
    }
}
