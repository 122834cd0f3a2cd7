//! The fault simulation: the coordinator's real services and agents' real cores in one process, with a network,
//! clocks and storage that a seed decides about, and a model that checks what comes of it (decision 0013).
//!
//! Invariants:
//! - Equal seeds give equal traces: nothing here reads this machine's clock or its random numbers, and nothing
//!   runs in parallel.
//! - Of this machine it uses a directory for the logs of uses of coordinators, which goes with the process.
//! - The model shares no code with what it judges.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for the terminal"
)]

mod bucket;
mod coordinator;
mod isolation;
mod job;
mod large;
mod ledger;
mod machine;
mod model;
mod panics;
mod plan;
mod random;
mod said;
mod stock;
mod sweep;
mod trace;
mod violation;
mod weather;
mod world;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let arguments = sweep::Arguments::parse();
    match sweep::run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
