//! Leases are granted.

use std::time::Duration;

use regatta_model::{FencingToken, LeaseId, UnitIndex};

use crate::batch::{BatchRule, nanos};
use crate::fleet::AgentKey;
use crate::lease::Lease;
use crate::queue::RunKey;
use crate::scheduler::Scheduler;
use crate::task::{TaskKey, Unit};
use crate::{Effect, Grant};

/// Units that are leased together.
#[derive(Debug)]
pub(crate) struct Batch {
    /// In the order to run them.
    pub(crate) units: Vec<UnitIndex>,
    /// How long they are expected to take.
    pub(crate) length_nanos: u64,
    /// On whose account.
    pub(crate) run: RunKey,
    /// How long the oldest of them waited.
    pub(crate) queued: Duration,
    /// The lease that has them, too.
    pub(crate) duplicates: Option<LeaseId>,
}

/// How a lease is known.
#[derive(Debug)]
pub(crate) enum Identity {
    /// By a token that was never granted before.
    New,
    /// By what an earlier scheduler granted it with.
    Adopted {
        id: LeaseId,
        token: FencingToken,
        /// How many of its outcomes are taken.
        acknowledged: u32,
        /// What its agent calls its units, in their order.
        own: Vec<UnitIndex>,
    },
}

impl Scheduler {
    /// Leases the next batch of a task to an agent.
    pub(crate) fn grant(&mut self, key: TaskKey, agent: AgentKey) {
        self.end_passing_over(self.tasks[key].class, agent);
        let (units, length_nanos) = self.cut(key);
        let task = &self.tasks[key];
        let (run, queued) = (task.run, self.now.since(task.waiting_since));
        self.end_waiting(key, units.len());
        self.file(key);
        self.leased_units += units.len();
        self.queue.run_mut(run).leased_units += units.len();
        let batch = Batch {
            units,
            length_nanos,
            run,
            queued,
            duplicates: None,
        };
        let late_nanos = self.late_nanos(key, &batch);
        let lease = self.lease(key, agent, batch);
        if let (Some(lease), Some(late_nanos)) = (lease, late_nanos) {
            self.expect(lease, late_nanos);
        }
    }

    /// Takes the next batch out of what waits of a task.
    fn cut(&mut self, key: TaskKey) -> (Vec<UnitIndex>, u64) {
        let task = &mut self.tasks[key];
        let slots = self.fleet.classes[task.class].slots;
        let running = task.running(self.now);
        let rule = BatchRule::new(&self.config, slots, task.overhead, running);
        let (units, last_try) = (&task.units, self.config.max_attempts.saturating_sub(1));
        let alone = |unit: UnitIndex| {
            let entry = units.get(unit.0 as usize);
            entry.is_some_and(|entry| {
                entry.alone || (entry.attempts > 0 && entry.attempts >= last_try)
            })
        };
        let (batch, length_nanos) = task.waiting.cut(&rule, alone);
        let lost = batch
            .iter()
            .filter(|unit| units.get(unit.0 as usize).is_some_and(Unit::was_lost));
        task.lost_waiting = task.lost_waiting.saturating_sub(lost.count());
        (batch, length_nanos)
    }

    /// Gives an agent a lease.
    pub(crate) fn lease(&mut self, key: TaskKey, agent: AgentKey, batch: Batch) -> Option<LeaseId> {
        self.lease_as(Identity::New, key, agent, batch)
    }

    /// How a lease is known, how many of its outcomes are taken, and what its agent calls its units.
    fn identify(
        &mut self,
        identity: Identity,
    ) -> (LeaseId, FencingToken, u32, Option<Vec<UnitIndex>>) {
        match identity {
            Identity::New => {
                let (id, token, reserved) = self.tokens.grant();
                self.step.commit.extend(reserved);
                (id, token, 0, None)
            }
            Identity::Adopted {
                id,
                token,
                acknowledged,
                own,
            } => (id, token, acknowledged, Some(own)),
        }
    }

    /// Gives an agent a lease, or leaves it with one.
    pub(crate) fn lease_as(
        &mut self,
        identity: Identity,
        key: TaskKey,
        agent_key: AgentKey,
        batch: Batch,
    ) -> Option<LeaseId> {
        let task = &mut self.tasks[key];
        let granted_for = task.submitters.first()?.task;
        let charged_nanos = batch.length_nanos.saturating_add(nanos(task.overhead));
        let attempts = batch.units.iter();
        let attempts = attempts.map(|unit| (*unit, task.begin_attempt(*unit)));
        let attempts: Vec<_> = attempts.collect();
        let avoid_slot = task.failed_slot(agent_key);
        let (id, token, acknowledged, own) = self.identify(identity);
        let task = &mut self.tasks[key];
        task.begin_lease(id, self.now, charged_nanos);
        let resources = self.fleet.classes[task.class].resources;
        self.queue.charge(batch.run, charged_nanos);
        let agent = &mut self.fleet.agents[agent_key];
        agent.leases.insert(id);
        agent.occupy(&resources);
        let granted = Grant {
            lease: id,
            token,
            agent: agent.id.clone(),
            task: granted_for,
            units: attempts.clone(),
            queued: batch.queued,
            duplicates: batch.duplicates,
            adopted: own.clone(),
            avoid_slot,
        };
        let was_held = own.is_some();
        let reported = was_held.then_some(agent.sequence);
        let own = own.unwrap_or_default().into_iter();
        let mut numbering: Vec<_> = own.zip(batch.units).collect();
        numbering.sort_unstable();
        self.fleet.relist(agent_key);
        let lease = Lease {
            id,
            token,
            agent: agent_key,
            slot: None,
            granted_for,
            task: Some(key),
            run: batch.run,
            pending: attempts,
            numbering,
            twin: batch.duplicates,
            late_at: None,
            resources,
            granted_at: self.now,
            released_at: None,
            charged_nanos,
            acknowledged,
            first_version: None,
            first_reported: reported,
            was_held,
            vacated: false,
            blamed: false,
        };
        self.leases.insert(id, lease);
        self.agents_to_tell.insert(agent_key);
        self.effect(Effect::Granted(granted));
        Some(id)
    }
}
