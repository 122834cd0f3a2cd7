//! The scheduler as a whole.

mod adoption;
mod avoidance;
mod behaviour;
mod bounds;
mod duplicates;
mod fairness;
pub(crate) mod fixture;
mod invariants;
mod makespan;
mod matching;
