//! The `regatta` command against the real Docker daemon: a coordinator and agents as processes, jobs in
//! containers. `cargo xtask test` turns these on (feature `docker-tests`) and provides the image.

#![expect(
    clippy::print_stderr,
    reason = "a failed test shows the logs of its fleet"
)]

mod agent;
mod bad_input;
mod engine;
mod exec;
mod faults;
mod flake;
#[path = "../fixture/fleet.rs"]
#[expect(dead_code, reason = "these tests need a part of the fixture")]
mod fleet;
mod history;
mod images;
mod moved_tag;
mod nextest;
mod observability;
mod pipeline;
#[path = "../fixture/program.rs"]
mod program;
mod quarantine;
#[path = "../fixture/repository.rs"]
mod repository;
mod rerun;
mod root_directory;
mod settings;
mod terminal;
mod verdict;
mod why;

/// What jobs run in here.
pub(crate) const RUNTIME: fleet::Runtime = fleet::Runtime::Docker;
