//! What a simulation comes to.

use std::time::Duration;

/// What came of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Stands for every effect with its time: equal runs have equal ones.
    pub fingerprint: u64,
    /// How many events the scheduler took.
    pub events: usize,
    /// How many leases were granted.
    pub grants: usize,
    /// How many units were answered, once for each submitter.
    pub answered: usize,
    /// How many units were cancelled or given up, once for each submitter.
    pub failed: usize,
    /// How many units were tried again, once for each submitter.
    pub retried: usize,
    /// How many units were given back, once for each submitter.
    pub returned: usize,
    /// How many outcomes came too late.
    pub fenced: usize,
    /// How many late batches were leased a second time.
    pub duplicated: usize,
    /// How many leases of an earlier scheduler were taken up.
    pub adopted: usize,
    /// How many agents were lost.
    pub lost_agents: usize,
    /// How often the coordinator started anew.
    pub restarts: usize,
    /// How long each piece of work of the plan waited for its first lease, as far as it got one.
    pub waits: Vec<Option<Duration>>,
    /// For how much of that something had ended somewhere and the scheduler had not heard of it.
    pub unheard: Vec<Duration>,
    /// How long it took in simulated time.
    pub took: Duration,
}
