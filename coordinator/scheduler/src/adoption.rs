//! Work that agents began for an earlier scheduler, and that goes on for this one.
//!
//! A scheduler that starts knows no lease. What agents hold from before, they say what it is for ([`Claim`]), and
//! for a while it is left to them, in what it occupies: until then whoever wanted it has probably said so again.
//! Units are known again by their keys, whichever comes first, the claim or the task. A unit that was leased anew in
//! the meantime is taken from that lease: the older one has done more of it. What nobody wants in time is foreign,
//! as is all that a lease of this scheduler's own time names.

use std::collections::{BTreeMap, BTreeSet};

use regatta_model::{
    Digest, FencingToken, LeaseId, Resources, TaskId, TenantId, Timestamp, UnitIndex,
};

use crate::fleet::AgentKey;
use crate::grant::{Batch, Identity};
use crate::lookup::Lookup;
use crate::scheduler::Scheduler;
use crate::task::{TaskKey, Unit};
use crate::timers::Timer;
use crate::{Claim, HeldLease, Submission};

/// What is held from before, and what it could be for.
#[derive(Debug, Default)]
pub(crate) struct Adoptions {
    /// Until when anything is taken up; nothing before the first event, and after the last moment.
    ends_at: Option<Timestamp>,
    unadopted: BTreeMap<HeldBy, Unadopted>,
    /// Units that agents hold.
    claimed: Lookup<(TenantId, Digest), HeldBy>,
    /// Units that were submitted, and that no agent had.
    sought: Lookup<(TenantId, Digest), (TaskId, UnitIndex)>,
}

/// A lease, and who holds it: what concerns one agent costs no more than that agent's leases.
type HeldBy = (AgentKey, LeaseId);

/// A lease of an earlier scheduler that nobody has asked for yet.
#[derive(Debug)]
struct Unadopted {
    token: FencingToken,
    claim: Claim,
    /// What it occupies; nothing once it has ended.
    occupied: Option<Resources>,
}

impl Claim {
    /// The units whose outcomes are still to be taken. Those of a lease come in the order of its units.
    fn left(&self) -> &[(UnitIndex, Option<Digest>)] {
        let taken = match (self.together, self.acknowledged) {
            (_, 0) => 0,
            (true, _) => self.units.len(),
            (false, taken) => taken as usize,
        };
        self.units.get(taken..).unwrap_or_default()
    }

    fn keys(&self) -> impl Iterator<Item = (UnitIndex, (TenantId, Digest))> {
        let left = self.left().iter();
        left.filter_map(|(unit, key)| Some((*unit, (self.tenant.clone(), (*key)?))))
    }
}

impl Adoptions {
    pub(crate) fn is_open(&self) -> bool {
        self.ends_at.is_some()
    }

    /// Whether an agent may hold a lease for now, because it said what it is for.
    pub(crate) fn includes(&self, agent: AgentKey, held: &HeldLease) -> bool {
        let known = self.unadopted.get(&(agent, held.lease));
        known.is_some_and(|known| known.token == held.token)
    }

    /// The leases that an agent may hold for now: their tokens, and how many of their outcomes are taken.
    pub(crate) fn of_agent(
        &self,
        agent: AgentKey,
    ) -> impl Iterator<Item = (LeaseId, FencingToken, u32)> {
        let all = (agent, LeaseId(0))..=(agent, LeaseId(u64::MAX));
        let own = self.unadopted.range(all);
        own.map(|((_, id), lease)| (*id, lease.token, lease.claim.acknowledged))
    }
}

impl Scheduler {
    /// Begins to take up what agents hold, if there was a scheduler before this one.
    pub(crate) fn begin_adoption(&mut self) {
        let is_first = self.config.first_token <= FencingToken(1);
        if !is_first && !self.config.adoption_window.is_zero() {
            let ends_at = self.after(self.config.adoption_window);
            let current = &mut self.adoptions.ends_at;
            self.timers.set(Timer::AdoptionEnds, current, Some(ends_at));
        }
    }

