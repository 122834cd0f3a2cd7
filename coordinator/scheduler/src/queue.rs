//! Fair queues: tenants, then runs, then tasks.
//!
//! Both upper levels are start-time fair queueing (Goyal, Vin and Cheng, 1996): whoever has had the
//! least slot time for its weight goes next, and whoever comes back from having nothing to do starts
//! level with the others, so that idleness earns no credit.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use regatta_model::{RunId, TaskId, TenantId};

use crate::affinity::Wish;
use crate::fleet::ClassKey;
use crate::slab::{Key, Slab};
use crate::task::TaskKey;

pub(crate) type TenantKey = Key<Tenant>;
pub(crate) type RunKey = Key<Run>;

/// Slot time received, for a weight of one, in nanoseconds times [`VIRTUAL_SCALE`].
type VirtualTime = u128;

/// Keeps the fractions that dividing by a weight would lose.
const VIRTUAL_SCALE: u128 = 1 << 20;

/// A task's rank among those of its run: priority, then the longest, then the first to arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) priority: i32,
    longest_nanos: Reverse<u64>,
    arrival: u64,
}

impl Place {
    pub(crate) fn new(priority: i32, longest_nanos: u64, arrival: u64) -> Self {
        Self {
            priority,
            longest_nanos: Reverse(longest_nanos),
            arrival,
        }
    }
}

/// A task that waits, and what decides where it goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Queued {
    pub(crate) task: TaskKey,
    pub(crate) wish: Wish,
}

/// A task's rank among all tasks of its class; less goes first, in other classes too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Turn {
    tenant: (VirtualTime, TenantKey),
    pub(crate) run: (VirtualTime, RunKey),
    pub(crate) place: Place,
}

/// One who pays.
#[derive(Debug)]
pub(crate) struct Tenant {
    pub(crate) id: TenantId,
    pub(crate) weight: u32,
    received: VirtualTime,
    /// Where a run starts that finds no other waiting.
    run_floor: VirtualTime,
    /// Its runs with tasks that wait, by class, those that are due first in front.
    queued: BTreeMap<ClassKey, BTreeSet<(VirtualTime, RunKey)>>,
    runs: BTreeMap<RunId, RunKey>,
}

/// One on whose behalf.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) id: RunId,
    pub(crate) tenant: TenantKey,
    received: VirtualTime,
    queued: BTreeMap<ClassKey, BTreeMap<Place, Queued>>,
    /// What it wants.
    pub(crate) tasks: BTreeSet<TaskId>,
    /// How many leases are on its account.
    leases: usize,
    pub(crate) queued_units: usize,
    pub(crate) leased_units: usize,
}

/// Everything that waits, in the order in which it is due.
#[derive(Debug, Default)]
pub(crate) struct FairQueue {
    tenants: Slab<Tenant>,
    runs: Slab<Run>,
    tenant_keys: BTreeMap<TenantId, TenantKey>,
    /// Tenants with tasks that wait, by class, those that are due first in front.
    queued: BTreeMap<ClassKey, BTreeSet<(VirtualTime, TenantKey)>>,
    /// Tenants with tasks that wait, of any class.
    waiting_tenants: BTreeSet<(VirtualTime, TenantKey)>,
    /// Where a tenant starts that finds no other waiting.
    floor: VirtualTime,
}

