//! Plays seeded plans against the scheduler, each twice, and compares.
//!
//! `simulate --seeds 20 --agents 1000 --first-seed 1`

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a program for the terminal, outside the core that it plays with"
)]

use std::process::ExitCode;

use regatta_scheduler::SchedulerConfig;
use regatta_scheduler::simulation::{Plan, run};

fn main() -> ExitCode {
    match simulate() {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("{what}");
            ExitCode::FAILURE
        }
    }
}

fn simulate() -> Result<(), String> {
    let seeds = number("--seeds", 10)?;
    let agents = usize::try_from(number("--agents", 1000)?).map_err(|error| error.to_string())?;
    let first = number("--first-seed", 1)?;
    for seed in first..first.saturating_add(seeds) {
        let plan = Plan::of_seed(seed, agents);
        let play = || {
            run(&plan, SchedulerConfig::default())
                .map_err(|violation| format!("seed {seed}, {agents} agents:\n{violation:?}"))
        };
        let (once, again) = (play()?, play()?);
        if once != again {
            return Err(format!(
                "seed {seed} ran differently twice:\n{once:?}\n{again:?}"
            ));
        }
        println!("seed {seed}: {once:?}");
    }
    Ok(())
}

fn number(flag: &str, default: u64) -> Result<u64, String> {
    let mut arguments = std::env::args()
        .skip_while(|argument| argument != flag)
        .skip(1);
    match arguments.next() {
        Some(text) => text
            .parse()
            .map_err(|_| format!("{flag} takes a number, not `{text}`")),
        None => Ok(default),
    }
}
