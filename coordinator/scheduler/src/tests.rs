//! The scheduler as a whole.

mod behaviour;
mod fixture;
mod invariants;
mod makespan;
