//! The project's own chores: `cargo xtask <demo | test | tidy | bench | projects | simulate | fuzz | images | clients>`.
//!
//! Invariants:
//! - Whatever a chore needs beyond Rust and Docker, it installs itself, at a pinned version.
//! - Whatever a chore starts or creates, it stops or removes, Ctrl-C included. What a killed chore had
//!   started ends by itself; the next one removes the files.
//! - It links none of the product: it runs the `regatta` command as a user would. What does link it, to simulate
//!   it, is a program of its own.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "chores talk to the terminal"
)]

mod bench;
mod clients;
mod demo;
mod docker;
mod fleet;
mod fuzz;
mod images;
mod interrupt;
mod process;
mod projects;
mod report;
mod scratch;
mod simulate;
mod test;
mod tidy;
mod tools;
mod workspace;
mod workstation;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Regatta's own chores.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Run Regatta's own test suites on a fleet on this machine, three times over.
    Demo(demo::Arguments),
    /// Run every test, those against the real dockerd included.
    Test(test::Arguments),
    /// Check the house rules: format, lints, dependency directions, sizes, spelling.
    Tidy,
    /// Measure what the README states.
    Bench(bench::Arguments),
    /// Play a fleet with faults of all kinds, or compare ways to spread suites over slots, in simulated time.
    Simulate(simulate::Arguments),
    /// Run other people's projects on a fleet, and beside it with their own test runners.
    Projects(projects::Arguments),
    /// Look for inputs that break what must hold, and keep those that reach new code.
    Fuzz(fuzz::Arguments),
    /// Make sure there is an image to run jobs in, and print its name.
    Images(images::Arguments),
    /// Make sure that the Remote Execution API's real clients are here, and print where.
    Clients,
}

fn main() -> ExitCode {
    let chore = Arguments::parse().chore;
    match interrupt::install().and_then(|()| run(chore)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(chore: Chore) -> anyhow::Result<()> {
    match chore {
        Chore::Demo(arguments) => demo::run(&arguments),
        Chore::Test(arguments) => test::run(&arguments),
        Chore::Tidy => tidy::run(),
        Chore::Bench(arguments) => bench::run(&arguments),
        Chore::Simulate(arguments) => simulate::run(&arguments),
        Chore::Projects(arguments) => projects::run(&arguments),
        Chore::Fuzz(arguments) => fuzz::run(&arguments),
        Chore::Images(arguments) => {
            println!("{}", images::ensure(&arguments)?);
            Ok(())
        }
        Chore::Clients => {
            for (name, value) in clients::Clients::ensure()?.environment() {
                println!("{name}={value}");
            }
            Ok(())
        }
    }
}
