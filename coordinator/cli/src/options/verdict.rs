//! Options of commands about verdicts.

use std::path::PathBuf;

use clap::Args;

/// Options of `regatta verdict`.
#[derive(Clone, Debug, Args)]
pub struct VerdictOptions {
    /// The commit, as git knows it, or its whole id
    #[arg(default_value = "HEAD")]
    pub commit: String,
    /// What this run says, instead of the one that speaks for a commit
    #[arg(long, value_name = "RUN", conflicts_with = "commit")]
    pub run: Option<String>,
    /// List what was said of it before, and when; or say again, as it was said, the one whose bundle's digest begins
    /// like this
    #[arg(long, value_name = "BUNDLE", num_args = 0..=1, require_equals = true)]
    pub kept: Option<Option<String>>,
    /// If nothing is known of the commit, and it is checked out here: answer from what is cached of its regatta.toml's
    /// jobs, as a run that executes nothing
    #[arg(long, conflicts_with_all = ["run", "kept"])]
    pub if_cached: bool,
    /// Print the signed statements: an in-toto bundle
    #[arg(long)]
    pub json: bool,
    /// Write the signed statements to this file, too
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Options of `regatta verify`.
#[derive(Clone, Debug, Args)]
pub struct VerifyOptions {
    /// The file that `regatta verdict --output` wrote
    pub file: PathBuf,
    /// The file with the key that verifies, of `regatta keys`
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// The whole id of the commit that it must speak of
    #[arg(long, value_name = "ID")]
    pub commit: Option<String>,
    /// The regatta.toml whose `[policy]` it must have been given by: that of the commit
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// Files and directories that a build of it must have made, each to the byte
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub artefact: Vec<PathBuf>,
}
