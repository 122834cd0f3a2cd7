//! The agent's decisions.

mod desire;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use regatta_model::{PlantedBug, SlotIndex, Timestamp};

use crate::config::{
    CoreConfig, DEFAULT_HEARTBEAT_INTERVAL, RUN_CONTAINER_IDLE_LIMIT, STARTED_REPORT_DELAY,
    WARM_RETRY_DELAY,
};
use crate::connection::Connection;
use crate::effect::{Effect, Report, Step};
use crate::event::{ConnectionId, ContainerFate, Event, LeaseKey};
use crate::lease::{Lease, Place, Waiting};
use crate::life::Life;
use crate::slot::{Slot, Slots};

/// The lifecycle of an agent's slots and leases. See the crate's documentation for its invariants.
#[derive(Clone, Debug)]
pub struct AgentCore<Spec, Outcome> {
    config: CoreConfig,
    slots: Slots,
    leases: BTreeMap<LeaseKey, Lease<Spec, Outcome>>,
    waiting: VecDeque<Waiting<Spec>>,
    /// Leases lost, refused or dropped here. States that left the coordinator before it knew still wish for
    /// them; the first that does not ends the memory.
    given_up: BTreeSet<LeaseKey>,
    connection: Option<Connection>,
    heartbeat_interval: Duration,
    unavailable_reason: Option<String>,
    coordinator_drains: bool,
    life: Life,
}

impl<Spec: Clone, Outcome: Clone> AgentCore<Spec, Outcome> {
    /// An agent that holds nothing and is not connected.
    #[must_use]
    pub fn new(config: CoreConfig) -> Self {
        Self {
            slots: Slots::new(config.slots, config.default_shape.as_ref()),
            config,
            leases: BTreeMap::new(),
            waiting: VecDeque::new(),
            given_up: BTreeSet::new(),
            connection: None,
            heartbeat_interval: DEFAULT_HEARTBEAT_INTERVAL,
            unavailable_reason: None,
            coordinator_drains: false,
            life: Life::Serving,
        }
    }

    /// Takes in an event and decides what to do.
    pub fn step(&mut self, now: Timestamp, event: Event<Spec, Outcome>) -> Step<Spec, Outcome> {
        let mut effects = Vec::new();
        if self.life != Life::Ended {
            self.apply(now, event, &mut effects);
            self.start_waiting(&mut effects);
            self.keep_warm(now, &mut effects);
            self.send_report(now, &mut effects);
            self.end_drain(now, &mut effects);
        }
        Step {
            effects,
            wake_at: self.wake_at(),
        }
    }

    /// How many slots work on a lease.
    #[must_use]
    pub fn busy_slots(&self) -> usize {
        self.slots.iter().filter(|slot| slot.is_occupied()).count()
    }

    /// How many idle slots have a container, ready or being started.
    #[must_use]
    pub fn warm_slots(&self) -> usize {
        self.slots
            .iter()
            .filter(|slot| slot.has_idle_container())
            .count()
    }

    fn apply(
        &mut self,
        now: Timestamp,
        event: Event<Spec, Outcome>,
        effects: &mut Vec<Effect<Spec, Outcome>>,
    ) {
        match event {
            Event::ConnectionOpened(id) => self.open_connection(now, id),
            Event::ConnectionLost(id) => {
                self.connection.take_if(|connection| connection.id == id);
            }
            Event::ReportSent(id) => {
                if let Some(connection) = self.connection.as_mut().filter(|open| open.id == id) {
                    connection.note_sent();
                }
            }
            Event::Desired(id, state) => self.take_desired(now, id, state, effects),
            Event::LeaseStarted(slot, key) => self.note_started(now, slot, key),
            Event::UnitFinished(slot, key, outcome) => self.note_outcome(now, slot, key, outcome),
            Event::LeaseFinished(slot, key, fate) => {
                if self.vacate(now, slot, key, fate, effects)
                    && let Some(lease) = self.leases.get_mut(&key)
                {
                    lease.place = Place::Finished(slot);
                    self.report_by(now);
                }
            }
            Event::SlotFailed(slot, key) => {
                if self.vacate(now, slot, key, ContainerFate::Gone, effects) {
                    let was_held = self.leases.remove(&key).is_some();
                    if was_held && !PlantedBug::LossForgotten.is_planted() {
                        self.given_up.insert(key);
                    }
                    self.report_by(now);
                }
            }
            Event::ContainerLost(slot) => {
                if let Some(slot) = self.slots.get_mut(slot) {
                    slot.lose_container(now + WARM_RETRY_DELAY);
                }
            }
            Event::OfferChanged => {
                if let Some(connection) = self.connection.as_mut() {
                    connection.offer_changed(now);
                }
            }
            Event::Unavailable(reason) => {
                if self.unavailable_reason != reason {
                    self.unavailable_reason = reason;
                    self.report_by(now);
                }
            }
            Event::Drain => self.begin_drain(now),
            Event::Kill => self.exit(effects),
            Event::Tick => {}
        }
    }

    fn open_connection(&mut self, now: Timestamp, id: ConnectionId) {
        for lease in self.leases.values_mut() {
            lease.reported_in = None;
        }
        self.connection = Some(Connection::open(id, now));
    }

    fn note_started(&mut self, now: Timestamp, slot: SlotIndex, key: LeaseKey) {
        self.slots.note_container(slot, key);
        if let Some(lease) = self.leases.get_mut(&key)
            && lease.place == Place::Staging(slot)
        {
            lease.place = Place::Running(slot);
            self.report_by(now + STARTED_REPORT_DELAY);
        }
    }

