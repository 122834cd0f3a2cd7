//! Fair queues: tenants, then runs, then tasks.
//!
//! Both upper levels are start-time fair queueing (Goyal, Vin and Cheng, 1996): whoever has had the
//! least slot time for its weight goes next, of equals whoever came first, and whoever comes back from
//! having nothing to do starts level with the others, so that idleness earns no credit.
//!
//! Priority orders the work of one tenant, across its runs: what is more urgent goes first, and only
//! among what is equally urgent do runs take turns. No tenant gains on another by it.

mod due;
mod place;

use std::collections::{BTreeMap, BTreeSet};

use regatta_model::{RunId, TaskId, TenantId};

use crate::affinity::Wish;
use crate::fleet::ClassKey;
use crate::slab::{Key, Slab};
use crate::task::TaskKey;

pub(crate) type TenantKey = Key<Tenant>;
pub(crate) type RunKey = Key<Run>;

pub(crate) use place::{Lane, Place};

/// Slot time received, for a weight of one, in nanoseconds times [`VIRTUAL_SCALE`].
type VirtualTime = u128;

/// Keeps the fractions that dividing by a weight would lose.
const VIRTUAL_SCALE: u128 = 1 << 20;

/// Where a tenant or a run stands among the others: what it has received, and then when it came.
type Standing<Of> = (VirtualTime, u64, Key<Of>);

/// A task that waits, and what decides where it goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Queued {
    pub(crate) task: TaskKey,
    pub(crate) wish: Wish,
}

/// A task's rank among all tasks of its class; less goes first, in other classes too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Turn {
    tenant: Standing<Tenant>,
    urgency: i8,
    pub(crate) run: Standing<Run>,
    pub(crate) place: Place,
}

/// One who pays.
#[derive(Debug)]
pub(crate) struct Tenant {
    pub(crate) id: TenantId,
    pub(crate) weight: u32,
    arrival: u64,
    received: VirtualTime,
    /// Where a run starts that finds no other waiting.
    run_floor: VirtualTime,
    /// Its runs with tasks that wait, by lane, those that are due first in front.
    queued: BTreeMap<Lane, BTreeSet<Standing<Run>>>,
    runs: BTreeMap<RunId, RunKey>,
    pub(crate) queued_units: usize,
    /// How many of its submitters wait for what another one submitted.
    pub(crate) merged_submitters: usize,
}

/// One on whose behalf.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) id: RunId,
    pub(crate) tenant: TenantKey,
    arrival: u64,
    received: VirtualTime,
    queued: BTreeMap<Lane, BTreeMap<Place, Queued>>,
    /// What it wants.
    pub(crate) tasks: BTreeSet<TaskId>,
    /// How many leases are on its account.
    leases: usize,
    pub(crate) queued_units: usize,
    pub(crate) leased_units: usize,
}

impl Tenant {
    /// How many lanes it waits in.
    pub(crate) fn lanes(&self) -> usize {
        self.queued.len()
    }

    fn waits_for(&self, class: ClassKey) -> bool {
        self.queued.range(Lane::all_of(class)).next().is_some()
    }
}

/// Everything that waits, in the order in which it is due.
#[derive(Debug, Default)]
pub(crate) struct FairQueue {
    tenants: Slab<Tenant>,
    runs: Slab<Run>,
    tenant_keys: BTreeMap<TenantId, TenantKey>,
    /// Counts the tenants and runs of all time; breaks ties.
    arrivals: u64,
    /// Tenants with tasks that wait, by class, those that are due first in front.
    queued: BTreeMap<ClassKey, BTreeSet<Standing<Tenant>>>,
    /// Tenants with tasks that wait, of any class.
    waiting_tenants: BTreeSet<Standing<Tenant>>,
    /// Where a tenant starts that finds no other waiting.
    floor: VirtualTime,
}

impl FairQueue {
    pub(crate) fn tenant(&self, key: TenantKey) -> &Tenant {
        &self.tenants[key]
    }

    pub(crate) fn tenant_mut(&mut self, key: TenantKey) -> &mut Tenant {
        &mut self.tenants[key]
    }

    pub(crate) fn run(&self, key: RunKey) -> &Run {
        &self.runs[key]
    }

    pub(crate) fn run_mut(&mut self, key: RunKey) -> &mut Run {
        &mut self.runs[key]
    }

    pub(crate) fn tenant_key(&self, tenant: &TenantId) -> Option<TenantKey> {
        self.tenant_keys.get(tenant).copied()
    }

