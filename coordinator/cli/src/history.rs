//! What runs and tests have been like, in figures. Pure.

use std::time::{Duration, SystemTime};

use regatta_wire::convert::{duration_from_wire, timestamp_from_wire};
use regatta_wire::v1;
use serde::Serialize;

/// The quantile of the normal distribution for an interval of 95 %.
const Z: f64 = 1.959_964;

/// Which runs count.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scope {
    /// Those of this branch.
    pub(crate) branch: Option<String>,
    /// Those that were submitted since.
    pub(crate) since: Option<SystemTime>,
}

/// Runs together.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Runs {
    /// How many have ended.
    pub(crate) ended: usize,
    pub(crate) releasable: usize,
    pub(crate) not_releasable: usize,
    pub(crate) unknown: usize,
    /// From submission to verdict.
    pub(crate) seconds_p50: Option<f64>,
    pub(crate) seconds_p95: Option<f64>,
    /// The tests that they planned and did not skip.
    pub(crate) tests: u64,
    /// Those of them whose results were known.
    pub(crate) cached: u64,
}

/// A test.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Test {
    pub(crate) suite: String,
    pub(crate) test: String,
    /// How long it takes, as far as is known.
    pub(crate) expected_seconds: f64,
    /// How often it was executed.
    pub(crate) runs: u64,
    pub(crate) failures: u64,
    pub(crate) flakes: u64,
    /// How many of its executions failed at first and then passed.
    pub(crate) flake_rate: Rate,
}

/// A share, and where it is with a confidence of 95 %.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(crate) struct Rate {
    pub(crate) share: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Rate {
    /// Wilson's score interval (E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical
    /// Inference", 1927): it is right for few trials and rare events, too.
    pub(crate) fn of(successes: u64, trials: u64) -> Self {
        if trials == 0 {
            return Self {
                share: 0.0,
                low: 0.0,
                high: 1.0,
            };
        }
        let count = trials as f64;
        let share = successes.min(trials) as f64 / count;
        let square = Z * Z;
        let spread = Z * (share * (1.0 - share) / count + square / (4.0 * count * count)).sqrt();
        let (middle, scale) = (share + square / (2.0 * count), 1.0 + square / count);
        Self {
            share,
            low: ((middle - spread) / scale).max(0.0),
            high: ((middle + spread) / scale).min(1.0),
        }
    }
}

impl Runs {
    /// Those of `runs` that have ended and are in scope.
    pub(crate) fn of(runs: &[v1::RunSummary], scope: &Scope) -> Self {
        let ended: Vec<_> = runs.iter().filter(|run| scope.has(run)).collect();
        let with = |verdict| ended.iter().filter(|run| run.verdict() == verdict).count();
        let (releasable, not_releasable) = (
            with(v1::Verdict::Releasable),
            with(v1::Verdict::NotReleasable),
        );
        let mut times: Vec<Duration> = ended.iter().filter_map(|run| time_of(run)).collect();
        times.sort();
        let counts = ended.iter().filter_map(|run| run.counts);
        let (mut tests, mut cached) = (0, 0);
        for counts in counts {
            tests += u64::from(counts.planned.saturating_sub(counts.skipped));
            cached += u64::from(counts.cached);
        }
        Self {
            ended: ended.len(),
            releasable,
            not_releasable,
            unknown: ended.len() - releasable - not_releasable,
            seconds_p50: percentile(&times, 50),
            seconds_p95: percentile(&times, 95),
            tests,
            cached,
        }
    }
}

impl Scope {
    fn has(&self, run: &v1::RunSummary) -> bool {
        let submitted = run.submitted_at.as_ref().and_then(system_time);
        run.finished_at.is_some()
            && self
                .branch
                .as_ref()
                .is_none_or(|branch| *branch == run.branch)
            && self
                .since
                .is_none_or(|since| submitted.is_some_and(|time| time >= since))
    }
}

impl From<v1::TestHistory> for Test {
    fn from(known: v1::TestHistory) -> Self {
        let expected = known.expected.as_ref();
        let expected = expected.and_then(|time| duration_from_wire(time).ok());
        Self {
            suite: known.suite,
            test: known.test_id,
            expected_seconds: expected.unwrap_or_default().as_secs_f64(),
            runs: known.runs,
            failures: known.failures,
            flakes: known.flakes,
            flake_rate: Rate::of(known.flakes, known.runs),
        }
    }
}