    /// Gives up what nobody has asked for.
    pub(crate) fn end_adoption(&mut self) {
        let current = &mut self.adoptions.ends_at;
        self.timers.set(Timer::AdoptionEnds, current, None);
        let unadopted = self.adoptions.unadopted.keys().copied();
        for (key, id) in unadopted.collect::<Vec<_>>() {
            let Some(lease) = self.disclaim((key, id)) else {
                continue;
            };
            let agent = &mut self.fleet.agents[key];
            agent.foreign.push((id, agent.sequence));
            if lease.occupied.is_some() {
                agent.foreign_since.get_or_insert(self.now);
            }
            self.agents_to_tell.insert(key);
            self.watch_release(key);
            self.fleet.relist(key);
            self.agents_to_fill.insert(key);
        }
        self.adoptions = Adoptions::default();
    }

    /// Takes in what an agent says of leases that this scheduler did not grant: those that it has said what they
    /// are for are its own for now, and what is wanted of them is taken up.
    pub(crate) fn take_claims(&mut self, key: AgentKey, leases: &mut [HeldLease]) {
        if !self.adoptions.is_open() {
            return;
        }
        self.drop_claims_but(key, leases);
        for held in leases {
            let claim = held.claim.take();
            match self.adoptions.unadopted.get_mut(&(key, held.lease)) {
                Some(known) if known.token == held.token => {
                    let ended = known.occupied.take_if(|_| held.finished);
                    if let Some(resources) = ended {
                        self.fleet.agents[key].vacate(&resources);
                    }
                }
                Some(_) => continue,
                None => match claim {
                    Some(claim) => self.take_claim(key, held, claim),
                    None => continue,
                },
            }
            self.adopt((key, held.lease));
        }
    }

    /// Forgets what an agent holds no longer of what it was left with.
    pub(crate) fn drop_claims_but(&mut self, key: AgentKey, leases: &[HeldLease]) {
        let held: BTreeSet<LeaseId> = leases.iter().map(|held| held.lease).collect();
        let own = self.adoptions.of_agent(key).map(|(id, ..)| id);
        let gone: Vec<_> = own.filter(|id| !held.contains(id)).collect();
        for id in gone {
            self.disclaim((key, id));
        }
    }

    fn take_claim(&mut self, key: AgentKey, held: &HeldLease, claim: Claim) {
        let is_old = held.token < self.config.first_token;
        if !is_old || claim.left().is_empty() || self.leases.contains(&held.lease) {
            return;
        }
        for (_, unit) in claim.keys() {
            if !self.adoptions.claimed.contains(&unit) {
                self.adoptions.claimed.insert(unit, (key, held.lease));
            }
        }
        let occupied = (!held.finished).then_some(claim.resources);
        if let Some(resources) = &occupied {
            self.fleet.agents[key].occupy(resources);
        }
        let lease = Unadopted {
            token: held.token,
            claim,
            occupied,
        };
        self.adoptions.unadopted.insert((key, held.lease), lease);
        self.agents_to_tell.insert(key);
    }

    /// Takes a lease out of those that are left to their agents, in what it occupies, too.
    fn disclaim(&mut self, held: HeldBy) -> Option<Unadopted> {
        let lease = self.adoptions.unadopted.remove(&held)?;
        for (_, unit) in lease.claim.keys() {
            if self.adoptions.claimed.get(&unit) == Some(&held) {
                self.adoptions.claimed.remove(&unit);
            }
        }
        if let Some(resources) = &lease.occupied {
            self.fleet.agents[held.0].vacate(resources);
        }
        Some(lease)
    }