    pub(crate) fn run_key(&self, tenant: &TenantId, run: &RunId) -> Option<RunKey> {
        let tenant = self.tenant_keys.get(tenant)?;
        self.tenants[*tenant].runs.get(run).copied()
    }

    /// Finds a run, or begins to remember it.
    pub(crate) fn enter(&mut self, tenant: &TenantId, weight: u32, run: &RunId) -> RunKey {
        let tenant_key = self.enter_tenant(tenant, weight);
        let known = &mut self.tenants[tenant_key].runs;
        if let Some(key) = known.get(run) {
            return *key;
        }
        self.arrivals += 1;
        let key = self.runs.insert(Run {
            id: run.clone(),
            tenant: tenant_key,
            arrival: self.arrivals,
            received: 0,
            queued: BTreeMap::new(),
            tasks: BTreeSet::new(),
            leases: 0,
            queued_units: 0,
            leased_units: 0,
        });
        known.insert(run.clone(), key);
        key
    }

    fn enter_tenant(&mut self, tenant: &TenantId, weight: u32) -> TenantKey {
        if let Some(key) = self.tenant_keys.get(tenant) {
            return *key;
        }
        self.arrivals += 1;
        let key = self.tenants.insert(Tenant {
            id: tenant.clone(),
            weight: weight.max(1),
            arrival: self.arrivals,
            received: 0,
            run_floor: 0,
            queued: BTreeMap::new(),
            runs: BTreeMap::new(),
            queued_units: 0,
            merged_submitters: 0,
        });
        self.tenant_keys.insert(tenant.clone(), key);
        key
    }

    /// Forgets a run without tasks and leases, and its tenant if it was the last.
    pub(crate) fn leave(&mut self, key: RunKey) {
        let Some(run) = self.runs.get(key) else {
            return;
        };
        if !run.tasks.is_empty() || run.leases > 0 {
            return;
        }
        let Some(run) = self.runs.remove(key) else {
            return;
        };
        let tenant = &mut self.tenants[run.tenant];
        tenant.runs.remove(&run.id);
        if tenant.runs.is_empty()
            && let Some(tenant) = self.tenants.remove(run.tenant)
        {
            self.tenant_keys.remove(&tenant.id);
        }
    }

    fn standing_of(&self, run: RunKey) -> (Standing<Tenant>, Standing<Run>) {
        let (key, run) = (run, &self.runs[run]);
        let tenant = &self.tenants[run.tenant];
        (
            (tenant.received, tenant.arrival, run.tenant),
            (run.received, run.arrival, key),
        )
    }

    /// Adds a task that waits.
    pub(crate) fn insert(&mut self, task: Queued, class: ClassKey, run_key: RunKey, place: Place) {
        let lane = Lane::new(class, place.priority);
        let run = &mut self.runs[run_key];
        if let Some(tasks) = run.queued.get_mut(&lane) {
            tasks.insert(place, task);
            return;
        }
        self.raise_tenant(run_key, class);
        self.raise_run(run_key, lane);
        let (tenant_standing, run_standing) = self.standing_of(run_key);
        let run = &mut self.runs[run_key];
        run.queued.insert(lane, BTreeMap::from([(place, task)]));
        let tenant = &mut self.tenants[run.tenant];
        let is_first = !tenant.waits_for(class);
        tenant.queued.entry(lane).or_default().insert(run_standing);
        if is_first {
            let tenants = self.queued.entry(class).or_default();
            tenants.insert(tenant_standing);
            self.waiting_tenants.insert(tenant_standing);
        }
    }

    /// A tenant that had nothing waiting starts no earlier than those that have.
    fn raise_tenant(&mut self, run: RunKey, class: ClassKey) {
        let tenant = &mut self.tenants[self.runs[run].tenant];
        if !tenant.queued.is_empty() {
            return;
        }
        let of_class = self.queued.get(&class).and_then(BTreeSet::first);
        let due_first = of_class.or_else(|| self.waiting_tenants.first());
        let start = due_first.map_or(self.floor, |(received, ..)| *received);
        tenant.received = tenant.received.max(start);
    }

    /// A run that had nothing waiting starts no earlier than the others of its tenant.
    fn raise_run(&mut self, run: RunKey, lane: Lane) {
        let run = &mut self.runs[run];
        if !run.queued.is_empty() {
            return;
        }
        let tenant = &self.tenants[run.tenant];
        let due_first = tenant.queued.get(&lane).and_then(BTreeSet::first);
        let start = due_first.map_or(tenant.run_floor, |(received, ..)| *received);
        run.received = run.received.max(start);
    }

