//! Real clients of the Remote Execution API against a coordinator and an agent that runs every action in
//! a Docker container. `cargo xtask test` turns these on (feature `client-tests`) and provides the clients.

#![expect(
    clippy::print_stderr,
    reason = "a failed test shows the logs of its fleet"
)]

mod bazel;
mod buildbox;
mod buildstream;
mod calls;
mod counters;
#[path = "../fixture/fleet.rs"]
#[expect(dead_code, reason = "these tests need a part of the fixture")]
mod fleet;
mod justbuild;
#[path = "../fixture/program.rs"]
#[expect(dead_code, reason = "these tests need a part of the fixture")]
mod program;
mod recc;
mod runners;
mod siso;
mod sleepers;
mod toolbox;
mod workstation;

/// What jobs run in here.
pub(crate) const RUNTIME: fleet::Runtime = fleet::Runtime::Docker;
