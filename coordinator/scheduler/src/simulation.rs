//! A fleet that exists only in memory, and a model that watches the scheduler run it.
//!
//! A [`Plan`] says which machines there are, what is submitted and what breaks; [`run`] plays it to the
//! end in simulated time. Equal plans give equal runs, down to every effect, which
//! [`Summary::fingerprint`] stands for. A model checks every step; what it finds is
//! a [`Violation`], with every event up to it, so that it can be replayed against another scheduler.

mod happening;
mod machine;
mod model;
mod plan;
mod random;
pub mod sharding;
mod summary;
mod unheard;
mod violation;
mod world;

pub use plan::{Fault, FaultKind, MachinePlan, Plan, WorkPlan};
pub use random::Random;
pub use summary::Summary;
pub use violation::Violation;
pub use world::run;
