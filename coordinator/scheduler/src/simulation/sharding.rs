//! How a suite is best spread over a fleet: what the scheduler makes of it, beside ways that plan ahead.
//!
//! A [`Race`] is a suite with the machines that run it. [`Race::play`] runs it to its end in simulated
//! time, cut by the scheduler itself or split as CI systems split suites over a matrix of jobs
//! ([`Split`]); [`Race::lower_bound`] is what nobody can beat.

mod guided;
mod planned;
mod race;
mod scenario;

pub use race::{Played, Race, RacingMachine, RacingTest, Split, Stall};
pub use scenario::{Scenario, log_normal, small_unknown, small_unknown_of_worker};
