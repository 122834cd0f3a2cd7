//! The named bounds of the scheduler.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use regatta_model::{FencingToken, TenantId};

/// Every bound of the scheduler, with its default.
///
/// All of them may be set freely: no value makes the scheduler panic or wait for ever.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SchedulerConfig {
    /// How often an agent reports when nothing changes. Default: 5 s.
    pub heartbeat_interval: Duration,
    /// An agent silent for so many intervals is lost, and its leases with it. Default: 3.
    pub missed_heartbeats: u32,
    /// How long a lost agent is remembered: its drain, its failures, its place in the snapshot.
    /// Default: 1 h.
    pub forget_agents_after: Duration,
    /// How many leases a unit may have before its loss is final. Default: 3.
    pub max_attempts: u32,
    /// How long a lost unit waits for an agent other than the one that lost it, as long as another
    /// could run it, and how long what has failed waits for another agent or slot. Default: 30 s.
    pub retry_elsewhere: Duration,
    /// An agent that loses leases to its own infrastructure so many times in a row gets a pause. What it
    /// loses at once counts once. Default: 5.
    pub max_consecutive_losses: u32,
    /// How long that pause lasts. Default: 60 s.
    pub cooling_off: Duration,
    /// How many units, and merged submitters, may wait at once. A single task beyond it is still
    /// taken when nothing else waits, because no later time would be better. Default: 2,000,000.
    pub queue_limit_units: usize,
    /// How many percent of that one tenant may take up, so that it fills the queue for itself alone.
    /// Default: 50.
    pub tenant_queue_percent: u8,
    /// How many different requirements may have work at once, and in how many lanes, each of one
    /// requirement and one priority, a tenant may wait. What an assignment costs is linear in them.
    /// Default: 512.
    pub requirement_limit: usize,
    /// What a refused submitter is told to wait. Default: 5 s.
    pub queue_full_retry: Duration,
    /// How long work that none of the fleet's agents can run waits for one that can. Default: 10 s.
    pub unsatisfiable_grace: Duration,
    /// The same while the fleet has no agent at all, or while every agent that could run the work
    /// takes none (it drains, or its disk is full). Default: 60 s.
    pub no_agent_grace: Duration,
    /// How long work waits while nothing new is begun ([`Event::Hold`](crate::Event::Hold)), up to a tenth of it more.
    /// Default: 5 min, for which agents keep what the store does not take.
    pub hold_limit: Duration,
    /// How long work may be passed over, because what is free is too little for it, before an agent is
    /// kept free until there is enough. Default: 30 s.
    pub reserve_after: Duration,
    /// How long an agent is kept free for such work before another is tried. Default: 5 min.
    pub reservation_limit: Duration,
    /// How long an agent may take to let go of a lease that it need not hold any more; then what the lease
    /// occupies is not counted on until it does. Default: 2 min.
    pub let_go_limit: Duration,
    /// Of the tasks of one run that arrive within so long, the longest go first; those that arrive later
    /// go later. Default: 60 s.
    pub longest_first_window: Duration,
    /// The shares of tenants in the fleet; a tenant that is not named has a share of 1. Default: empty.
    pub tenant_weights: BTreeMap<TenantId, NonZeroU32>,
    /// The first fencing token to grant: one more than the last token of the last
    /// [`Record::TokensReserved`](crate::Record::TokensReserved), so that a restart never reuses one.
    /// Lease ids are counted by it too. Default: 1.
    pub first_token: FencingToken,
    /// How many tokens one record reserves. Default: 4096.
    pub token_block: u64,
    /// A batch is at most so many percent of what its slot would do if all slots went on to end together:
    /// of the work that waits and that is under way, divided by the slots. More means fewer batches and less
    /// overhead; less is safer where expectations are wrong or machines uneven. Default: 70.
    pub share_percent: u32,
    /// No batch is cut shorter than this while units are left. If it costs no more than that to start one, what nobody has
    /// measured is divided in several rounds. Default: 100 ms.
    pub minimum_batch: Duration,
    /// A share that is shorter than the overhead times this is not worth it: what is left is divided evenly
    /// instead. No batch is cut much shorter than its overhead in any case. More leaves a short suite in one
    /// batch for each slot, which nobody can make up for if expectations are wrong, and of which a runner tells
    /// nothing before it ends. Default: 4.
    pub overhead_factor: u32,
    /// No batch is cut longer than its overhead times this: beyond it hardly anything is saved, and slots
    /// that come later find less to do. Default: 50, so that starting batches costs 2 % where there is much
    /// to do.
    pub amortised_factor: u32,
    /// A batch never has more units than this, however short they are. Default: 1000.
    pub max_batch_units: usize,
    /// For how long agents may go on with what they began for an earlier scheduler and nobody has asked for again,
    /// counted from the start. Default: 30 s, within which runs go on and clients come back.
    pub adoption_window: Duration,
    /// No batch is late before this: what an idle slot could gain is not worth starting it again.
    /// Default: 1 s.
    pub earliest_late: Duration,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self {
            heartbeat_interval: Duration::from_secs(5),
            missed_heartbeats: 3,
            forget_agents_after: Duration::from_secs(3600),
            max_attempts: 3,
            retry_elsewhere: Duration::from_secs(30),
            max_consecutive_losses: 5,
            cooling_off: Duration::from_secs(60),
            queue_limit_units: 2_000_000,
            tenant_queue_percent: 50,
            requirement_limit: 512,
            queue_full_retry: Duration::from_secs(5),
            unsatisfiable_grace: Duration::from_secs(10),
            no_agent_grace: Duration::from_secs(60),
            hold_limit: Duration::from_secs(300),
            reserve_after: Duration::from_secs(30),
            reservation_limit: Duration::from_secs(300),
            let_go_limit: Duration::from_secs(120),
            longest_first_window: Duration::from_secs(60),
            tenant_weights: BTreeMap::new(),
            first_token: FencingToken(1),
            token_block: 4096,
            share_percent: 70,
            minimum_batch: Duration::from_millis(100),
            overhead_factor: 4,
            amortised_factor: 50,
            max_batch_units: 1000,
            adoption_window: Duration::from_secs(30),
            earliest_late: Duration::from_secs(1),
        }
    }
}

impl SchedulerConfig {
    /// How long an agent may be silent before its leases expire.
    #[must_use]
    pub fn agent_timeout(&self) -> Duration {
        self.heartbeat_interval
            .saturating_mul(self.missed_heartbeats.max(1))
    }

    /// How many units, and merged submitters, of one tenant may wait at once.
    #[must_use]
    pub fn tenant_queue_limit_units(&self) -> usize {
        let percent = usize::from(self.tenant_queue_percent.min(100));
        let (whole, rest) = (self.queue_limit_units / 100, self.queue_limit_units % 100);
        (whole * percent + rest * percent / 100).max(1)
    }
}