    fn note_outcome(&mut self, now: Timestamp, slot: SlotIndex, key: LeaseKey, outcome: Outcome) {
        if let Some(lease) = self.leases.get_mut(&key)
            && lease.place.working_slot() == Some(slot)
        {
            lease.add_outcome(outcome);
            self.report_by(now);
        }
    }

    /// Tells whether the lease was indeed in the slot.
    fn vacate(
        &mut self,
        now: Timestamp,
        slot: SlotIndex,
        key: LeaseKey,
        fate: ContainerFate,
        effects: &mut Vec<Effect<Spec, Outcome>>,
    ) -> bool {
        let found = self
            .slots
            .get_mut(slot)
            .filter(|slot| slot.is_occupied_by(key));
        let Some(found) = found else {
            return false;
        };
        if found.vacate(now, fate) {
            effects.push(Effect::Evict { slot });
        }
        true
    }

    /// First come, first served, as long as a slot is idle. A lease waits rather than go where it failed before while
    /// another slot ends what nobody wishes for any more: for the coordinator, that one is free.
    fn start_waiting(&mut self, effects: &mut Vec<Effect<Spec, Outcome>>) {
        let is_ending = |slot: &Slot| {
            slot.lease()
                .is_some_and(|key| !self.leases.contains_key(&key))
        };
        let any_ends = self.slots.iter().any(is_ending);
        let mut passed_over = 0;
        while let Some(next) = self.waiting.get(passed_over) {
            let Some(slot) = self.slots.best_for(&next.demand, next.avoid) else {
                return;
            };
            if any_ends && next.avoid == Some(slot.index) {
                passed_over += 1;
                continue;
            }
            let Some(next) = self.waiting.remove(passed_over) else {
                return;
            };
            let container = slot.occupy(next.key, next.demand);
            let slot = slot.index;
            if let Some(lease) = self.leases.get_mut(&next.key) {
                lease.place = Place::Staging(slot);
            }
            effects.push(Effect::Start {
                slot,
                lease: next.key,
                spec: next.spec,
                container,
            });
        }
    }

    fn starts_ahead(&self) -> bool {
        self.life == Life::Serving && !self.coordinator_drains
    }

    fn keep_warm(&mut self, now: Timestamp, effects: &mut Vec<Effect<Spec, Outcome>>) {
        if !self.starts_ahead() {
            return;
        }
        for slot in self.slots.iter_mut() {
            let expired = |since| now.since(since) >= RUN_CONTAINER_IDLE_LIMIT;
            let empty = slot.wants_container() && slot.warm_after <= now;
            if (empty || slot.bound_since().is_some_and(expired))
                && let Some(shape) = slot.warm(now)
            {
                effects.push(Effect::Warm {
                    slot: slot.index,
                    shape,
                });
            }
        }
    }

    fn report_by(&mut self, time: Timestamp) {
        if let Some(connection) = self.connection.as_mut() {
            connection.report_by(time);
        }
    }

    fn send_report(&mut self, now: Timestamp, effects: &mut Vec<Effect<Spec, Outcome>>) {
        let open = self.connection.as_mut().filter(|open| open.is_due(now));
        let Some(header) = open.map(|open| open.begin_report(now + self.heartbeat_interval)) else {
            return;
        };
        for lease in self.leases.values_mut() {
            lease.reported_in.get_or_insert(header.sequence);
        }
        effects.push(Effect::SendReport(Report {
            connection: header.connection,
            sequence: header.sequence,
            observed_version: header.observed_version,
            with_offer: header.with_offer,
            leases: self
                .leases
                .iter()
                .map(|(key, lease)| lease.report(*key, header.is_first()))
                .collect(),
            draining: self.life != Life::Serving,
            unavailable_reason: self.unavailable_reason.clone(),
        }));
    }

    /// What has not started is given back by no longer reporting it.
    fn begin_drain(&mut self, now: Timestamp) {
        if self.life != Life::Serving {
            return;
        }
        self.life = Life::draining(now + self.config.drain_timeout);
        for waiting in self.waiting.drain(..) {
            self.leases.remove(&waiting.key);
            self.given_up.insert(waiting.key);
        }
        self.report_by(now);
    }

    fn end_drain(&mut self, now: Timestamp, effects: &mut Vec<Effect<Spec, Outcome>>) {
        let (idle, nothing_held) = (self.slots.all_idle(), self.leases.is_empty());
        if self.life.is_drained(now, idle, nothing_held) {
            self.exit(effects);
        }
    }

    /// Gives up whatever is left: the driver kills what runs.
    fn exit(&mut self, effects: &mut Vec<Effect<Spec, Outcome>>) {
        self.life = Life::Ended;
        self.leases.clear();
        self.waiting.clear();
        self.connection = None;
        effects.push(Effect::Exit);
    }

    fn wake_at(&self) -> Option<Timestamp> {
        if self.life == Life::Ended {
            return None;
        }
        let ahead = self
            .slots
            .iter()
            .filter(|_| self.starts_ahead())
            .filter_map(|slot| {
                let expires = slot
                    .bound_since()
                    .map(|since| since + RUN_CONTAINER_IDLE_LIMIT);
                expires.or_else(|| slot.wants_container().then_some(slot.warm_after))
            });
        ahead
            .chain(self.connection.as_ref().and_then(Connection::wake_at))
            .chain(self.life.wake_at())
            .min()
    }
}
