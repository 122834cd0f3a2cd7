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

mod artefact;
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
mod patience;
pub mod probe;
pub mod pytest;
pub mod repeat;
mod rerun;
mod runner_helper;
pub mod session;
pub mod standard_output;
mod submission;
pub mod terminal;
mod threads;
pub mod tree;
pub mod watch;
mod why;

use std::io::Write;

use clap::Parser;

use exit_code::{ExitCode, Failure, OrExit};
use options::{MessageFormat, Options};
use standard_output::{is_unread, standard_output};

/// Does what this process's command line says.
#[must_use]
pub fn main() -> ExitCode {
    memory::share();
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => return misunderstood(&error),
    };
    let json = options.global.message_format == MessageFormat::Json;
    let tells = json && options.command.tells_of_a_run();
    if tells {
        // Whoever does not read this will not read what follows, either.
        let _unheard = watch::json::hello(standard_output());
    }
    let executed = threads::builder(&options.command)
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

/// Says what is wrong with the command line, or what was asked about it.
fn misunderstood(error: &clap::Error) -> ExitCode {
    // There is nobody left to tell if this cannot be written.
    let _unheard = error.print();
    let is_about_verdicts = || std::env::args_os().any(|argument| argument == "verdict");
    match error.use_stderr() {
        false => ExitCode::Good,
        true if is_about_verdicts() => ExitCode::BadConfiguration,
        true => ExitCode::Misunderstood,
    }
}

fn report(failure: &Failure, json: bool) -> ExitCode {
    if is_unread(&failure.error) {
        return ExitCode::OUTPUT_UNREAD;
    }
    // There is nobody left to tell if this cannot be written.
    let _unheard = writeln!(
        std::io::stderr(),
        "error: {}",
        terminal::visible_lines(&failure.to_string())
    );
    if json {
        let (message, code) = (failure.to_string(), failure.code.number());
        let _unheard = watch::json::error(standard_output(), &message, code);
    }
    failure.code
}