impl FairQueue {
    pub(crate) fn tenant(&self, key: TenantKey) -> &Tenant {
        &self.tenants[key]
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
        let tenant_key = match self.tenant_keys.get(tenant) {
            Some(key) => *key,
            None => {
                let key = self.tenants.insert(Tenant {
                    id: tenant.clone(),
                    weight: weight.max(1),
                    received: 0,
                    run_floor: 0,
                    queued: BTreeMap::new(),
                    runs: BTreeMap::new(),
                });
                self.tenant_keys.insert(tenant.clone(), key);
                key
            }
        };
        let known = &mut self.tenants[tenant_key].runs;
        if let Some(key) = known.get(run) {
            return *key;
        }
        let key = self.runs.insert(Run {
            id: run.clone(),
            tenant: tenant_key,
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

    /// Whether a task of the class waits.
    pub(crate) fn has(&self, class: ClassKey) -> bool {
        self.queued.contains_key(&class)
    }

    /// Adds a task that waits.
    pub(crate) fn insert(&mut self, task: Queued, class: ClassKey, run_key: RunKey, place: Place) {
        let run = &mut self.runs[run_key];
        if let Some(tasks) = run.queued.get_mut(&class) {
            tasks.insert(place, task);
            return;
        }
        self.raise_tenant(run_key, class);
        self.raise_run(run_key, class);
        let run = &mut self.runs[run_key];
        run.queued.insert(class, BTreeMap::from([(place, task)]));
        let tenant = &mut self.tenants[run.tenant];
        let runs = tenant.queued.entry(class).or_default();
        let is_first = runs.is_empty();
        runs.insert((run.received, run_key));
        if is_first {
            let entry = (tenant.received, run.tenant);
            self.queued.entry(class).or_default().insert(entry);
            self.waiting_tenants.insert(entry);
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
        let start = due_first.map_or(self.floor, |(received, _)| *received);
        tenant.received = tenant.received.max(start);
    }

    /// A run that had nothing waiting starts no earlier than the others of its tenant.
    fn raise_run(&mut self, run: RunKey, class: ClassKey) {
        let run = &mut self.runs[run];
        if !run.queued.is_empty() {
            return;
        }
        let tenant = &self.tenants[run.tenant];
        let due_first = tenant.queued.get(&class).and_then(BTreeSet::first);
        let start = due_first.map_or(tenant.run_floor, |(received, _)| *received);
        run.received = run.received.max(start);
    }

    /// Takes out a task that waits.
    pub(crate) fn remove(&mut self, class: ClassKey, run_key: RunKey, place: Place) {
        let run = &mut self.runs[run_key];
        let Some(tasks) = run.queued.get_mut(&class) else {
            return;
        };
        tasks.remove(&place);
        if !tasks.is_empty() {
            return;
        }
        run.queued.remove(&class);
        let tenant = &mut self.tenants[run.tenant];
        let Some(runs) = tenant.queued.get_mut(&class) else {
            return;
        };
        runs.remove(&(run.received, run_key));
        if !runs.is_empty() {
            return;
        }
        tenant.queued.remove(&class);
        let entry = (tenant.received, run.tenant);
        if tenant.queued.is_empty() {
            self.waiting_tenants.remove(&entry);
        }
        if let Some(tenants) = self.queued.get_mut(&class) {
            tenants.remove(&entry);
            if tenants.is_empty() {
                self.queued.remove(&class);
            }
        }
    }

    /// Notes a new lease of a run and charges the run what it is expected to take.
    pub(crate) fn charge(&mut self, run_key: RunKey, units: usize, slot_nanos: u64) {
        let run = &mut self.runs[run_key];
        run.leases += 1;
        run.leased_units += units;
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
        let run = &mut self.runs[run_key];
        let tenant_key = run.tenant;
        let tenant = &mut self.tenants[tenant_key];
        let (old_run, old_tenant) = (run.received, tenant.received);
        run.received = moved(old_run, more, less, 1);
        tenant.received = moved(old_tenant, more, less, tenant.weight);
        for class in run.queued.keys() {
            if let Some(runs) = tenant.queued.get_mut(class) {
                runs.remove(&(old_run, run_key));
                runs.insert((run.received, run_key));
            }
        }
        let (old, new) = ((old_tenant, tenant_key), (tenant.received, tenant_key));
        if self.waiting_tenants.remove(&old) {
            self.waiting_tenants.insert(new);
        }
        for class in tenant.queued.keys() {
            if let Some(tenants) = self.queued.get_mut(class) {
                tenants.remove(&old);
                tenants.insert(new);
            }
        }
    }

    /// The tasks of a class that wait, in the order in which they are due.
    pub(crate) fn due(&self, class: ClassKey) -> impl Iterator<Item = (Turn, Queued)> {
        let tenants = self.queued.get(&class).into_iter().flatten();
        let runs = tenants.flat_map(move |tenant| {
            let runs = self.tenants[tenant.1].queued.get(&class);
            runs.into_iter().flatten().map(move |run| (*tenant, *run))
        });
        runs.flat_map(move |(tenant, run)| {
            let tasks = self.runs[run.1].queued.get(&class);
            let turn = move |place: &Place| Turn {
                tenant,
                run,
                place: *place,
            };
            tasks
                .into_iter()
                .flatten()
                .map(move |(place, task)| (turn(place), *task))
        })
    }

    /// The first task of a class that a run waits for.
    pub(crate) fn first_of_run(&self, class: ClassKey, run: RunKey) -> Option<TaskKey> {
        let tasks = self.runs[run].queued.get(&class)?;
        tasks.first_key_value().map(|(_, queued)| queued.task)
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
