//! Options of `regatta history`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use crate::config::parse_duration;

/// Options of `regatta history`.
#[derive(Clone, Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  regatta history\n  regatta history --branch main --since 7d\n  regatta history --by week --format csv\n  regatta history --format csv > tests.csv\n  \
    regatta history import --suite unit junit.xml .test_durations\n\n\
    Runs are the newest 1,000, in the period and of the branch that are asked for. The lead time ends with the\n    first run of a commit that had an answer. Tests are told of with all\n\
    that is known of them; with --branch or --since, as those runs alone show them, without what was imported.\n\
    FAILED and FLAKY count tests of runs. A test is flaky that passed when it was tried again (--retries); the interval is Wilson's."
)]
pub struct HistoryOptions {
    /// Something else than to show it.
    #[command(subcommand)]
    pub command: Option<HistoryCommand>,
    /// Only runs of this branch
    #[arg(long)]
    pub branch: Option<String>,
    /// Only runs that were submitted within so long, such as 12h or 7d; what the coordinator keeps no longer
    /// (`--keep-runs`) is not counted
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub since: Option<Duration>,
    /// Only tests of this suite
    #[arg(long, value_name = "JOB")]
    pub suite: Option<String>,
    /// Tell of the runs apart, by what they have in common
    #[arg(long, value_enum, value_name = "WHAT")]
    pub by: Option<Grouping>,
    /// How many tests to show as text
    #[arg(short = 'n', long, default_value_t = 10, value_name = "COUNT")]
    pub limit: usize,
    /// As text, as one JSON object, or every test as a line of CSV; with --by, every group of runs is a line
    #[arg(long, value_enum, default_value_t)]
    pub format: HistoryFormat,
}

/// What runs have in common.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Grouping {
    /// The branch.
    Branch,
    /// The day of their submission, in UTC.
    Day,
    /// The week of it, as ISO 8601 counts them.
    Week,
    /// The month of it.
    Month,
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

/// What to do with history besides showing it.
#[derive(Clone, Debug, Subcommand)]
pub enum HistoryCommand {
    /// Learn how long tests take from what other tools have measured
    Import(ImportOptions),
}

/// Options of `regatta history import`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Examples:\n  regatta history import --suite pytest .test_durations\n  regatta history import --suite unit --branch main reports/*.xml\n\n\
    Each file counts as a run of the suite. Test cases of JUnit XML are taken for those tests that the suite has run whose ids\n\
    are the class and the name joined by `::`, `.`, `/` or a space, or the name alone. Others get the ids that Regatta would\n\
    give them: pytest's, GoogleTest's and CTest's as these write them, else the class and the name joined by two colons."
)]
pub struct ImportOptions {
    /// JUnit XML, or a `.test_durations` file of pytest-split
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// The suite whose tests they are: the name of its job
    #[arg(long, value_name = "JOB")]
    pub suite: String,
    /// The image that they were measured in, as its job names it
    #[arg(long)]
    pub image: Option<String>,
    /// The branch that they were measured on
    #[arg(long)]
    pub branch: Option<String>,
}
