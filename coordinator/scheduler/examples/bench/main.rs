//! What an assignment costs, and what a queued task weighs.
//!
//! `bench [--json] [--tasks N] [--agents N]`: for fleets of 10 to 10,000 agents and queues of 1,000 to
//! 1,000,000 tasks, as far as the tasks outnumber the agents, a line each, or one JSON array. The agents
//! are as production has them: each has a host name and an amount of memory of its own, and warm images.
//!
//! Two costs are measured, each the whole of what the scheduler does for one task once it waits: with
//! the whole queue waiting (`backlog`), and with a fleet that has nothing else to do (`arrival`).
//! Unless one size is asked for, the program fails if either has grown faster than the logarithm of the
//! size, times a slack.

#![expect(clippy::print_stdout, reason = "a program for the terminal")]
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "measuring needs a clock; the scheduler never sees it"
)]

mod allocator;
mod fleet;
mod measure;

use std::error::Error;

use allocator::CountingAllocator;
use measure::{Measured, TASKS_PER_AGENT, growth, measure};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::new();

fn main() -> Result<(), Box<dyn Error>> {
    let json = std::env::args().any(|argument| argument == "--json");
    let (only_tasks, only_agents) = (number("--tasks")?, number("--agents")?);
    if !json {
        println!(
            "   tasks  agents  assignments  backlog ns  median ns  arrival ns  assignments/s  bytes/task"
        );
    }
    let mut all = Vec::new();
    for tasks in only_tasks.map_or(vec![1_000, 10_000, 100_000, 1_000_000], |only| vec![only]) {
        for agents in only_agents.map_or(vec![10, 100, 1_000, 10_000], |only| vec![only]) {
            if tasks < agents * TASKS_PER_AGENT {
                continue;
            }
            let measured = measure(tasks, agents)?;
            if !json {
                print_line(&measured);
            }
            all.push(measured);
        }
    }
    if json {
        let objects: Vec<_> = all.iter().map(as_json).collect();
        println!("[{}]", objects.join(",\n "));
    }
    check_growth(&all, json)
}

fn number(flag: &str) -> Result<Option<usize>, Box<dyn Error>> {
    let mut arguments = std::env::args()
        .skip_while(|argument| argument != flag)
        .skip(1);
    Ok(arguments.next().map(|text| text.parse()).transpose()?)
}

/// Fails if the cost has grown too fast from the smallest size measured to the largest.
fn check_growth(all: &[Measured], json: bool) -> Result<(), Box<dyn Error>> {
    let [smallest, .., largest] = all else {
        return Ok(());
    };
    for growth in growth(smallest, largest) {
        let verdict = format!(
            "{}: {:.1} times the cost, {:.1} times allowed",
            growth.what, growth.grown, growth.allowed
        );
        if !growth.is_allowed() {
            return Err(verdict.into());
        }
        if !json {
            println!("{verdict}");
        }
    }
    Ok(())
}

fn print_line(measured: &Measured) {
    let Measured {
        tasks,
        agents,
        assignments,
        backlog_nanos: backlog,
        backlog_median_nanos: median,
        arrival_nanos: arrival,
        bytes_per_task: bytes,
    } = measured;
    let rate = 1e9 / backlog;
    println!(
        "{tasks:8} {agents:7} {assignments:12} {backlog:11.0} {median:10} {arrival:11.0} {rate:14.0} {bytes:11.0}"
    );
}

fn as_json(measured: &Measured) -> String {
    let Measured {
        tasks,
        agents,
        assignments,
        backlog_nanos: backlog,
        backlog_median_nanos: median,
        arrival_nanos: arrival,
        bytes_per_task: bytes,
    } = measured;
    let rate = 1e9 / backlog;
    format!(
        "{{\"tasks\":{tasks},\"agents\":{agents},\"assignments\":{assignments},\
         \"nanos_per_assignment\":{backlog:.0},\"median_nanos\":{median},\
         \"nanos_per_arrival\":{arrival:.0},\"assignments_per_second\":{rate:.0},\
         \"bytes_per_task\":{bytes:.0}}}"
    )
}
