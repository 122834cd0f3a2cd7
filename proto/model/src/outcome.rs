//! How work ends, in the words that people and machines read.

use std::fmt;

/// Why something failed (design, decision D9).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum FailureClass {
    /// The command ran and said no.
    Test,
    /// The command ran longer than it was allowed to.
    Timeout,
    /// The kernel stopped the command for using more memory than it was allowed to.
    Oom,
    /// The machine, the container engine or the network failed; the command was not to blame.
    Infra,
    /// Somebody asked for it to stop.
    Cancelled,
}

/// How one planned test ended. Planned = the sum of these, always (design, decision D8).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum TestStatus {
    /// It ran and passed.
    Passed,
    /// It did not run because a pass with the same key is known.
    Cached,
    /// It failed at first and passed when it was tried again.
    Flaky,
    /// It did not run because its suite says so.
    Skipped,
    /// It did not pass.
    Failed(FailureClass),
}

/// The answer to "is this commit releasable?"
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Verdict {
    /// Every required check passed.
    Releasable,
    /// A required check failed.
    NotReleasable,
    /// A required check could not be answered.
    Unknown,
}

impl fmt::Display for FailureClass {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Test => "test",
            Self::Timeout => "timeout",
            Self::Oom => "oom",
            Self::Infra => "infra",
            Self::Cancelled => "cancelled",
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Releasable => "RELEASABLE",
            Self::NotReleasable => "NOT_RELEASABLE",
            Self::Unknown => "UNKNOWN",
        })
    }
}
