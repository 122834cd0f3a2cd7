//! The scheduler as a whole.

mod adoption;
mod agents;
mod avoidance;
mod bounds;
mod duplicates;
mod fairness;
pub(crate) mod fixture;
mod hold;
mod invariants;
mod losses;
mod makespan;
mod matching;
mod order;
mod submitters;