    /// Takes out a task that waits.
    pub(crate) fn remove(&mut self, class: ClassKey, run_key: RunKey, place: Place) {
        let lane = Lane::new(class, place.priority);
        let (tenant_standing, run_standing) = self.standing_of(run_key);
        let run = &mut self.runs[run_key];
        let Some(tasks) = run.queued.get_mut(&lane) else {
            return;
        };
        tasks.remove(&place);
        if !tasks.is_empty() {
            return;
        }
        run.queued.remove(&lane);
        let tenant = &mut self.tenants[run.tenant];
        let Some(runs) = tenant.queued.get_mut(&lane) else {
            return;
        };
        runs.remove(&run_standing);
        if !runs.is_empty() {
            return;
        }
        tenant.queued.remove(&lane);
        if tenant.queued.is_empty() {
            self.waiting_tenants.remove(&tenant_standing);
        }
        if tenant.waits_for(class) {
            return;
        }
        if let Some(tenants) = self.queued.get_mut(&class) {
            tenants.remove(&tenant_standing);
            if tenants.is_empty() {
                self.queued.remove(&class);
            }
        }
    }

    /// Notes a new lease of a run and charges the run what it is expected to take.
    pub(crate) fn charge(&mut self, run_key: RunKey, slot_nanos: u64) {
        let run = &mut self.runs[run_key];
        run.leases += 1;
        let tenant = &mut self.tenants[run.tenant];
        tenant.run_floor = tenant.run_floor.max(run.received);
        self.floor = self.floor.max(tenant.received);
        self.receive(run_key, slot_nanos, 0);
    }

    /// Notes the end of a lease and replaces what was expected of it by what it took.
    pub(crate) fn settle(&mut self, run_key: RunKey, charged_nanos: u64, taken_nanos: u64) {
        self.runs[run_key].leases -= 1;
        self.receive(run_key, taken_nanos, charged_nanos);
        self.leave(run_key);
    }

    /// Moves a run and its tenant to where `more - less` nanoseconds put them.
    fn receive(&mut self, run_key: RunKey, more: u64, less: u64) {
        let (old_tenant, old_run) = self.standing_of(run_key);
        let run = &mut self.runs[run_key];
        let tenant = &mut self.tenants[run.tenant];
        run.received = moved(run.received, more, less, 1);
        tenant.received = moved(tenant.received, more, less, tenant.weight);
        let (new_tenant, new_run) = self.standing_of(run_key);
        let run = &self.runs[run_key];
        let tenant = &mut self.tenants[run.tenant];
        for lane in run.queued.keys() {
            if let Some(runs) = tenant.queued.get_mut(lane) {
                runs.remove(&old_run);
                runs.insert(new_run);
            }
        }
        if self.waiting_tenants.remove(&old_tenant) {
            self.waiting_tenants.insert(new_tenant);
        }
        for lane in tenant.queued.keys() {
            if let Some(tenants) = self.queued.get_mut(&lane.class)
                && tenants.remove(&old_tenant)
            {
                tenants.insert(new_tenant);
            }
        }
    }

    /// The first task of a lane that a run waits for.
    pub(crate) fn first_of_run(&self, lane: Lane, run: RunKey) -> Option<TaskKey> {
        let tasks = self.runs[run].queued.get(&lane)?;
        tasks.first_key_value().map(|(_, queued)| queued.task)
    }

    /// Whether a tenant already waits in a lane.
    pub(crate) fn waits_in(&self, tenant: TenantKey, lane: Lane) -> bool {
        self.tenants[tenant].queued.contains_key(&lane)
    }

    /// Every tenant that has work, by id, with its runs, by id.
    pub(crate) fn by_id(&self) -> impl Iterator<Item = (&Tenant, impl Iterator<Item = &Run>)> {
        self.tenant_keys.values().map(|key| {
            let tenant = &self.tenants[*key];
            (tenant, tenant.runs.values().map(|run| &self.runs[*run]))
        })
    }
}

fn moved(from: VirtualTime, more_nanos: u64, less_nanos: u64, weight: u32) -> VirtualTime {
    let scaled = |nanos: u64| u128::from(nanos) * VIRTUAL_SCALE / u128::from(weight);
    from.saturating_add(scaled(more_nanos))
        .saturating_sub(scaled(less_nanos))
}
