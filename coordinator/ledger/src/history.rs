//! What is learnt of suites and their tests.

use std::time::Duration;

use regatta_model::{Digest, TenantId, Timestamp};

use crate::LedgerError;

/// How much a new execution time counts against all earlier ones, in percent. A change of a test's
/// speed is learnt after a handful of runs; one slow machine does not spoil the expectation.
const NEWEST_PERCENT: u32 = 30;
/// Of how many images and branches the times of one test are kept apart: those that ran last.
pub(crate) const MAX_PLACES: usize = 32;

/// What times are kept apart by.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Place {
    /// The image by the name that its job gives it, which outlives what the name stands for; empty if none.
    pub image: String,
    /// The branch; empty if none, or for all of them.
    pub branch: String,
}

impl Place {
    /// The same image, whatever the branch.
    #[must_use]
    pub fn of_any_branch(&self) -> Self {
        Self {
            image: self.image.clone(),
            branch: String::new(),
        }
    }
}

/// What one run of a suite showed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SuiteObservation {
    /// Whose suite.
    pub tenant: TenantId,
    /// The suite: its job's name.
    pub suite: String,
    /// Where it ran.
    pub place: Place,
    /// Its executed tests.
    pub tests: Vec<TestObservation>,
    /// What a batch cost besides its tests, if that was seen.
    pub batch_overhead: Option<Duration>,
}

/// One executed test, all its attempts together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TestObservation {
    /// The test's id in its suite.
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
    /// The root of the inputs that the key covers.
    pub input_root: Option<Digest>,
}

/// How long something takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Timing {
    /// The exponentially weighted mean.
    pub expected: Duration,
    /// The exponentially weighted mean of how far it was off.
    pub spread: Duration,
}

/// What is known of a suite before it runs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SuiteKnowledge {
    /// Its tests that were ever executed, by id.
    pub tests: Vec<KnownTest>,
    /// The exponentially weighted mean of what a batch costs besides its tests.
    pub batch_overhead: Option<Duration>,
}

/// What is known of a test before it runs somewhere.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KnownTest {
    /// The test's id in its suite.
    pub test: String,
    /// How long it takes there; else with that image on any branch; else anywhere.
    pub timing: Timing,
    /// When it did not pass at once, last.
    pub last_failure: Option<Timestamp>,
    /// With which key it was executed last.
    pub last_key: Option<Digest>,
    /// Which inputs that key covers, if it is known.
    pub last_input_root: Option<Digest>,
    /// With which key it did not pass at once, last.
    pub last_failed_key: Option<Digest>,
}

/// What is known of a test, wherever it ran.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TestHistory {
    /// The suite.
    pub suite: String,
    /// The test's id in it.
    pub test: String,
    /// How long it takes.
    pub timing: Timing,
    /// How often it was executed.
    pub runs: u64,
    /// How often it did not pass.
    pub failures: u64,
    /// How often it passed only after it had failed.
    pub flakes: u64,
    /// When it was executed last.
    pub last_run: Timestamp,
    /// When it did not pass, or only after it had failed, last.
    pub last_failure: Option<Timestamp>,
    /// With which key it was executed last.
    pub last_key: Option<Digest>,
    /// Which inputs that key covers, if it is known.
    pub last_input_root: Option<Digest>,
    /// With which key it did not pass at once, last.
    pub last_failed_key: Option<Digest>,
}

impl Timing {
    /// What a first measurement teaches. How much others will differ is anybody's guess: by half, as TCP
    /// guesses of round trips (RFC 6298).
    #[must_use]
    pub fn begin(measured: Duration) -> Self {
        Self {
            expected: measured,
            spread: measured / 2,
        }
    }

    /// Takes in one more measurement, as TCP does (Jacobson, 1988): deviations that are not squared let no
    /// single slow machine spoil the spread.
    pub fn learn(&mut self, measured: Duration) {
        let deviation = measured.abs_diff(self.expected);
        self.spread = moved(self.spread, deviation);
        self.expected = moved(self.expected, measured);
    }
}

/// An exponentially weighted mean after one more value.
pub(crate) fn moved(mean: Duration, value: Duration) -> Duration {
    let old = mean.saturating_mul(100 - NEWEST_PERCENT);
    old.saturating_add(value.saturating_mul(NEWEST_PERCENT)) / 100
}

/// Takes it for learnt, and warns, if what is stored of a test (or, without a name, of the suite) cannot be read:
/// learning is no reason to refuse the event that teaches.
///
/// # Errors
/// Whatever else failed.
pub(crate) fn spare(
    learnt: Result<(), LedgerError>,
    suite: &SuiteObservation,
    test: &str,
) -> Result<(), LedgerError> {
    match learnt {
        Err(error @ LedgerError::Corrupt { .. }) => {
            let (tenant, suite) = (suite.tenant.as_str(), &suite.suite);
            tracing::warn!(
                tenant, suite, test, %error,
                "nothing is learnt of a test: what is stored of it cannot be read; delete or repair its rows"
            );
            Ok(())
        }
        learnt => learnt,
    }
}

impl TestHistory {
    /// What is known after a first observation of a test of this suite.
    #[must_use]
    pub fn begin(suite: &str, seen: &TestObservation) -> Self {
        Self {
            suite: suite.to_owned(),
            test: seen.test.clone(),
            timing: Timing::begin(seen.duration),
            runs: 1,
            failures: u64::from(seen.failed),
            flakes: u64::from(seen.flaky),
            last_run: seen.finished_at,
            last_failure: seen.failed_at(),
            last_key: seen.key,
            last_input_root: seen.input_root.filter(|_| seen.key.is_some()),
            last_failed_key: seen.failed_key(),
        }
    }

    /// Takes in one more observation.
    pub fn learn(&mut self, seen: &TestObservation) {
        self.timing.learn(seen.duration);
        // What is stored may be damaged, and any number.
        let add = |count: u64, one: bool| count.saturating_add(u64::from(one));
        self.runs = add(self.runs, true);
        self.failures = add(self.failures, seen.failed);
        self.flakes = add(self.flakes, seen.flaky);
        self.last_run = self.last_run.max(seen.finished_at);
        self.last_failure = self.last_failure.max(seen.failed_at());
        if seen.key.is_some() {
            self.last_key = seen.key;
            self.last_input_root = seen.input_root;
        }
        self.last_failed_key = seen.failed_key().or(self.last_failed_key);
    }
}

impl TestObservation {
    /// When it did not pass at once, if it did not.
    fn failed_at(&self) -> Option<Timestamp> {
        (self.failed || self.flaky).then_some(self.finished_at)
    }

    /// With which key it did not pass at once, if it did not.
    fn failed_key(&self) -> Option<Digest> {
        self.key.filter(|_| self.failed || self.flaky)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_and_the_spread_follow_what_is_measured() {
        let millis = Duration::from_millis;
        let mut timing = Timing::begin(millis(100));
        assert_eq!((timing.expected, timing.spread), (millis(100), millis(50)));
        timing.learn(millis(200));
        assert_eq!((timing.expected, timing.spread), (millis(130), millis(65)));
        for _ in 0..40 {
            timing.learn(millis(200));
        }
        assert!(
            timing.expected.abs_diff(millis(200)) < millis(1),
            "{timing:?}"
        );
        assert!(timing.spread < millis(1), "{timing:?}");
    }
}
