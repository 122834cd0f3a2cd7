//! The scheduler as a whole.

mod adoption;
mod avoidance;
mod behaviour;
mod bounds;
mod duplicates;
mod fairness;
pub(crate) mod fixture;
mod hold;
mod invariants;
mod makespan;
mod matching;
