//! The exit codes of `regatta`: an interface for scripts.
//!
//! | code | meaning |
//! | --- | --- |
//! | 0 | good: every test passed, every job succeeded |
//! | 2 | the command line makes no sense |
//! | 4 | no test or job was selected |
//! | 96 | bad configuration: `regatta.toml` or an option's value; nothing was started |
//! | 97 | the coordinator cannot be reached |
//! | 98 | infrastructure: no answer could be had (verdict UNKNOWN), for want of the image, say; nothing is known to be wrong with the code |
//! | 99 | something failed on this machine: a port in use, an unreadable file, a missing program |
//! | 100 | a test failed, or a suite as a whole |
//! | 101 | the build failed: cargo's here, or a build job of `regatta run` while no suite failed |
//! | 130 | cancelled |
//! | 141 | whoever read the standard output has closed it, as `head` does: nothing else is wrong, and nothing is said |
//!
//! `regatta verdict` ends with 0, 1 or 2 if the commit is RELEASABLE, NOT_RELEASABLE or of an UNKNOWN state, and with 96
//! if its command line makes no sense; `regatta verify` ends with 1 if the file cannot be believed. The other codes from
//! 96 to 99 mean the above.
//!
//! `regatta cas verify` ends with 1 if something that is stored is wrong and was not repaired; the codes 96 to 99
//! mean the above.
//!
//! `regatta exec` ends with the code of its command, 124 if that ran too long, 137 if it was killed for
//! want of memory and 100 if it made no such output; the codes 96 to 99, 130 and 141 mean the above.

use std::fmt;

use crate::config::ConfigError;

/// How the process ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExitCode {
    /// Everything asked for was done and is good.
    Good,
    /// The commit that was asked for is not releasable, or what is said of it, or stored, cannot be believed.
    NotReleasable,
    /// Nobody knows whether the commit that was asked for is releasable.
    Unknown,
    /// The command line makes no sense.
    Misunderstood,
    /// Nothing matched what was asked for.
    NothingSelected,
    /// The configuration cannot be used.
    BadConfiguration,
    /// The coordinator does not answer.
    CoordinatorUnreachable,
    /// The fleet could not tell.
    Infrastructure,
    /// This machine could not do its part.
    Local,
    /// A test or a job failed.
    TestsFailed,
    /// The build failed.
    BuildFailed,
    /// Somebody stopped it.
    Cancelled,
    /// The code of the command that `exec` ran.
    Command(u8),
}

impl ExitCode {
    /// What `exec` ends with when its command ran too long, as `timeout` does.
    pub const TIMED_OUT: Self = Self::Command(124);
    /// What `exec` ends with when its command was killed for want of memory, as a shell does.
    pub const OUT_OF_MEMORY: Self = Self::Command(137);
    /// What a command ends with whose standard output nobody reads any more: as a shell says of programs that SIGPIPE ends.
    pub const OUTPUT_UNREAD: Self = Self::Command(141);

    /// The number the shell sees.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Good => 0,
            Self::NotReleasable => 1,
            Self::Unknown | Self::Misunderstood => 2,
            Self::NothingSelected => 4,
            Self::BadConfiguration => 96,
            Self::CoordinatorUnreachable => 97,
            Self::Infrastructure => 98,
            Self::Local => 99,
            Self::TestsFailed => 100,
            Self::BuildFailed => 101,
            Self::Cancelled => 130,
            Self::Command(code) => code,
        }
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code.number())
    }
}

/// Why a command could not do what it was asked to, and what the process ends with.
#[derive(Debug)]
pub struct Failure {
    /// What the process ends with.
    pub code: ExitCode,
    /// What happened, where, and what to do.
    pub error: anyhow::Error,
}

impl Failure {
    /// A failure that is told in one sentence.
    pub fn new(code: ExitCode, message: impl fmt::Display) -> Self {
        Self {
            code,
            error: anyhow::anyhow!("{message}"),
        }
    }
}

impl fmt::Display for Failure {
    /// The error and its causes on one line.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:#}", self.error)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self {
            code: ExitCode::BadConfiguration,
            error: error.into(),
        }
    }
}

/// Says what the process ends with if something fails.
pub trait OrExit<T> {
    /// Ends with `code` if this is an error.
    ///
    /// # Errors
    /// This error, with its exit code.
    fn or_exit(self, code: ExitCode) -> Result<T, Failure>;
}

impl<T, E: Into<anyhow::Error>> OrExit<T> for Result<T, E> {
    fn or_exit(self, code: ExitCode) -> Result<T, Failure> {
        self.map_err(|error| Failure {
            code,
            error: error.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_endings_share_a_number() {
        use ExitCode::*;
        let codes = [
            Good,
            NothingSelected,
            BadConfiguration,
            CoordinatorUnreachable,
            Infrastructure,
            Local,
            TestsFailed,
            BuildFailed,
            Cancelled,
        ];
        let numbers: std::collections::BTreeSet<_> = codes.map(ExitCode::number).into();
        assert_eq!(numbers.len(), codes.len());
        assert_eq!(
            numbers.into_iter().collect::<Vec<_>>(),
            [0, 4, 96, 97, 98, 99, 100, 101, 130]
        );
    }

    #[test]
    fn bad_configuration_has_its_own_code() {
        let error = crate::config::parse("x = 1", "regatta.toml".as_ref(), ".".as_ref());
        let failure = Failure::from(error.expect_err("x is unknown"));
        assert_eq!(failure.code, ExitCode::BadConfiguration);
        assert!(
            failure
                .to_string()
                .starts_with("regatta.toml:1:1: unknown key `x`")
        );
    }
}
