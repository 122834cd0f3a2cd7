//! Which leases are in force, as an agent has to see it.
//!
//! A lease is in force from the first desired state that has it until one that does not, or until its agent has
//! been silent for too long. That it has ended is a coordinator's decision, which ends with it: what an agent still
//! holds may be taken up by the next one, which then wishes for it; or it is not, and then it has ended.

use std::collections::BTreeMap;
use std::time::Duration;

use regatta_wire::v1;

use crate::coordinator::scheduler_config;
use crate::violation::{Checked, Invariant};

/// How long after its time the end of a lease is certain: clocks tick in milliseconds.
const CERTAIN_AFTER: Duration = Duration::from_millis(20);

/// Every lease there has been, by its number and its token.
#[derive(Debug, Default)]
pub(crate) struct Fences {
    known: BTreeMap<(u64, u64), Fence>,
    /// When each machine was heard last, by the coordinator that is there now.
    heard: BTreeMap<usize, Duration>,
    /// The last desired state of each machine that left it.
    versions: BTreeMap<usize, u64>,
    /// The largest token that was granted, by this coordinator and by those before it.
    last_token: u64,
    last_token_before: u64,
}

#[derive(Clone, Debug)]
struct Fence {
    machine: usize,
    state: State,
    /// What it is for, once that is known.
    units: Option<Vec<u32>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    InForce,
    /// The coordinator that wished for it has ended.
    LeftBehind,
    NotWishedFor,
    Expired,
}

impl Fences {
    /// Something of a machine comes in.
    pub(crate) fn hear(&mut self, now: Duration, machine: usize) {
        self.expire(now);
        self.heard.insert(machine, now);
    }

    /// Ends what has certainly expired.
    pub(crate) fn expire(&mut self, now: Duration) {
        let patience = scheduler_config().agent_timeout() + CERTAIN_AFTER;
        for fence in self.known.values_mut() {
            let heard = self.heard.get(&fence.machine);
            let silent = heard.is_some_and(|heard| now.saturating_sub(*heard) > patience);
            if fence.state == State::InForce && silent {
                fence.state = State::Expired;
            }
        }
    }

    /// The coordinator wishes an agent to hold this.
    pub(crate) fn wish(
        &mut self,
        now: Duration,
        machine: usize,
        state: &v1::DesiredState,
    ) -> Checked {
        self.expire(now);
        // A connection that was replaced may still say what it had begun to say.
        let last = self.versions.entry(machine).or_default();
        if state.version < *last {
            return Ok(());
        }
        *last = state.version;
        let wished = |key: &(u64, u64)| {
            let mut leases = state.leases.iter();
            leases.any(|lease| (lease.lease_id, lease.fencing_token) == *key)
        };
        for (key, fence) in &mut self.known {
            let may_end = matches!(fence.state, State::InForce | State::LeftBehind);
            if fence.machine == machine && may_end && !wished(key) {
                fence.state = State::NotWishedFor;
            }
        }
        for lease in &state.leases {
            self.wish_for(machine, lease)?;
        }
        Ok(())
    }

    fn wish_for(&mut self, machine: usize, lease: &v1::DesiredLease) -> Checked {
        let key = (lease.lease_id, lease.fencing_token);
        let units: Option<Vec<u32>> = lease.spec.as_ref().map(|spec| {
            let units = spec.executions.iter().map(|execution| execution.unit);
            units.collect()
        });
        if let Some(known) = self.known.get_mut(&key) {
            let is_same = known.machine == machine
                && (units.is_none() || known.units.is_none() || known.units == units);
            Invariant::TokensGrow.holds(is_same, || {
                format!(
                    "token {} is granted to m{machine} for {units:?}, and was known as {known:?}",
                    key.1
                )
            })?;
            if known.state == State::LeftBehind {
                known.state = State::InForce;
            }
            return Ok(());
        }
        Invariant::TokensGrow.holds(key.1 > self.last_token_before, || {
            format!(
                "token {} is granted to m{machine}, and an earlier coordinator had granted {}",
                key.1, self.last_token_before
            )
        })?;
        self.last_token = self.last_token.max(key.1);
        let fence = Fence {
            machine,
            state: State::InForce,
            units,
        };
        self.known.insert(key, fence);
        Ok(())
    }

    /// The coordinator ends.
    pub(crate) fn leave_behind(&mut self, now: Duration) {
        self.expire(now);
        self.heard.clear();
        self.versions.clear();
        self.last_token_before = self.last_token;
        for fence in self.known.values_mut() {
            fence.state = State::LeftBehind;
        }
    }

    /// Whether what an agent says of a lease may count.
    pub(crate) fn is_valid(&self, machine: usize, lease: u64, token: u64) -> bool {
        let fence = self.known.get(&(lease, token));
        fence.is_some_and(|fence| {
            fence.machine == machine && matches!(fence.state, State::InForce | State::LeftBehind)
        })
    }

    pub(crate) fn describe(&self, lease: u64, token: u64) -> String {
        let fence = self.known.get(&(lease, token));
        fence.map_or("unknown".to_owned(), |fence| format!("{fence:?}"))
    }
}
