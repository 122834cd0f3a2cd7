//! What is learnt of tests.

use std::time::Duration;

use regatta_model::{Digest, TenantId, Timestamp};

/// How much a new execution time counts against all earlier ones, in percent. A change of a test's
/// speed is learnt after a handful of runs; one slow machine does not spoil the expectation.
const NEWEST_PERCENT: u32 = 30;

/// One executed test, all its attempts together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TestObservation {
    /// Whose suite.
    pub tenant: TenantId,
    /// The suite: its job's name.
    pub suite: String,
    /// The test's id in it.
    pub test: String,
    /// How long its last attempt ran.
    pub duration: Duration,
    /// Whether it did not pass.
    pub failed: bool,
    /// Whether it passed after it had failed.
    pub flaky: bool,
    /// When it ended.
    pub finished_at: Timestamp,
    /// The key of this test with these inputs.
    pub key: Option<Digest>,
}

/// What is known of a test.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TestHistory {
    /// The suite.
    pub suite: String,
    /// The test's id in it.
    pub test: String,
    /// The exponentially weighted mean of its execution times.
    pub expected: Duration,
    /// How often it was executed.
    pub runs: u64,
    /// How often it did not pass.
    pub failures: u64,
    /// How often it passed only after it had failed.
    pub flakes: u64,
    /// When it was executed last.
    pub last_run: Timestamp,
    /// With which key.
    pub last_key: Option<Digest>,
}

impl TestHistory {
    /// What is known after a first observation.
    #[must_use]
    pub fn begin(seen: TestObservation) -> Self {
        Self {
            expected: seen.duration,
            runs: 1,
            failures: u64::from(seen.failed),
            flakes: u64::from(seen.flaky),
            last_run: seen.finished_at,
            last_key: seen.key,
            suite: seen.suite,
            test: seen.test,
        }
    }

    /// Takes in one more observation.
    pub fn learn(&mut self, seen: TestObservation) {
        let old = self.expected.saturating_mul(100 - NEWEST_PERCENT);
        let new = seen.duration.saturating_mul(NEWEST_PERCENT);
        self.expected = old.saturating_add(new) / 100;
        self.runs += 1;
        self.failures += u64::from(seen.failed);
        self.flakes += u64::from(seen.flaky);
        self.last_run = self.last_run.max(seen.finished_at);
        self.last_key = seen.key.or(self.last_key);
    }
}