    /// Takes up what agents hold of a task that was just submitted.
    pub(crate) fn adopt_for(&mut self, submission: &Submission) {
        if !self.adoptions.is_open() {
            return;
        }
        let mut leases = BTreeSet::new();
        for (unit, index) in submission.units.iter().zip(0..) {
            let Some(key) = unit.key else {
                continue;
            };
            let unit = (submission.tenant.clone(), key);
            leases.extend(self.adoptions.claimed.get(&unit));
            let wanted = (submission.task, UnitIndex(index));
            self.adoptions.sought.insert(unit, wanted);
        }
        for lease in leases {
            self.adopt(lease);
        }
    }

    /// Makes a lease this scheduler's own, if something of it is wanted.
    fn adopt(&mut self, held: HeldBy) {
        let Some(lease) = self.adoptions.unadopted.get(&held) else {
            return;
        };
        if self.leases.contains(&held.1) {
            return;
        }
        let claim = &lease.claim;
        let sought = claim.keys().filter_map(|(own, name)| {
            let (task, unit) = *self.adoptions.sought.get(&name)?;
            let (key, _) = *self.submitted.get(&task)?;
            let is_open = self.tasks[key].unit(unit).is_some_and(|unit| unit.open);
            is_open.then_some((key, own, unit, name))
        });
        let mut sought: Vec<_> = sought.collect();
        let Some((task, ..)) = sought.first().cloned() else {
            return;
        };
        // A lease is for one task.
        sought.retain(|(key, ..)| *key == task);
        if claim.together && sought.len() < claim.units.len() {
            return;
        }
        let (mut own, mut units) = (Vec::new(), Vec::new());
        for (_, called, unit, name) in sought {
            self.adoptions.sought.remove(&name);
            own.push(called);
            units.push(unit);
        }
        if let Some(lease) = self.disclaim(held) {
            self.take_up(held, &lease, task, own, units);
        }
    }

    fn take_up(
        &mut self,
        (agent, id): HeldBy,
        lease: &Unadopted,
        key: TaskKey,
        own: Vec<UnitIndex>,
        units: Vec<UnitIndex>,
    ) {
        let queued = self.now.since(self.tasks[key].waiting_since);
        self.withdraw(key, &units);
        let task = &self.tasks[key];
        let lengths = units.iter().filter_map(|unit| task.unit(*unit));
        let length_nanos = lengths.map(|unit| unit.expected_nanos).sum();
        self.leased_units += units.len();
        self.queue.run_mut(task.run).leased_units += units.len();
        let batch = Batch {
            units,
            length_nanos,
            run: task.run,
            queued,
            duplicates: None,
        };
        let late_nanos = self.late_nanos(key, &batch);
        let identity = Identity::Adopted {
            id,
            token: lease.token,
            acknowledged: lease.claim.acknowledged,
            own,
        };
        self.lease_as(identity, key, agent, batch);
        if let Some(late_nanos) = late_nanos {
            self.expect(id, late_nanos);
        }
    }

    /// Takes units out of the queue and away from whoever has them.
    fn withdraw(&mut self, key: TaskKey, units: &[UnitIndex]) {
        let units: BTreeSet<UnitIndex> = units.iter().copied().collect();
        let task = &mut self.tasks[key];
        let waiting = task.waiting.take(&units);
        let was_lost = |unit: &UnitIndex| task.unit(*unit).is_some_and(Unit::was_lost);
        let lost = waiting.iter().filter(|unit| was_lost(unit)).count();
        task.lost_waiting = task.lost_waiting.saturating_sub(lost);
        self.end_waiting(key, waiting.len());
        for lease in self.tasks[key].leases.clone() {
            for unit in &units {
                self.take_from(lease, *unit);
            }
        }
        self.file(key);
    }

    /// Takes a unit from a lease, and ends it if that was its last.
    fn take_from(&mut self, id: LeaseId, unit: UnitIndex) {
        let Some(lease) = self.leases.get_mut(&id) else {
            return;
        };
        if lease.resolve(unit).is_none() {
            return;
        }
        let is_done = lease.pending.is_empty();
        self.withdraw_from_twin(id, unit);
        self.unlease(id, vec![unit]);
        if is_done {
            self.release(id);
        }
    }
}
