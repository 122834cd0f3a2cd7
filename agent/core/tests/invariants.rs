//! The core against a model coordinator and a model machine, under reconnects, duplicates and late
//! arrivals. After every event the invariants of the crate's documentation are checked by name.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up has failed"
)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use proptest::prelude::*;
use regatta_agent_core::{
    AgentCore, ConnectionId, ContainerFate, ContainerPlan, CoreConfig, Demand, DesiredLease,
    DesiredState, Effect, Event, LeaseKey, LeasePhase, Report, Shape, ShareKey, Work,
};
use regatta_model::{
    FencingToken, Isolation, LeaseId, NetworkAccess, Resources, RootDirectory, SlotIndex, Timestamp,
};

const SLOTS: u32 = 3;
/// More than enough rounds for everything in flight to arrive and everything running to end.
const SETTLE_ROUNDS: usize = 400;

type Core = AgentCore<LeaseKey, (LeaseKey, u32)>;
type Desired = DesiredState<LeaseKey>;
type Told = Report<LeaseKey, (LeaseKey, u32)>;

#[derive(Clone, Copy, Debug)]
enum Action {
    Grant {
        run: u8,
        fresh: bool,
        memory: u64,
        units: u32,
        /// The slot to put it in last; there may be no such slot.
        avoid: Option<u32>,
    },
    Cancel(usize),
    CoordinatorHears,
    CoordinatorSpeaks,
    AgentHears,
    AgentHearsAgain,
    AgentHearsLate(usize),
    ReportLeaves,
    Connect,
    Disconnect,
    SlotProgresses(u32),
    SlotFails(u32),
    ContainerLost(u32),
    Pressure(bool),
    Pass(u64),
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => (0..3u8, any::<bool>(), 0..2u64, 1..4u32, prop::option::of(0..=SLOTS)).prop_map(
            |(run, fresh, memory, units, avoid)| Action::Grant { run, fresh, memory, units, avoid }
        ),
        1 => any::<usize>().prop_map(Action::Cancel),
        6 => Just(Action::CoordinatorHears),
        6 => Just(Action::CoordinatorSpeaks),
        6 => Just(Action::AgentHears),
        1 => Just(Action::AgentHearsAgain),
        1 => any::<usize>().prop_map(Action::AgentHearsLate),
        6 => Just(Action::ReportLeaves),
        2 => Just(Action::Connect),
        1 => Just(Action::Disconnect),
        12 => (0..SLOTS).prop_map(Action::SlotProgresses),
        1 => (0..SLOTS).prop_map(Action::SlotFails),
        1 => (0..SLOTS).prop_map(Action::ContainerLost),
        1 => any::<bool>().prop_map(Action::Pressure),
        3 => (1..4_000u64).prop_map(Action::Pass),
    ]
}

/// A lease as the model coordinator knows it.
#[derive(Clone, Debug)]
struct Granted {
    demand: Demand,
    avoid: Option<SlotIndex>,
    units: u32,
    recorded: Vec<(LeaseKey, u32)>,
    told_on: Option<ConnectionId>,
    granted_in: u64,
}

#[derive(Clone, Debug, Default)]
struct MachineSlot {
    /// What is in the slot's container: its shape and everything that ran in it.
    container: Option<(Shape, Vec<Demand>)>,
    lease: Option<LeaseKey>,
    started: bool,
    stopped: bool,
}

#[derive(Debug)]
struct World {
    core: Core,
    now: Timestamp,
    connection: u64,
    connected: bool,
    // The coordinator.
    version: u64,
    observed_sequence: u64,
    next_lease: u64,
    wished: BTreeMap<LeaseKey, Granted>,
    // The network.
    to_agent: VecDeque<(ConnectionId, Desired)>,
    to_coordinator: VecDeque<Told>,
    heard: Vec<(ConnectionId, Desired)>,
    leaving: bool,
    // The machine, and what is true of the agent.
    slots: Vec<MachineSlot>,
    every_grant: BTreeMap<LeaseKey, Granted>,
    ever_started: BTreeSet<LeaseKey>,
    produced: BTreeMap<LeaseKey, u32>,
    acknowledged: BTreeMap<LeaseKey, u32>,
    first_reported: BTreeMap<LeaseKey, u64>,
    accepted_version: u64,
    may_stop: BTreeSet<LeaseKey>,
    forgotten: BTreeSet<LeaseKey>,
    lost: BTreeSet<LeaseKey>,
    exited: bool,
}

