//! What one run came to, read from what `regatta` prints with `--message-format json`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::demo::read;

/// The lines of the NDJSON that chores read; they skip the others.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
enum Line {
    Test {
        job: String,
        test: String,
        status: String,
        /// In seconds.
        duration: f64,
        agent: Option<String>,
    },
    RunFinished {
        verdict: String,
        counts: Counts,
        leases: u64,
    },
    Error {
        message: String,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize, Default)]
struct Counts {
    planned: u64,
    passed: u64,
    flaky: u64,
    failed: u64,
    cached: u64,
    skipped: u64,
    not_run: u64,
    #[serde(default)]
    quarantined: u64,
}

/// A run's figures.
pub(crate) struct Report {
    pub(crate) verdict: String,
    pub(crate) leases: u64,
    counts: Counts,
    /// How many tests each agent ran.
    by_agent: BTreeMap<String, u64>,
    /// The tests whose result was told, each with its job.
    told: BTreeSet<(String, String)>,
    /// The jobs of which a test ran.
    jobs_run: BTreeSet<String>,
    elapsed: Duration,
    /// How long each test took that ran.
    durations: Vec<Duration>,
}

impl Report {
    /// Reads the events of a run that took `elapsed`, building included.
    pub(crate) fn read(events: &str, elapsed: Duration) -> Result<Self> {
        let mut report = Self {
            verdict: String::new(),
            leases: 0,
            counts: Counts::default(),
            by_agent: BTreeMap::new(),
            told: BTreeSet::new(),
            jobs_run: BTreeSet::new(),
            elapsed,
            durations: Vec::new(),
        };
        for line in events.lines() {
            let line = serde_json::from_str(line).with_context(|| format!("reading {line:?}"))?;
            report.take(line)?;
        }
        ensure!(
            !report.verdict.is_empty(),
            "the run ended without a verdict"
        );
        report.adds_up()?;
        Ok(report)
    }

    fn take(&mut self, line: Line) -> Result<()> {
        match line {
            Line::Test {
                job,
                test,
                status,
                duration,
                agent,
            } => {
                let is_new = self.told.insert((job.clone(), test.clone()));
                ensure!(is_new, "{job} {test} was counted twice");
                if matches!(status.as_str(), "passed" | "flaky" | "failed") {
                    self.jobs_run.insert(job);
                    let duration = Duration::try_from_secs_f64(duration);
                    self.durations
                        .push(duration.context("how long a test took")?);
                    *self.by_agent.entry(agent.unwrap_or_default()).or_default() += 1;
                }
            }
            Line::RunFinished {
                verdict,
                counts,
                leases,
            } => {
                (self.verdict, self.counts, self.leases) = (verdict, counts, leases);
            }
            Line::Error { message } => anyhow::bail!(message),
            Line::Other => {}
        }
        Ok(())
    }

    /// The counts add up, and every executed test was reported once.
    fn adds_up(&self) -> Result<()> {
        let it = &self.counts;
        let parts =
            it.passed + it.flaky + it.failed + it.cached + it.skipped + it.not_run + it.quarantined;
        ensure!(
            it.planned == parts,
            "{} tests planned, {parts} accounted for",
            it.planned
        );
        let told = self.told.len() as u64;
        ensure!(
            it.planned == told,
            "{} tests planned, {told} told",
            it.planned
        );
        let reported: u64 = self.by_agent.values().sum();
        ensure!(
            reported == self.executed(),
            "{} tests executed, {reported} reported",
            self.executed()
        );
        Ok(())
    }

    /// How many tests the run had.
    pub(crate) fn planned(&self) -> u64 {
        self.counts.planned
    }

    /// How many tests ran.
    pub(crate) fn executed(&self) -> u64 {
        self.counts.passed + self.counts.flaky + self.counts.failed
    }

    /// How many tests passed, at once.
    pub(crate) fn passed(&self) -> u64 {
        self.counts.passed
    }

    /// How many tests their runner skipped.
    pub(crate) fn skipped(&self) -> u64 {
        self.counts.skipped
    }

    /// How long the run took, from the command's start to its end.
    pub(crate) fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// In less time than this, nobody could have run the tests that ran: the longest of them, or their
    /// equal parts for each slot.
    pub(crate) fn lower_bound(&self, slots: usize) -> Duration {
        let all: Duration = self.durations.iter().sum();
        let longest = self.durations.iter().max().copied().unwrap_or_default();
        longest.max(all.div_f64(slots as f64))
    }

    /// How many agents ran a test.
    pub(crate) fn agents_used(&self) -> usize {
        self.by_agent.len()
    }

    /// The packages of which a test ran: what stands before `::` in a job's name.
    pub(crate) fn packages_run(&self) -> BTreeSet<String> {
        let package = |job: &String| job.split("::").next().unwrap_or(job).to_owned();
        self.jobs_run.iter().map(package).collect()
    }

    /// The JUnit file has a test case for every planned test.
    pub(crate) fn agrees_with_junit(&self, junit: &Path) -> Result<()> {
        let cases = read(junit)?.matches("<testcase ").count() as u64;
        ensure!(
            cases == self.planned(),
            "JUnit has {cases} test cases of {}",
            self.planned()
        );
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (executed, cached) = (self.executed(), self.counts.cached);
        write!(formatter, "{} in {:.1?}: ", self.verdict, self.elapsed)?;
        write!(
            formatter,
            "{executed} tests executed, {cached} from the cache"
        )?;
        let shares: Vec<_> = self
            .by_agent
            .iter()
            .map(|(agent, tests)| format!("{agent}: {tests}"))
            .collect();
        if !shares.is_empty() {
            write!(formatter, " ({})", shares.join(", "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: &str = r#"{"type":"hello","version":1}
{"type":"test","job":"a::x","test":"one","status":"passed","duration":0.5,"agent":"left"}
{"type":"test","job":"b","test":"two","status":"cached","duration":0.0}
"#;

    fn finished(passed: u64) -> String {
        format!(
            r#"{RUN}{{"type":"run-finished","verdict":"RELEASABLE","leases":1,"counts":{{"planned":2,"passed":{passed},"flaky":0,"failed":0,"cached":1,"skipped":0,"not_run":0}}}}"#
        )
    }

    #[test]
    fn a_run_that_adds_up_is_read() {
        let report = Report::read(&finished(1), Duration::ZERO).unwrap();
        assert_eq!(report.packages_run(), BTreeSet::from(["a".to_owned()]));
        assert_eq!((report.planned(), report.executed()), (2, 1));
        assert_eq!((report.passed(), report.skipped()), (1, 0));
    }

    #[test]
    fn no_run_is_shorter_than_its_longest_test_or_a_slots_part() {
        let mut report = Report::read(&finished(1), Duration::ZERO).unwrap();
        let seconds = Duration::from_secs;
        report.durations = vec![seconds(1), seconds(4), seconds(3)];
        assert_eq!(report.lower_bound(1), seconds(8));
        assert_eq!(report.lower_bound(2), seconds(4));
        assert_eq!(report.lower_bound(4), seconds(4));
    }

    #[test]
    fn a_run_that_does_not_is_not() {
        let twice = finished(1)
            .replacen("two", "one", 1)
            .replacen(r#""b""#, r#""a::x""#, 1);
        assert!(Report::read(&twice, Duration::ZERO).is_err());
        assert!(Report::read(&finished(2), Duration::ZERO).is_err());
        assert!(Report::read(RUN, Duration::ZERO).is_err());
    }
}
