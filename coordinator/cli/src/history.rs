//! What runs and tests have been like, in figures. Pure.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, SystemTime};

use regatta_wire::convert::{duration_from_wire, timestamp_from_wire};
use regatta_wire::v1;
use serde::Serialize;

use crate::options::Grouping;

/// The quantile of the normal distribution for an interval of 95 %.
const Z: f64 = 1.959_964;

/// Which runs count.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
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
    /// From the commit to the end of its first run with an answer.
    pub(crate) lead_seconds_p50: Option<f64>,
    pub(crate) lead_seconds_p95: Option<f64>,
    /// What the leases of a run waited for their slots, together.
    pub(crate) queued_seconds_p50: Option<f64>,
    pub(crate) queued_seconds_p95: Option<f64>,
    /// What they worked, together.
    pub(crate) worked_seconds_p50: Option<f64>,
    pub(crate) worked_seconds_p95: Option<f64>,
    /// The same of all runs.
    pub(crate) queued_seconds: f64,
    pub(crate) worked_seconds: f64,
    /// The tests that they planned and did not skip.
    pub(crate) tests: u64,
    /// Those of them whose results were known.
    pub(crate) cached: u64,
    /// Those that did not pass, without those in quarantine, and those that passed only when they were tried again.
    pub(crate) failed: u64,
    pub(crate) flaky: u64,
}

/// Runs that have something in common.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Group {
    /// What.
    pub(crate) name: String,
    #[serde(flatten)]
    pub(crate) runs: Runs,
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
        Self::together(&ended, &first_answers(runs))
    }

    /// `first` are the runs that end their commits' lead times.
    fn together(ended: &[&v1::RunSummary], first: &HashSet<&str>) -> Self {
        let with = |verdict| ended.iter().filter(|run| run.verdict() == verdict).count();
        let (releasable, not_releasable) = (
            with(v1::Verdict::Releasable),
            with(v1::Verdict::NotReleasable),
        );
        let all = || ended.iter().copied();
        let leading = all().filter(|run| first.contains(run.run_id.as_str()));
        let (leads, times) = (Times::of(leading, lead_time), Times::of(all(), time_of));
        let queued = Times::of(all(), |run| leased(run, |times| times.queued));
        let worked = Times::of(all(), |run| leased(run, |times| times.worked));
        let sum = |count: fn(&v1::Counts) -> u32| {
            let counts = ended.iter().filter_map(|run| run.counts.as_ref());
            counts.map(|counts| u64::from(count(counts))).sum::<u64>()
        };
        Self {
            ended: ended.len(),
            releasable,
            not_releasable,
            unknown: ended.len() - releasable - not_releasable,
            seconds_p50: times.percentile(50),
            seconds_p95: times.percentile(95),
            lead_seconds_p50: leads.percentile(50),
            lead_seconds_p95: leads.percentile(95),
            queued_seconds_p50: queued.percentile(50),
            queued_seconds_p95: queued.percentile(95),
            worked_seconds_p50: worked.percentile(50),
            worked_seconds_p95: worked.percentile(95),
            queued_seconds: queued.sum(),
            worked_seconds: worked.sum(),
            tests: sum(|counts| counts.planned.saturating_sub(counts.skipped)),
            cached: sum(|counts| counts.cached),
            failed: sum(|counts| counts.failed),
            flaky: sum(|counts| counts.flaky),
        }
    }
}

/// Those of `runs` that have ended and are in scope, apart by what they have in common.
pub(crate) fn groups(runs: &[v1::RunSummary], scope: &Scope, by: Grouping) -> Vec<Group> {
    let first = first_answers(runs);
    let mut groups: BTreeMap<String, Vec<&v1::RunSummary>> = BTreeMap::new();
    for run in runs.iter().filter(|run| scope.has(run)) {
        groups.entry(group_of(run, by)).or_default().push(run);
    }
    let group = |(name, runs): (String, Vec<_>)| Group {
        name,
        runs: Runs::together(&runs, &first),
    };
    groups.into_iter().map(group).collect()
}

fn group_of(run: &v1::RunSummary, by: Grouping) -> String {
    let submitted = run.submitted_at.as_ref();
    let submitted = submitted.and_then(|at| jiff::Timestamp::new(at.seconds, at.nanos).ok());
    let day = jiff::tz::Offset::UTC
        .to_datetime(submitted.unwrap_or_default())
        .date();
    match by {
        Grouping::Branch => run.branch.clone(),
        Grouping::Day => day.to_string(),
        Grouping::Week => {
            let week = day.iso_week_date();
            format!("{:04}-W{:02}", week.year(), week.week())
        }
        Grouping::Month => format!("{:04}-{:02}", day.year(), day.month()),
    }
}

/// The first run of each commit that had an answer, by id.
fn first_answers(runs: &[v1::RunSummary]) -> HashSet<&str> {
    let mut first: BTreeMap<&str, (SystemTime, &str)> = BTreeMap::new();
    for run in runs {
        let finished = run.finished_at.as_ref().and_then(system_time);
        let is_answer = matches!(
            run.verdict(),
            v1::Verdict::Releasable | v1::Verdict::NotReleasable
        );
        // Files that are not the commit's say nothing of it, and have no such time.
        let Some(finished) = finished.filter(|_| is_answer && run.committed_at.is_some()) else {
            continue;
        };
        let this = (finished, run.run_id.as_str());
        let known = first.entry(run.commit.as_str()).or_insert(this);
        *known = this.min(*known);
    }
    first.into_values().map(|(_, run)| run).collect()
}