fn shape(memory_bytes: u64) -> Shape {
    Shape {
        image: None,
        work_path: "/work".to_owned(),
        root: RootDirectory::Image,
        resources: Resources {
            cpu_milli: 0,
            memory_bytes,
        },
        network: NetworkAccess::Off,
    }
}

impl World {
    fn new() -> Self {
        let config = CoreConfig {
            slots: SLOTS,
            default_shape: Some(shape(0)),
            drain_timeout: Duration::from_secs(60),
        };
        Self {
            core: AgentCore::new(config),
            now: Timestamp::from_nanos(1_000_000_000_000),
            connection: 0,
            connected: false,
            version: 0,
            observed_sequence: 0,
            next_lease: 1,
            wished: BTreeMap::new(),
            to_agent: VecDeque::new(),
            to_coordinator: VecDeque::new(),
            heard: Vec::new(),
            leaving: false,
            slots: vec![MachineSlot::default(); SLOTS as usize],
            every_grant: BTreeMap::new(),
            ever_started: BTreeSet::new(),
            produced: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            first_reported: BTreeMap::new(),
            accepted_version: 0,
            may_stop: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            lost: BTreeSet::new(),
            exited: false,
        }
    }

    fn id(&self) -> ConnectionId {
        ConnectionId(self.connection)
    }

    fn feed(&mut self, event: Event<LeaseKey, (LeaseKey, u32)>) {
        let step = self.core.step(self.now, event);
        for effect in step.effects {
            self.carry_out(effect);
        }
        assert!(
            self.core.busy_slots() <= SLOTS as usize,
            "slots_never_exceeded"
        );
    }

    fn carry_out(&mut self, effect: Effect<LeaseKey, (LeaseKey, u32)>) {
        match effect {
            Effect::SendReport(report) => self.check_report(report),
            Effect::Start {
                slot,
                lease,
                spec,
                container,
            } => {
                assert_eq!(lease, spec);
                self.start(slot, lease, container);
            }
            Effect::Stop { slot, lease } => {
                assert!(
                    self.may_stop.contains(&lease),
                    "no_undesired_lease_survives: killed one"
                );
                let slot = &mut self.slots[slot.0 as usize];
                assert_eq!(slot.lease, Some(lease));
                slot.stopped = true;
            }
            Effect::Warm { slot, shape } => {
                let slot = &mut self.slots[slot.0 as usize];
                assert_eq!(slot.lease, None, "warmed over a lease");
                slot.container = Some((shape, Vec::new()));
            }
            Effect::Evict { slot } => {
                let slot = &mut self.slots[slot.0 as usize];
                assert_eq!(slot.lease, None, "evicted under a lease");
                slot.container = None;
            }
            Effect::Exit => self.exited = true,
        }
    }

    fn start(&mut self, slot: SlotIndex, lease: LeaseKey, plan: ContainerPlan) {
        assert!(self.ever_started.insert(lease), "no_lease_runs_twice");
        assert!(slot.0 < SLOTS, "slots_never_exceeded");
        let Granted { demand, avoid, .. } = self.every_grant[&lease].clone();
        assert!(
            avoid != Some(slot) || (self.idle_slots().eq([slot]) && !self.any_ends()),
            "no_avoided_slot_while_another_is_idle"
        );
        let slot = &mut self.slots[slot.0 as usize];
        assert_eq!(slot.lease, None, "slots_never_exceeded");
        if plan == ContainerPlan::Replace {
            slot.container = None;
        }
        let made = || (demand.key.shape.clone(), Vec::new());
        let (shape, users) = slot.container.get_or_insert_with(made);
        assert_eq!(
            *shape, demand.key.shape,
            "container_never_shared_across_runs"
        );
        let shared = |user: &Demand| {
            user.key == demand.key
                && user.isolation == Isolation::Run
                && demand.isolation == Isolation::Run
        };
        assert!(
            users.iter().all(shared),
            "container_never_shared_across_runs"
        );
        users.push(demand);
        *slot = MachineSlot {
            container: slot.container.take(),
            lease: Some(lease),
            ..Default::default()
        };
    }

