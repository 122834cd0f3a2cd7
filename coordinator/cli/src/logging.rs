//! Log lines, on standard error.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

use crate::options::{GlobalOptions, LogFormat};

/// Chooses in detail what is logged, as `tracing_subscriber` reads it.
const VARIABLE: &str = "REGATTA_LOG";

/// What a command logs unless it is told otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verbosity {
    /// Warnings: for commands that end.
    Command,
    /// What happens: for commands that stay.
    Daemon,
}

/// Sets up logging for this process; the first call wins.
pub fn set_up(options: &GlobalOptions, verbosity: Verbosity) {
    let level = match (verbosity, options.verbose) {
        (Verbosity::Command, 0) => LevelFilter::WARN,
        (Verbosity::Command, 1) | (Verbosity::Daemon, 0) => LevelFilter::INFO,
        (Verbosity::Command, 2) | (Verbosity::Daemon, 1) => LevelFilter::DEBUG,
        (Verbosity::Command | Verbosity::Daemon, _) => LevelFilter::TRACE,
    };
    let filter = EnvFilter::builder()
        .with_default_directive(level.into())
        .with_env_var(VARIABLE)
        .from_env_lossy();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(options.paint_errors() == crate::watch::Paint::Coloured);
    let set = match options.log_format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.with_target(false).try_init(),
    };
    // Somebody who embeds this has set up logging already.
    drop(set);
}