/// Times of runs, the shortest first.
struct Times(Vec<Duration>);

impl Times {
    fn of<'a>(
        runs: impl Iterator<Item = &'a v1::RunSummary>,
        time: impl FnMut(&'a v1::RunSummary) -> Option<Duration>,
    ) -> Self {
        let mut times: Vec<_> = runs.filter_map(time).collect();
        times.sort();
        Self(times)
    }

    /// By the nearest rank, in seconds.
    fn percentile(&self, percent: usize) -> Option<f64> {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0.get(rank - 1).map(Duration::as_secs_f64)
    }

    fn sum(&self) -> f64 {
        self.0.iter().map(Duration::as_secs_f64).sum()
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
    // If a clock was set meanwhile, the times say something else.
    leased(run, |times| times.took)
        .or_else(|| between(run.submitted_at.as_ref(), run.finished_at.as_ref()))
}

fn lead_time(run: &v1::RunSummary) -> Option<Duration> {
    between(run.committed_at.as_ref(), run.finished_at.as_ref())
}

fn between(
    from: Option<&prost_types::Timestamp>,
    to: Option<&prost_types::Timestamp>,
) -> Option<Duration> {
    system_time(to?)?.duration_since(system_time(from?)?).ok()
}

/// What a run or its leases took, if that is known.
fn leased(
    run: &v1::RunSummary,
    part: impl Fn(&v1::RunTimes) -> Option<prost_types::Duration>,
) -> Option<Duration> {
    duration_from_wire(&part(run.times.as_ref()?)?).ok()
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
                failed: 3,
                flaky: 1,
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
        assert_eq!((all.failed, all.flaky), (12, 4));
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
    fn a_commits_lead_time_ends_with_its_first_answer() {
        use v1::Verdict::{NotReleasable, Releasable, Unknown};
        let of = |id: &str, commit: &str, committed: i64, to, verdict| v1::RunSummary {
            run_id: id.to_owned(),
            commit: commit.to_owned(),
            committed_at: (committed > 0).then_some(prost_types::Timestamp {
                seconds: committed,
                nanos: 0,
            }),
            ..run("main", 90, to, verdict)
        };
        let runs = [
            of("4", "a", 50, 300, Releasable),
            of("3", "a", 50, 120, NotReleasable),
            of("2", "a", 50, 110, Unknown),
            of("1", "b", 95, 100, Releasable),
            // Its files were others.
            of("0", "b", 0, 99, Releasable),
        ];
        let all = Runs::of(&runs, &Scope::default());
        assert_eq!(
            (all.lead_seconds_p50, all.lead_seconds_p95),
            (Some(5.0), Some(70.0))
        );
        assert_eq!(
            Runs::of(&runs[..1], &Scope::default()).lead_seconds_p50,
            Some(250.0)
        );
        assert_eq!(
            Runs::of(&runs[4..], &Scope::default()).lead_seconds_p50,
            None
        );
    }

    #[test]
    fn runs_are_told_of_apart() {
        let day = 24 * 60 * 60;
        let seconds = |seconds| {
            let nanos = 500_000_000;
            Some(prost_types::Duration { seconds, nanos })
        };
        let times = |mut run: v1::RunSummary, queued, worked| {
            run.times = Some(v1::RunTimes {
                queued: seconds(queued),
                worked: seconds(worked),
                took: None,
            });
            run
        };
        let good = v1::Verdict::Releasable;
        let mut runs = [
            times(run("b", 40 * day, 40 * day + 9, good), 3, 4),
            times(run("a", day, day + 2, good), 1, 2),
            times(run("a", 10, 20, good), 0, 7),
            // Of an earlier release, and one that goes on.
            run("a", 12, 13, good),
            run("a", 14, 0, good),
        ];
        // A clock was set while it went on.
        runs[0].times.as_mut().expect("has them").took = seconds(1);
        let named = |by| {
            let groups = groups(&runs, &Scope::default(), by).into_iter();
            let named = groups.map(|it| (it.name, it.runs.ended));
            named.collect::<Vec<_>>()
        };
        let expect = |names: &[(&str, usize)]| {
            let names = names
                .iter()
                .map(|(name, ended)| ((*name).to_owned(), *ended));
            names.collect::<Vec<_>>()
        };
        assert_eq!(named(Grouping::Branch), expect(&[("a", 3), ("b", 1)]));
        let days = [("1970-01-01", 2), ("1970-01-02", 1), ("1970-02-10", 1)];
        assert_eq!(named(Grouping::Day), expect(&days));
        assert_eq!(
            named(Grouping::Week),
            expect(&[("1970-W01", 3), ("1970-W07", 1)])
        );
        assert_eq!(
            named(Grouping::Month),
            expect(&[("1970-01", 3), ("1970-02", 1)])
        );
        let apart = groups(&runs, &Scope::default(), Grouping::Branch);
        let (first, second) = (&apart[0].runs, &apart[1].runs);
        assert_eq!(second.seconds_p50, Some(1.5));
        assert_eq!((first.queued_seconds, first.worked_seconds), (2.0, 10.0));
        assert_eq!(
            (first.worked_seconds_p50, first.worked_seconds_p95),
            (Some(2.5), Some(7.5))
        );
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
