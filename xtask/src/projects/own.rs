//! What the projects have in common, and what their own runners say.

use std::fmt;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

/// A project made ready: fetched, checked, built.
pub(super) trait Project {
    /// Its name and version.
    fn title(&self) -> String;
    /// Its own runner, with its version.
    fn runner(&self) -> &str;
    /// Runs all of its tests with its own runner; fails if one fails.
    fn own(&self) -> Result<Outcome>;
    /// The image that its tests run in on a fleet.
    fn image(&self) -> &str;
    /// What a user types to run them on a fleet, without options that say which fleet.
    fn on_fleet(&self, regatta: Command) -> Command;
    /// Has `regatta` forget what it keeps beside the project.
    fn forget(&self) -> Result<()> {
        Ok(())
    }
}

/// What a run by a project's own runner came to. Nothing failed in it.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) elapsed: Duration,
    pub(super) counts: Counts,
}

/// How many tests ended in each way.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) passed: u64,
    /// Those that are expected to fail, too: they say nothing of the project.
    pub(super) skipped: u64,
}

impl Counts {
    /// Understands a runner's last line: numbers, each before what it is a number of.
    pub(super) fn of_summary(summary: &str, skipped: &[&str]) -> Result<Self> {
        let words: Vec<_> = summary
            .split([' ', ','])
            .filter(|word| !word.is_empty())
            .collect();
        let number = |what: &str| {
            let mut pairs = words.windows(2);
            let pair = pairs.find(|pair| pair[1] == what && pair[0].parse::<u64>().is_ok());
            pair.and_then(|pair| pair[0].parse::<u64>().ok())
        };
        Ok(Self {
            passed: number("passed").with_context(|| format!("no tests passed: {summary:?}"))?,
            skipped: skipped.iter().filter_map(|what| number(what)).sum(),
        })
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} passed and {} skipped",
            self.passed, self.skipped
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(summary: &str, passed: u64, skipped: u64) {
        let counts = Counts::of_summary(summary, &["skipped", "xfailed"]).unwrap();
        assert_eq!(counts, Counts { passed, skipped }, "{summary}");
    }

    #[test]
    fn summaries_are_understood() {
        check(
            "     Summary [  20.077s] 409 tests run: 409 passed, 0 skipped",
            409,
            0,
        );
        check(
            "Summary [1.0s] 9 tests run: 9 passed (2 slow), 3 skipped",
            9,
            3,
        );
        check("1231 passed, 9 skipped, 1 xfailed in 21.97s", 1231, 10);
        check("====== 2 passed in 0.01s ======", 2, 0);
        assert!(Counts::of_summary("no tests ran in 0.01s", &[]).is_err());
    }
}
