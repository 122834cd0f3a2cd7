//! The command line.

mod cas;
mod daemons;
mod global;
mod history;
mod verdict;
mod why;
mod work;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

pub use cas::{CacheOptions, CasCommand, CasOptions, Named};
pub use daemons::{
    AgentOptions, CoordinatorOptions, ListenOptions, RuntimeChoice, UpOptions, WorkOptions,
};
pub use global::{ColorChoice, GlobalOptions, LogFormat, MessageFormat, ProgressChoice};
pub use history::{Grouping, HistoryCommand, HistoryFormat, HistoryOptions, ImportOptions};
pub use verdict::{VerdictOptions, VerifyOptions};
pub use why::WhyOptions;
pub use work::{
    ExecOptions, FlakeOptions, JobOptions, ProjectKind, ReportArguments, RerunOptions, RunOptions,
    StopArguments, TestOptions,
};

/// Turns a pool of machines into one fast, trustworthy answer to "is this commit releasable?"
#[derive(Debug, Parser)]
#[command(
    name = "regatta",
    version,
    propagate_version = true,
    after_help = "Examples:\n  \
        regatta up                     a coordinator and an agent on this machine\n  \
        regatta test                   run this project's tests on the fleet\n  \
        regatta run                    run the jobs of regatta.toml\n  \
        regatta exec -- uname -a       run one command\n  \
        regatta doctor                 find out what is wrong\n\n\
        Exit codes: 0 good, 2 bad command line, 4 nothing selected, 96 bad configuration,\n\
        97 coordinator unreachable, 98 infrastructure, 99 local failure, 100 tests failed,\n\
        101 build failed, 130 cancelled"
)]
pub struct Options {
    /// For every command.
    #[command(flatten)]
    pub global: GlobalOptions,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a coordinator and an agent on this machine
    Up(UpOptions),
    /// Run a coordinator
    Coordinator(CoordinatorOptions),
    /// Run an agent
    Agent(AgentOptions),
    /// Run the jobs of regatta.toml
    Run(RunOptions),
    /// Run one test many times, to see how often it fails
    Flake(Box<FlakeOptions>),
    /// Run a run's jobs again, or what failed in it
    Rerun(RerunOptions),
    /// Run the tests of a Cargo workspace or a Go module, which are built here, or of a pytest, CMake or Jest project
    Test(Box<TestOptions>),
    /// Run one command on the fleet
    Exec(ExecOptions),
    /// Stop a run
    Cancel {
        /// The run, as `regatta ps` shows it, or the beginning of its id
        run: String,
    },
    /// List the runs
    Ps {
        /// Show the runs that have ended, too
        #[arg(short, long)]
        all: bool,
        /// How many at most
        #[arg(short = 'n', long, default_value_t = 50, value_name = "COUNT")]
        limit: u32,
        /// As a table, or as one JSON object a line
        #[arg(long, value_enum, default_value_t)]
        format: ListFormat,
    },
    /// Show what a run came to: its tests, and what jobs and failed tests printed
    #[command(
        after_help = "Examples:\n  regatta logs RUN\n  regatta logs RUN --all\n  regatta logs RUN build\n  regatta logs RUN my-crate tests::it_works"
    )]
    Logs {
        /// The run, as `regatta ps` shows it, or the beginning of its id
        run: String,
        /// One of its jobs
        job: Option<String>,
        /// One of the job's tests
        test: Option<String>,
        /// Show what every test printed, not only those that failed
        #[arg(short, long)]
        all: bool,
    },
    /// Say why a test ran or did not: which part of its key changed, by file
    Why(WhyOptions),
    /// Show how runs and tests have been: times, cached results, what is slow and what is flaky
    History(HistoryOptions),
    /// Say whether a commit is releasable, and what shows it
    #[command(
        after_help = "Examples:\n  regatta verdict\n  regatta verdict v1.2 --json\n  regatta verdict --output verdict.intoto.jsonl && regatta verify verdict.intoto.jsonl --key regatta.pub\n\nEnds with 0 (RELEASABLE), 1 (NOT_RELEASABLE) or 2 (UNKNOWN)."
    )]
    Verdict(VerdictOptions),
    /// Check a verdict's signature and statements, with nothing but its file and a key
    #[command(
        after_help = "Examples:\n  regatta keys > regatta.pub\n  regatta verify verdict.intoto.jsonl --key regatta.pub --commit \"$(git rev-parse HEAD)\""
    )]
    Verify(VerifyOptions),
    /// Print the key that verifies the coordinator's verdicts, or make one that signs
    #[command(
        after_help = "Examples:\n  regatta keys > regatta.pub\n  regatta keys --new verdict-key.pem   # for `regatta coordinator --verdict-key`"
    )]
    Keys {
        /// Make a new key in this file, and print the one that verifies
        #[arg(long, value_name = "FILE")]
        new: Option<PathBuf>,
    },
    /// Say how much is stored for whom, and whether it is whole
    #[command(
        after_help = "Examples:\n  regatta cas usage\n  regatta cas verify --json\n  regatta cas verify --repair   # after the coordinator was stopped"
    )]
    Cas(CasOptions),
    /// List the agents
    Agents {
        /// As a table, or as one JSON object a line
        #[arg(long, value_enum, default_value_t)]
        format: ListFormat,
    },
    /// Let an agent finish what it holds and give it nothing new
    Drain {
        /// The agent, as `regatta agents` shows it
        agent: String,
        /// Give it work again
        #[arg(long)]
        undo: bool,
    },
    /// Check this machine and the coordinator, and say how to fix what is wrong
    Doctor {
        /// The image that jobs will run in
        #[arg(long)]
        image: Option<String>,
    },
    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  regatta completions bash > /etc/bash_completion.d/regatta")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

