//! Options of `regatta history`.

use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::config::parse_duration;

/// Options of `regatta history`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Examples:\n  regatta history\n  regatta history --branch main --since 7d\n  regatta history --format csv > tests.csv\n\n\
    Runs are the newest 1,000, in the period and of the branch that are asked for. Tests are told of with all\n\
    that is known of them, whatever the branch. A test is flaky that passed when it was tried again (--retries); the interval is Wilson's."
)]
pub struct HistoryOptions {
    /// Only runs of this branch
    #[arg(long)]
    pub branch: Option<String>,
    /// Only runs that were submitted within so long, such as 12h or 7d
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub since: Option<Duration>,
    /// Only tests of this suite
    #[arg(long, value_name = "JOB")]
    pub suite: Option<String>,
    /// How many tests to show as text
    #[arg(short = 'n', long, default_value_t = 10, value_name = "COUNT")]
    pub limit: usize,
    /// As text, as one JSON object, or every test as a line of CSV
    #[arg(long, value_enum, default_value_t)]
    pub format: HistoryFormat,
}

/// How history is printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum HistoryFormat {
    /// For people.
    #[default]
    Text,
    /// Everything.
    Json,
    /// Tests.
    Csv,
}