    fn idle_slots(&self) -> impl Iterator<Item = SlotIndex> {
        let slots = (0..).map(SlotIndex).zip(&self.slots);
        slots.filter_map(|(index, slot)| slot.lease.is_none().then_some(index))
    }

    /// Whether a lease is being ended in a slot that nobody wishes for any more.
    fn any_ends(&self) -> bool {
        self.slots
            .iter()
            .any(|slot| slot.lease.is_some() && slot.stopped)
    }

    fn check_report(&mut self, report: Told) {
        assert!(self.connected && report.connection == self.id());
        assert!(!self.leaving, "two reports in flight");
        self.leaving = true;
        assert_eq!(report.observed_version, self.accepted_version);
        assert_eq!(
            report.with_offer,
            report.sequence == 1,
            "the first report tells everything"
        );
        let mut reported = BTreeSet::new();
        for lease in &report.leases {
            assert!(reported.insert(lease.key));
            self.first_reported
                .entry(lease.key)
                .or_insert(report.sequence);
            let produced = self.produced.get(&lease.key).copied().unwrap_or(0);
            let acknowledged = self.acknowledged.get(&lease.key).copied().unwrap_or(0);
            let expected: Vec<_> = (acknowledged..produced).map(|n| (lease.key, n)).collect();
            assert_eq!(
                lease.outcomes, expected,
                "every_outcome_reported_until_acknowledged"
            );
            assert_eq!(lease.outcome_count, produced);
            let busy = self.slots.iter().any(|slot| slot.lease == Some(lease.key));
            let waits = lease.slot.is_none();
            let avoid = self.every_grant[&lease.key].avoid;
            let may_wait = self.any_ends() && self.idle_slots().all(|slot| avoid == Some(slot));
            assert!(
                !waits || may_wait || self.idle_slots().next().is_none(),
                "no_lease_waits_beside_an_idle_slot"
            );
            assert_eq!(lease.phase == LeasePhase::Finished, !busy && !waits);
            assert!(
                !self.forgotten.contains(&lease.key),
                "no_undesired_lease_survives"
            );
        }
        for key in &self.ever_started {
            let gone = self.forgotten.contains(key) || self.lost.contains(key);
            assert!(
                gone || reported.contains(key),
                "a lease that is still wished for was dropped"
            );
        }
        self.to_coordinator.push_back(report);
    }

    fn deliver(&mut self, id: ConnectionId, state: Desired) {
        let accepted = self.connected && id == self.id() && state.version > self.accepted_version;
        if accepted {
            self.accepted_version = state.version;
            for lease in &state.leases {
                let produced = self.produced.get(&lease.key).copied().unwrap_or(0);
                let known = self.acknowledged.entry(lease.key).or_insert(0);
                *known = (*known).max(lease.acknowledged_outcomes.min(produced));
            }
            let wished: BTreeSet<_> = state.leases.iter().map(|lease| lease.key).collect();
            let seen = self
                .first_reported
                .iter()
                .filter(|(_, at)| **at <= state.observed_sequence);
            let undesired: Vec<_> = seen
                .map(|(key, _)| *key)
                .filter(|key| !wished.contains(key))
                .collect();
            self.may_stop.extend(&undesired);
            self.forgotten.extend(&undesired);
        }
        self.heard.push((id, state.clone()));
        self.feed(Event::Desired(id, state));
        for key in &self.forgotten {
            let survives = |slot: &MachineSlot| slot.lease == Some(*key) && !slot.stopped;
            assert!(
                !self.slots.iter().any(survives),
                "no_undesired_lease_survives"
            );
        }
    }

