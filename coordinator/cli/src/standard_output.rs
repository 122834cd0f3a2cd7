//! The command's standard output.
//!
//! Whoever reads it may have read enough, as `head` has. The command then ends without a word, as programs do that do not
//! look at what becomes of their output. Any other pipe or connection that breaks is an error like all others: so it is
//! said of this one where it is written to.

use std::io::{self, ErrorKind, IsTerminal as _, Write};

/// Nobody reads the command's standard output any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nobody reads the standard output any more")]
pub struct OutputUnread;

/// Writes to the standard output, and marks the error that tells that nobody reads it.
#[derive(Debug)]
pub struct StandardOutput(io::Stdout);

/// The standard output of this process.
#[must_use]
pub fn standard_output() -> StandardOutput {
    StandardOutput(io::stdout())
}

impl StandardOutput {
    /// Whether it is shown to somebody.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        self.0.is_terminal()
    }
}

impl Write for StandardOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(marked)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(marked)
    }
}

fn marked(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::BrokenPipe => io::Error::new(ErrorKind::BrokenPipe, OutputUnread),
        _ => error,
    }
}

/// Whether an error tells that nobody reads the standard output, and nothing else.
#[must_use]
pub fn is_unread(error: &anyhow::Error) -> bool {
    let mut causes = error
        .chain()
        .filter_map(|it| it.downcast_ref::<io::Error>());
    causes.any(|cause| cause.get_ref().is_some_and(|it| it.is::<OutputUnread>()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit_code::{ExitCode, OrExit as _};
    use crate::session::watch_failure;
    use crate::watch::WatchError;

    #[test]
    fn a_pipe_that_breaks_is_told_of_unless_it_is_the_standard_output() {
        let broken = || io::Error::from(ErrorKind::BrokenPipe);
        for (error, expected) in [
            (marked(broken()), true),
            (marked(io::Error::from(ErrorKind::StorageFull)), false),
            (broken(), false),
        ] {
            let shown = error.to_string();
            let copy = match expected {
                true => marked(broken()),
                false => io::Error::from(error.kind()),
            };
            let failure = Err::<(), _>(error).or_exit(ExitCode::Local);
            assert_eq!(
                is_unread(&failure.expect_err("it failed").error),
                expected,
                "{shown}"
            );
            let watching = watch_failure("r", WatchError::Report(copy));
            assert_eq!(is_unread(&watching.error), expected, "{shown}");
        }
    }
}