impl Command {
    /// Whether it has a run carried out, which `--message-format json` tells of.
    #[must_use]
    pub const fn tells_of_a_run(&self) -> bool {
        matches!(
            self,
            Self::Run(_) | Self::Rerun(_) | Self::Flake(_) | Self::Test(_) | Self::Exec(_)
        )
    }
}

/// How a list is printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum ListFormat {
    /// Aligned columns.
    #[default]
    Table,
    /// One object a line.
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn what_people_type_is_understood() {
        for line in [
            "regatta up --slots 2 --runtime process --listen 127.0.0.1:0",
            "regatta coordinator --tenant-weight release=4 --tenant-weight =2",
            "regatta coordinator --tenant-property a/b:cpu=2 --tenant-property :chroot-input-root=true",
            "regatta test -p a --workspace --exclude b --no-fail-fast --retries 2 my::test other",
            "regatta test --release --junit x.xml --status-level all --timeout 30s",
            "regatta run build test --file x.toml --progress plain",
            "regatta history import --suite s --branch main a.xml .test_durations",
            "regatta run --plan --message-format json",
            "regatta test --plan -p a",
            "regatta exec --image i --input . --output a --output b --env A=1 --timeout 5m -- sh -c x",
            "regatta --coordinator grpc://h:1 ps --all --format json",
            "regatta logs r job test",
            "regatta logs r --all",
            "regatta drain a --undo",
            "regatta completions zsh",
            "regatta agent --label pool=a --label disk=ssd=fast --cpus 2.5 --memory 4GiB",
            "regatta agent --drain-timeout 10m --max-output-size 1GiB --max-log-size 1MiB",
            "regatta agent --http-listen 127.0.0.1:0",
            "regatta up --cache-size 20GiB --cache-free 5GiB",
            "regatta cas usage --json",
            "regatta cas verify --repair --state-dir x --storage s3://b/p",
        ] {
            if let Err(error) = Options::try_parse_from(line.split(' ')) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn the_help_says_who_aborts_what_a_killed_coordinator_leaves_in_a_bucket() {
        let help = Options::try_parse_from(["regatta", "coordinator", "--help"]);
        let help = help.expect_err("it is shown").to_string();
        let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains("are aborted by the next"), "{help}");
        assert!(!words.contains("bucket's own rules"), "{help}");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "regatta",
            "regatta exec",
            "regatta exec --env A -- x",
            "regatta test --fail-fast --no-fail-fast",
            "regatta test --timeout 5",
            "regatta run --list --plan",
            "regatta history import a.xml",
            "regatta history import --suite s",
            "regatta history --since 1d import --suite s a.xml",
            "regatta up --slots 0",
            "regatta agent --label pool",
            "regatta agent --label =x",
            "regatta agent --label cpu=4",
            "regatta agent --cpus 0",
            "regatta agent --memory 0",
            "regatta agent --memory much",
            "regatta agent --drain-timeout 5",
            "regatta agent --max-output-size 0",
            "regatta cas",
            "regatta cas usage --repair",
            "regatta coordinator --cache-size 0",
            "regatta coordinator --cache-size 200",
            "regatta coordinator --tenant-cache-size *=1000B",
            "regatta coordinator --tenant-cache-size release",
            "regatta coordinator --tenant-cache-age release=5",
            "regatta coordinator --tenant-weight release",
            "regatta coordinator --tenant-weight release=0",
            "regatta coordinator --tenant-property cpu=2",
            "regatta coordinator --tenant-property release:cpu",
            "regatta coordinator --tenant-property release:=2",
        ] {
            assert!(Options::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
