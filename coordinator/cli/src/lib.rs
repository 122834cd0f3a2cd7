//! The `regatta` command: the only crate that sees coordinator and agent together.
//!
//! Responsibility: reading command lines and configurations, bringing inputs to the store, submitting runs
//! and showing what becomes of them. What a run means is decided by the coordinator.
//!
//! Invariants:
//! - Results go to standard output, progress and logs to standard error; with `--message-format json`,
//!   standard output holds nothing but the lines of [`watch::json`].
//! - The process ends with a code of [`exit_code`], and every failure says what happened and what to do.
//! - Nothing is uploaded that the store has, and no file is read whose digest is known.
//! - A file is written whole or not at all.
//! - Every wait and retry has a named bound; a second Ctrl-C always ends the process.
//! - `anyhow` appears only in the glue between a command and its exit code.

pub mod cargo;
pub mod client;
pub mod cmake;
pub mod commands;
pub mod config;
pub mod directories;
pub mod doctor;
pub mod download;
pub mod exit_code;
pub mod files;
pub mod git;
pub mod go;
mod history;
mod import;
pub mod interrupts;
pub mod jest;
pub mod jobs;
pub mod ledger_reference;
pub mod logging;
mod memory;
pub mod options;
pub mod probe;
pub mod pytest;
pub mod repeat;
mod rerun;
mod runner_helper;
pub mod session;
pub mod terminal;
pub mod tree;
pub mod watch;
mod why;

use std::io::Write;

use clap::Parser;

use exit_code::{ExitCode, Failure, OrExit};
use options::{Command, MessageFormat, Options};

/// Threads for everything that waits; what computes or blocks has threads of its own.
const WORKER_THREADS: usize = 2;
/// An agent shares its machine with its jobs: on two processors, a second thread to hand work to costs it
/// a tenth more of their time for each action, and gains nothing (`cargo xtask bench`).
const WORKER_THREADS_OF_AGENT: usize = 1;

/// Does what this process's command line says.
#[must_use]
pub fn main() -> ExitCode {
    memory::share();
    let options = Options::parse();
    let json = options.global.message_format == MessageFormat::Json;
    let tells = json && options.command.tells_of_a_run();
    if tells {
        // Whoever does not read this will not read what follows, either.
        let _unheard = watch::json::hello(std::io::stdout());
    }
    let workers = match options.command {
        Command::Agent(_) => WORKER_THREADS_OF_AGENT,
        _ => WORKER_THREADS,
    };
    let executed = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build()
        .or_exit(ExitCode::Local)
        .and_then(|runtime| {
            let executed = runtime.block_on(Box::pin(commands::execute(options)));
            // A thread that still blocks must not keep the process from ending.
            runtime.shutdown_background();
            executed
        });
    executed.unwrap_or_else(|failure| report(&failure, tells))
}

fn report(failure: &Failure, json: bool) -> ExitCode {
    // There is nobody left to tell if this cannot be written.
    let _unheard = writeln!(std::io::stderr(), "error: {failure}");
    if json {
        let (message, code) = (failure.to_string(), failure.code.number());
        let _unheard = watch::json::error(std::io::stdout(), &message, code);
    }
    failure.code
}