    fn grant(&mut self, (run, fresh, memory): (u8, bool, u64), units: u32, avoid: Option<u32>) {
        let key = LeaseKey {
            lease: LeaseId(self.next_lease),
            token: FencingToken(self.next_lease * 7),
        };
        self.next_lease += 1;
        let share = ShareKey {
            tenant: format!("t{}", run % 2).parse().unwrap(),
            run: format!("r{run}").parse().unwrap(),
            shape: shape(memory),
        };
        let isolation = if fresh {
            Isolation::Fresh
        } else {
            Isolation::Run
        };
        let granted = Granted {
            demand: Demand {
                key: share,
                isolation,
            },
            avoid: avoid.map(SlotIndex),
            units,
            recorded: Vec::new(),
            told_on: None,
            granted_in: self.version + 1,
        };
        self.every_grant.insert(key, granted.clone());
        self.wished.insert(key, granted);
    }

    fn coordinator_hears(&mut self) {
        let Some(report) = self.to_coordinator.pop_front() else {
            return;
        };
        if report.connection != self.id() {
            return;
        }
        self.observed_sequence = report.sequence;
        let mut held = BTreeSet::new();
        for lease in &report.leases {
            held.insert(lease.key);
            let Some(granted) = self.wished.get_mut(&lease.key) else {
                continue;
            };
            granted.told_on = Some(report.connection);
            let first = lease.outcome_count as usize - lease.outcomes.len();
            assert!(first <= granted.recorded.len(), "an outcome was skipped");
            let known = granted.recorded.len() - first;
            granted.recorded.extend(lease.outcomes.iter().skip(known));
            if lease.phase == LeasePhase::Finished {
                assert_eq!(granted.recorded.len(), lease.outcome_count as usize);
                self.wished.remove(&lease.key);
            }
        }
        // What a state that the agent has seen wished for, and the agent does not hold, is lost.
        let lost = |granted: &Granted| granted.granted_in <= report.observed_version;
        self.wished
            .retain(|key, granted| held.contains(key) || !lost(granted));
    }

    fn coordinator_speaks(&mut self) {
        if !self.connected {
            return;
        }
        self.version += 1;
        let lease = |(key, granted): (&LeaseKey, &Granted)| DesiredLease {
            key: *key,
            acknowledged_outcomes: u32::try_from(granted.recorded.len()).unwrap(),
            work: (granted.told_on != Some(ConnectionId(self.connection))).then(|| Work {
                demand: granted.demand.clone(),
                avoid: granted.avoid,
                spec: *key,
            }),
        };
        let state = DesiredState {
            version: self.version,
            observed_sequence: self.observed_sequence,
            drain: false,
            heartbeat_interval: Duration::from_secs(1),
            leases: self.wished.iter().map(lease).collect(),
        };
        self.to_agent.push_back((self.id(), state));
    }

    fn connect(&mut self) {
        self.disconnect();
        self.connection += 1;
        self.connected = true;
        self.observed_sequence = 0;
        self.accepted_version = 0;
        self.first_reported.clear();
        for granted in self.wished.values_mut() {
            granted.granted_in = self.version + 1;
        }
        self.feed(Event::ConnectionOpened(self.id()));
    }

    /// What was under way to the agent may still arrive, late: it moves to what was heard.
    fn disconnect(&mut self) {
        if self.connected {
            self.connected = false;
            self.leaving = false;
            self.heard.extend(self.to_agent.drain(..));
            self.feed(Event::ConnectionLost(self.id()));
        }
    }