/// The tests that take longest, the longest first.
pub(crate) fn slowest(tests: &[Test], count: usize) -> Vec<&Test> {
    let mut tests: Vec<_> = tests.iter().collect();
    tests.sort_by(|one, other| other.expected_seconds.total_cmp(&one.expected_seconds));
    tests.truncate(count);
    tests
}

/// The tests that are flaky, those first that are so most certainly: by the lower end of the interval.
pub(crate) fn flakiest(tests: &[Test], count: usize) -> Vec<&Test> {
    let mut tests: Vec<_> = tests.iter().filter(|test| test.flakes > 0).collect();
    tests.sort_by(|one, other| other.flake_rate.low.total_cmp(&one.flake_rate.low));
    tests.truncate(count);
    tests
}

/// A time from a message; none if it makes no sense.
pub(crate) fn system_time(timestamp: &prost_types::Timestamp) -> Option<SystemTime> {
    timestamp_from_wire(timestamp).ok().map(SystemTime::from)
}

fn time_of(run: &v1::RunSummary) -> Option<Duration> {
    let submitted = run.submitted_at.as_ref().and_then(system_time)?;
    let finished = run.finished_at.as_ref().and_then(system_time)?;
    finished.duration_since(submitted).ok()
}

/// By the nearest rank.
fn percentile(sorted: &[Duration], percent: usize) -> Option<f64> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).map(Duration::as_secs_f64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(branch: &str, from: i64, to: i64, verdict: v1::Verdict) -> v1::RunSummary {
        let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        v1::RunSummary {
            branch: branch.to_owned(),
            submitted_at: at(from),
            finished_at: at(to).filter(|_| to > 0),
            verdict: verdict.into(),
            counts: Some(v1::Counts {
                planned: 10,
                skipped: 2,
                cached: 4,
                ..v1::Counts::default()
            }),
            ..v1::RunSummary::default()
        }
    }

    #[test]
    fn runs_in_scope_add_up() {
        use v1::Verdict::{NotReleasable, Releasable, Unknown};
        let runs = [
            run("main", 100, 110, Releasable),
            run("main", 200, 202, NotReleasable),
            run("main", 300, 304, Unknown),
            run("main", 400, 0, Unknown),
            run("other", 300, 301, Releasable),
        ];
        let all = Runs::of(&runs, &Scope::default());
        assert_eq!((all.ended, all.releasable), (4, 2));
        assert_eq!((all.not_releasable, all.unknown), (1, 1));
        assert_eq!((all.tests, all.cached), (32, 16));
        assert_eq!((all.seconds_p50, all.seconds_p95), (Some(2.0), Some(10.0)));
        let scope = Scope {
            branch: Some("main".to_owned()),
            since: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(200)),
        };
        let some = Runs::of(&runs, &scope);
        assert_eq!((some.ended, some.seconds_p95), (2, Some(4.0)));
        assert_eq!(Runs::of(&[], &scope).seconds_p50, None);
    }

    #[test]
    fn few_trials_prove_little() {
        // Each end solves the score equation: (share - end)² = Z² end (1 - end) / trials.
        let rate = Rate::of(1, 10);
        assert!((rate.low - 0.017_876).abs() < 1e-5, "{rate:?}");
        assert!((rate.high - 0.404_150).abs() < 1e-5, "{rate:?}");
        let none = Rate::of(0, 10);
        assert!(none.low.abs() < 1e-12 && (none.high - 0.277_533).abs() < 1e-5);
    }

    #[test]
    fn what_is_surely_flaky_comes_before_what_was_so_once() {
        let test = |name: &str, flakes, runs| {
            Test::from(v1::TestHistory {
                test_id: name.to_owned(),
                flakes,
                runs,
                ..v1::TestHistory::default()
            })
        };
        let tests = [
            test("once", 1, 2),
            test("often", 40, 100),
            test("never", 0, 9),
        ];
        let names: Vec<_> = flakiest(&tests, 9).iter().map(|it| &it.test).collect();
        assert_eq!(names, ["often", "once"]);
    }

    proptest! {
        #[test]
        fn an_interval_holds_its_share(trials in 0..10_000u64, successes in 0..10_000u64) {
            let rate = Rate::of(successes.min(trials), trials);
            prop_assert!(0.0 <= rate.low && rate.high <= 1.0);
            prop_assert!(rate.low <= rate.share + 1e-12 && rate.share <= rate.high + 1e-12);
        }
    }
}
