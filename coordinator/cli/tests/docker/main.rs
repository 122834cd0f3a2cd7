//! The `regatta` command against the real Docker daemon: a coordinator and agents as processes, jobs in
//! containers. `cargo xtask test` turns these on (feature `docker-tests`) and provides the image.

#![expect(
    clippy::print_stderr,
    reason = "a failed test shows the logs of its fleet"
)]

mod bad_input;
mod exec;
mod faults;
mod fleet;
mod pipeline;
mod program;
