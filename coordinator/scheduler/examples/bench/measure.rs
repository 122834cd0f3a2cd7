//! What is measured of one size, and what is allowed.

use std::error::Error;
use std::time::Duration;

use crate::ALLOCATOR;
use crate::fleet::Fleet;

/// How many assignments are measured at most, of each kind.
const ASSIGNMENTS: usize = 100_000;
/// A queue outlasts its fleet's first grants if it has so many tasks for each agent.
pub(crate) const TASKS_PER_AGENT: usize = 8;
/// How much steeper than the logarithm the cost of an assignment may grow: caches are finite, and what
/// fits into them at the smallest size does not at the largest.
const GROWTH_SLACK: f64 = 4.0;

/// The figures of one fleet and one queue.
pub(crate) struct Measured {
    pub(crate) tasks: usize,
    pub(crate) agents: usize,
    pub(crate) assignments: usize,
    /// With all tasks queued: an outcome is reported and taken, and what is free is granted.
    pub(crate) backlog_nanos: f64,
    pub(crate) backlog_median_nanos: u128,
    /// With nothing queued: a task arrives, is granted at once, and its outcome is taken.
    pub(crate) arrival_nanos: f64,
    pub(crate) bytes_per_task: f64,
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a measurement is no exact number"
)]
pub(crate) fn measure(tasks: usize, agents: usize) -> Result<Measured, Box<dyn Error>> {
    let arrival_nanos = measure_arrivals(tasks, agents)?;
    let mut fleet = Fleet::new(agents)?;
    let before = ALLOCATOR.allocated_bytes();
    for index in 0..tasks {
        fleet.submit(index)?;
    }
    let bytes_per_task = (ALLOCATOR.allocated_bytes() - before) as f64 / tasks as f64;
    fleet.connect();
    fleet.spent.clear();
    let granted_before = fleet.granted;
    let mut turn = 0;
    while fleet.granted < (granted_before + ASSIGNMENTS).min(tasks) {
        fleet.finish_one(turn % agents);
        turn += 1;
    }
    let assignments = fleet.granted - granted_before;
    let (total, median) = total_and_median(&mut fleet.spent);
    Ok(Measured {
        tasks,
        agents,
        assignments,
        backlog_nanos: total.as_nanos() as f64 / assignments.max(1) as f64,
        backlog_median_nanos: median.as_nanos(),
        arrival_nanos,
        bytes_per_task,
    })
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a measurement is no exact number"
)]
fn measure_arrivals(tasks: usize, agents: usize) -> Result<f64, Box<dyn Error>> {
    let mut fleet = Fleet::new(agents)?;
    fleet.connect();
    fleet.spent.clear();
    let count = tasks.min(ASSIGNMENTS);
    for index in 0..count {
        let granted_to = fleet.submit(index)?;
        fleet.finish_one(granted_to.ok_or("an idle fleet did not take a task")?);
    }
    let (total, _) = total_and_median(&mut fleet.spent);
    Ok(total.as_nanos() as f64 / count as f64)
}

fn total_and_median(spent: &mut [Duration]) -> (Duration, Duration) {
    spent.sort_unstable();
    let median = spent.get(spent.len() / 2).copied().unwrap_or_default();
    (spent.iter().sum(), median)
}

/// How the cost of an assignment has grown from one size to another, and how it may have.
pub(crate) struct Growth {
    pub(crate) what: &'static str,
    pub(crate) grown: f64,
    pub(crate) allowed: f64,
}

impl Growth {
    pub(crate) fn is_allowed(&self) -> bool {
        self.grown <= self.allowed
    }
}

/// Compares the costs of the smallest and the largest size with the logarithms of those sizes.
#[expect(
    clippy::cast_precision_loss,
    reason = "a measurement is no exact number"
)]
pub(crate) fn growth(smallest: &Measured, largest: &Measured) -> [Growth; 2] {
    let logarithm = |measured: &Measured| (measured.tasks as f64 * measured.agents as f64).ln();
    let allowed = GROWTH_SLACK * logarithm(largest) / logarithm(smallest);
    let grown = |what, of: fn(&Measured) -> f64| Growth {
        what,
        grown: of(largest) / of(smallest),
        allowed,
    };
    [
        grown("backlog", |measured| measured.backlog_nanos),
        grown("arrival", |measured| measured.arrival_nanos),
    ]
}