    fn slot_progresses(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        let Some(key) = slot.lease else { return };
        let produced = self.produced.entry(key).or_insert(0);
        let finished = slot.stopped || *produced == self.every_grant[&key].units;
        let slot_index = SlotIndex(index);
        if finished {
            slot.lease = None;
            self.feed(Event::LeaseFinished(slot_index, key, ContainerFate::Kept));
        } else if slot.started {
            let outcome = (key, *produced);
            *produced += 1;
            self.feed(Event::UnitFinished(slot_index, key, outcome));
        } else {
            slot.started = true;
            self.feed(Event::LeaseStarted(slot_index, key));
        }
    }

    fn slot_fails(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        let Some(key) = slot.lease.take() else { return };
        slot.container = None;
        self.lost.insert(key);
        self.feed(Event::SlotFailed(SlotIndex(index), key));
    }

    fn container_lost(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        if slot.lease.is_none() {
            slot.container = None;
            self.feed(Event::ContainerLost(SlotIndex(index)));
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Grant {
                run,
                fresh,
                memory,
                units,
                avoid,
            } => self.grant((run, fresh, memory), units, avoid),
            Action::Cancel(nth) => {
                let key = self
                    .wished
                    .keys()
                    .nth(nth % self.wished.len().max(1))
                    .copied();
                key.and_then(|key| self.wished.remove(&key));
            }
            Action::CoordinatorHears => self.coordinator_hears(),
            Action::CoordinatorSpeaks => self.coordinator_speaks(),
            Action::AgentHears => {
                if let Some((id, state)) = self.to_agent.pop_front() {
                    self.deliver(id, state);
                }
            }
            Action::AgentHearsAgain => {
                if let Some((id, state)) = self.heard.last().cloned() {
                    self.deliver(id, state);
                }
            }
            Action::AgentHearsLate(nth) => {
                if !self.heard.is_empty() {
                    let (id, state) = self.heard.swap_remove(nth % self.heard.len());
                    self.deliver(id, state);
                }
            }
            Action::ReportLeaves => {
                if self.leaving {
                    self.leaving = false;
                    self.feed(Event::ReportSent(self.id()));
                }
            }
            Action::Connect => self.connect(),
            Action::Disconnect => self.disconnect(),
            Action::SlotProgresses(index) => self.slot_progresses(index),
            Action::SlotFails(index) => self.slot_fails(index),
            Action::ContainerLost(index) => self.container_lost(index),
            Action::Pressure(on) => {
                self.feed(Event::Unavailable(on.then(|| "disk full".to_owned())));
            }
            Action::Pass(millis) => self.pass(millis),
        }
    }

    fn pass(&mut self, millis: u64) {
        self.now = self.now + Duration::from_millis(millis);
        self.feed(Event::Tick);
    }

    /// Everything in flight arrives and everything running ends.
    fn settle(&mut self) {
        self.act(Action::Pressure(false));
        self.act(Action::Connect);
        for _ in 0..SETTLE_ROUNDS {
            self.act(Action::ReportLeaves);
            self.act(Action::CoordinatorHears);
            self.act(Action::CoordinatorSpeaks);
            self.act(Action::AgentHears);
            (0..SLOTS).for_each(|slot| self.slot_progresses(slot));
            self.pass(10);
        }
        assert!(
            self.wished.is_empty(),
            "every_outcome_reported_until_acknowledged"
        );
        assert!(
            self.slots.iter().all(|slot| slot.lease.is_none()),
            "no_undesired_lease_survives"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..Default::default() })]

    #[test]
    fn the_invariants_hold_whatever_happens(actions in prop::collection::vec(action(), 0..200)) {
        let mut world = World::new();
        world.act(Action::Connect);
        for action in actions {
            world.act(action);
        }
        world.settle();
    }

    #[test]
    fn a_drain_always_ends(actions in prop::collection::vec(action(), 0..100), connected: bool) {
        let mut world = World::new();
        world.act(Action::Connect);
        for action in actions {
            world.act(action);
        }
        if !connected {
            world.act(Action::Disconnect);
        }
        let started = world.ever_started.len();
        world.feed(Event::Drain);
        for _ in 0..61 {
            world.pass(1_000);
        }
        prop_assert!(world.exited);
        prop_assert_eq!(world.ever_started.len(), started);
    }
}

