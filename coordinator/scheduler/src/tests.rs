//! The scheduler as a whole.

mod behaviour;
mod bounds;
mod fairness;
mod fixture;
mod invariants;
mod makespan;
mod matching;
