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
    /// could run it. Default: 30 s.
    pub retry_elsewhere: Duration,
    /// An agent that loses so many leases in a row to its own infrastructure gets a pause.
    /// Default: 5.
    pub max_consecutive_losses: u32,
    /// How long that pause lasts. Default: 60 s.
    pub cooling_off: Duration,
    /// How many units, and merged submitters, may wait at once. A single task beyond it is still
    /// taken when nothing else waits, because no later time would be better. Default: 2,000,000.
    pub queue_limit_units: usize,
    /// What a refused submitter is told to wait. Default: 5 s.
    pub queue_full_retry: Duration,
    /// How long work that none of the fleet's agents can run waits for one that can. Default: 10 s.
    pub unsatisfiable_grace: Duration,
    /// The same while the fleet has no agent at all, or while every agent that could run the work
    /// takes none (it drains, or its disk is full). Default: 60 s.
    pub no_agent_grace: Duration,
    /// The shares of tenants in the fleet; a tenant that is not named has a share of 1. Default: empty.
    pub tenant_weights: BTreeMap<TenantId, NonZeroU32>,
    /// The first fencing token to grant: one more than the last token of the last
    /// [`Record::TokensReserved`](crate::Record::TokensReserved), so that a restart never reuses one.
    /// Lease ids are counted by it too. Default: 1.
    pub first_token: FencingToken,
    /// How many tokens one record reserves. Default: 4096.
    pub token_block: u64,
    /// `k` of guided self-scheduling: a batch is at most a share of `1 / (k * slots)` of the work that
    /// is left. Larger means smaller batches: better balance, more overhead. Default: 2.
    pub batch_factor: NonZeroU32,
    /// No batch is cut shorter than this while units are left. Default: 100 ms.
    pub minimum_batch: Duration,
    /// No batch is cut shorter than its overhead times this. Default: 4, so that at most a fifth of a
    /// slot's time goes to starting batches.
    pub overhead_factor: u32,
    /// A batch never has more units than this, however short they are. Default: 1000.
    pub max_batch_units: usize,
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
            queue_full_retry: Duration::from_secs(5),
            unsatisfiable_grace: Duration::from_secs(10),
            no_agent_grace: Duration::from_secs(60),
            tenant_weights: BTreeMap::new(),
            first_token: FencingToken(1),
            token_block: 4096,
            batch_factor: NonZeroU32::MIN.saturating_add(1),
            minimum_batch: Duration::from_millis(100),
            overhead_factor: 4,
            max_batch_units: 1000,
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
}