#[test]
fn a_dropped_lease_is_not_started_again() {
    let mut world = World::new();
    world.act(Action::Connect);
    world.act(Action::Grant {
        run: 0,
        fresh: false,
        memory: 0,
        units: 1,
        avoid: None,
    });
    let granted = world.wished.clone();
    for wished in [granted.clone(), BTreeMap::new(), granted] {
        world.wished = wished;
        world.act(Action::CoordinatorSpeaks);
        world.act(Action::AgentHears);
        world.act(Action::ReportLeaves);
        world.observed_sequence = world.to_coordinator.back().unwrap().sequence;
    }
    let slot = world.slots.iter().position(|slot| slot.stopped).unwrap();
    world.slot_progresses(u32::try_from(slot).unwrap());
    assert_eq!(world.ever_started.len(), 1);
    assert!(
        world.slots.iter().all(|slot| slot.lease.is_none()),
        "no_lease_runs_twice"
    );
}

#[test]
fn a_lease_waits_for_a_slot_that_ends_rather_than_go_where_it_failed() {
    let grant = |avoid| Action::Grant {
        run: 0,
        fresh: false,
        memory: 0,
        units: 1,
        avoid,
    };
    let mut world = World::new();
    world.act(Action::Connect);
    let speak = [Action::CoordinatorSpeaks, Action::AgentHears];
    let hear = [Action::ReportLeaves, Action::CoordinatorHears];
    world.act(grant(None));
    world.act(grant(None));
    // The second report tells of the leases.
    for _ in 0..2 {
        for action in speak.into_iter().chain(hear) {
            world.act(action);
        }
    }
    let ending = world.slots.iter().position(|slot| slot.lease.is_some());
    let ending = ending.unwrap();
    let idle = world.idle_slots().next().unwrap();
    world.wished.remove(&world.slots[ending].lease.unwrap());
    world.act(grant(Some(idle.0)));
    let waits = *world.wished.keys().next_back().unwrap();
    for action in speak {
        world.act(action);
    }
    assert!(world.slots[ending].stopped);
    assert!(!world.ever_started.contains(&waits));
    world.slot_progresses(u32::try_from(ending).unwrap());
    assert_eq!(world.slots[ending].lease, Some(waits));
}

#[test]
fn a_heartbeat_comes_from_time_alone() {
    let mut world = World::new();
    world.act(Action::Connect);
    world.act(Action::ReportLeaves);
    assert_eq!(world.to_coordinator.len(), 1);
    world.pass(1_000);
    assert_eq!(world.to_coordinator.len(), 1);
    world.pass(1_000);
    assert_eq!(world.to_coordinator.len(), 2);
    world.pass(9_000);
    assert_eq!(
        world.to_coordinator.len(),
        2,
        "one report in flight at most"
    );
}

#[test]
fn a_container_whose_run_has_gone_quiet_is_replaced_by_an_unused_one() {
    let mut world = World::new();
    world.act(Action::Connect);
    world.act(Action::Grant {
        run: 0,
        fresh: false,
        memory: 0,
        units: 1,
        avoid: None,
    });
    world.act(Action::CoordinatorSpeaks);
    world.act(Action::AgentHears);
    (0..3).for_each(|_| world.slot_progresses(0));
    assert_eq!(world.slots[0].container.as_ref().unwrap().1.len(), 1);
    world.pass(9_999);
    assert_eq!(world.slots[0].container.as_ref().unwrap().1.len(), 1);
    world.pass(1);
    assert!(world.slots[0].container.as_ref().unwrap().1.is_empty());
}

#[test]
fn a_kill_ends_at_once() {
    let mut world = World::new();
    world.feed(Event::Kill);
    assert!(world.exited);
}
