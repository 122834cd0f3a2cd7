//! Tests by how they ended.

use regatta_wire::v1;
use serde::{Deserialize, Serialize};

/// Tests by how they ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// All of them.
    pub planned: u32,
    /// Ran and passed.
    pub passed: u32,
    /// Failed, then passed.
    pub flaky: u32,
    /// Did not pass.
    pub failed: u32,
    /// Were known to pass.
    pub cached: u32,
    /// Their suite says not to run them.
    pub skipped: u32,
    /// Were not reached.
    pub not_run: u32,
    /// Failed, which did not count.
    #[serde(default)]
    pub quarantined: u32,
}

impl Counts {
    /// Whether every planned test is accounted for.
    #[must_use]
    pub fn add_up(&self) -> bool {
        let ended = [
            self.passed,
            self.flaky,
            self.failed,
            self.cached,
            self.skipped,
            self.not_run,
            self.quarantined,
        ];
        ended.into_iter().map(u64::from).sum::<u64>() == u64::from(self.planned)
    }

    pub(crate) fn of(status: v1::TestStatus) -> Self {
        let mut counts = Self {
            planned: 1,
            ..Self::default()
        };
        *match status {
            v1::TestStatus::Passed => &mut counts.passed,
            v1::TestStatus::Flaky => &mut counts.flaky,
            v1::TestStatus::Cached => &mut counts.cached,
            v1::TestStatus::Skipped => &mut counts.skipped,
            v1::TestStatus::NotRun => &mut counts.not_run,
            v1::TestStatus::Quarantined => &mut counts.quarantined,
            v1::TestStatus::Failed | v1::TestStatus::Unspecified => &mut counts.failed,
        } = 1;
        counts
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            planned: self.planned.saturating_add(other.planned),
            passed: self.passed.saturating_add(other.passed),
            flaky: self.flaky.saturating_add(other.flaky),
            failed: self.failed.saturating_add(other.failed),
            cached: self.cached.saturating_add(other.cached),
            skipped: self.skipped.saturating_add(other.skipped),
            not_run: self.not_run.saturating_add(other.not_run),
            quarantined: self.quarantined.saturating_add(other.quarantined),
        }
    }
}

impl From<v1::Counts> for Counts {
    fn from(counts: v1::Counts) -> Self {
        Self {
            planned: counts.planned,
            passed: counts.passed,
            flaky: counts.flaky,
            failed: counts.failed,
            cached: counts.cached,
            skipped: counts.skipped,
            not_run: counts.not_run,
            quarantined: counts.quarantined,
        }
    }
}
