//! `regatta.toml`: the jobs of a repository.
//!
//! ```toml
//! [policy]                   # what a release requires, of which this file's commit has the last word
//! required = ["build", "test"]   # all jobs if it does not say
//! max_flaky = 3              # any number if it does not say
//! max_quarantined = 1
//!
//! [defaults]                 # for every job that does not say otherwise
//! image = "debian:stable-slim"
//! timeout = "10m"
//!
//! [jobs.build]
//! inputs = ["src/**", "Makefile", "!src/scratch/**"]
//! run = "make -j2"           # a script for `sh -ceu`, or a list of arguments
//! outputs = ["bin/tool"]
//! resources = { cpu = 2, memory = "2GiB" }
//!
//! [jobs.test]
//! needs = ["build"]          # its outputs are laid into this job's inputs
//! inputs = ["tests/**"]
//! retry = 1
//! [jobs.test.suite]
//! discover = "./tests/list"  # prints one test id a line
//! run = './tests/run "$@"'   # is given @FILE with the ids to run, and writes JUnit
//! junit = "junit.xml"
//! worker = "./tests/worker"  # may do both, started once for many batches: Bazel's persistent worker, in JSON
//! duplicate = false            # no test in two places at once, however late it is
//! [[jobs.test.suite.quarantine]]   # its failures do not count until the day is over
//! test = "parses_dates"
//! owner = "jane@example.org"
//! expires = 2030-12-31
//! reason = "waits for the new calendar"
//!
//! [jobs.python]
//! inputs = ["**"]
//! suite = { adapter = "pytest" }   # needs no more, nor do `ctest` and `jest`; `go`, `googletest`,
//!                                  # `libtest` and `bazel-sharding` need `run`
//! ```
//!
//! Every key is checked: an unknown one, or a value of another type, is an error that names the file,
//! the line and the column.

mod action;
mod error;
mod pipeline;
mod policy;
mod quantity;
mod quarantine;
mod read;
mod section;

pub use error::{ConfigError, ConfigProblem, Position};
pub use pipeline::{InputPattern, JobAction, JobConfig, Pipeline, SuiteAdapter, SuiteConfig};
pub use quantity::{ParseQuantityError, parse_cpus, parse_duration, parse_size};
pub use quarantine::QuarantinedTest;
pub use read::{FILES, find, load, parse, root_of};
