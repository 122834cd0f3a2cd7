//! What machines do with what their agents decide.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use regatta_agent_core::{ContainerFate, Effect, Event, LeaseKey};
use regatta_model::{Digest, SlotIndex};

use super::happening::{Happening, Slot};
use super::{Ended, World};
use crate::job::{self, Task};
use crate::machine::{Outcome, Spec, Working};
use crate::model::Executed;

/// How long inputs take to be laid out, in milliseconds.
const STAGING_MILLIS: (u64, u64) = (1, 60);
/// How long a slot takes to fail.
const FAILING_MILLIS: (u64, u64) = (0, 3);
/// How long most executions take, and some.
const USUAL_MILLIS: (u64, u64) = (10, 4000);
const LONG_MILLIS: (u64, u64) = (4000, 40_000);
/// How long what is killed takes to end.
const STOPPING_MILLIS: (u64, u64) = (1, 300);
/// How long an agent waits for an answer to an upload, and how often it tries.
const UPLOAD_PATIENCE: Duration = Duration::from_secs(8);
const UPLOAD_ATTEMPTS: u32 = 6;

/// A blob on its way to the store, and the outcome that names it.
#[derive(Clone, Debug)]
pub(super) struct Upload {
    slot: Slot,
    bytes: Bytes,
    outcome: Outcome,
    attempts: u32,
}

impl World {
    pub(super) fn start_machine(&mut self, index: usize) -> Result<(), Ended> {
        let machine = &mut self.machines[index];
        if machine.core.is_some() {
            return Ok(());
        }
        machine.start();
        let (name, life) = (machine.name(), machine.life);
        self.tell(&format!("{name} starts for the {life}. time"));
        self.feed(index, Event::Tick)?;
        let pause = self.random.millis(1, 100);
        let connects = Happening::Connects {
            machine: index,
            life,
        };
        self.after(pause, connects);
        Ok(())
    }

    pub(super) fn wake(&mut self, index: usize, life: u64) -> Result<(), Ended> {
        let machine = &mut self.machines[index];
        if machine.life != life || machine.wake_at.is_none_or(|at| at > self.now) {
            return Ok(());
        }
        machine.wake_at = None;
        self.feed(index, Event::Tick)
    }

    /// Tells an agent's core something, and does what it decides.
    pub(super) fn feed(&mut self, index: usize, event: Event<Spec, Outcome>) -> Result<(), Ended> {
        let Some((step, wake_at)) = self.machines[index].step(self.now, event) else {
            return Ok(());
        };
        for effect in step.effects {
            self.carry_out(index, effect)?;
        }
        let machine = &mut self.machines[index];
        let life = machine.life;
        if machine.wake_at != wake_at {
            machine.wake_at = wake_at;
            if let Some(at) = wake_at {
                self.at(
                    at,
                    Happening::Wakes {
                        machine: index,
                        life,
                    },
                );
            }
        }
        Ok(())
    }

    fn carry_out(&mut self, index: usize, effect: Effect<Spec, Outcome>) -> Result<(), Ended> {
        match effect {
            Effect::SendReport(report) => {
                let machine = &self.machines[index];
                let link = machine.link.filter(|it| it.number == report.connection.0);
                if let Some(link) = link {
                    let report = machine.report(report);
                    self.send_report(link, report);
                }
            }
            Effect::Start {
                slot, lease, spec, ..
            } => self.begin(index, slot, lease, spec)?,
            Effect::Stop { slot, lease } => {
                let place = usize::try_from(slot.0).unwrap_or(usize::MAX);
                let working = self.machines[index].slots.get_mut(place);
                let working = working
                    .and_then(Option::as_mut)
                    .filter(|it| it.key == lease);
                if let Some(working) = working {
                    working.stopped = true;
                    let slot = self.slot_of(index, place);
                    let (first, last) = STOPPING_MILLIS;
                    let delay = self.random.millis(first, last);
                    self.tell(&format!("m{index} stops lease {}", lease.lease.0));
                    self.after(delay, Happening::Stopped(slot, lease));
                }
            }
            Effect::Warm { .. } | Effect::Evict { .. } => {}
            Effect::Exit => self.exit(index),
        }
        Ok(())
    }

    fn exit(&mut self, index: usize) {
        let machine = &mut self.machines[index];
        let (link, restarts_after) = (machine.link, machine.restarts_after);
        machine.stop();
        self.tell(&format!("m{index} ends"));
        if let Some(link) = link {
            self.after(Duration::from_millis(1), Happening::LinkEnds(link));
        }
        if let Some(pause) = restarts_after {
            self.after(pause, Happening::MachineStarts(index));
        }
    }

    fn slot_of(&self, machine: usize, slot: usize) -> Slot {
        let working = self.machines[machine].slots.get(slot);
        let part = working.and_then(Option::as_ref).map_or(0, |it| it.part);
        Slot {
            machine,
            life: self.machines[machine].life,
            slot,
            part,
        }
    }

    /// The work in a slot, unless it has gone on or ended since.
    fn working(&mut self, slot: Slot) -> Option<&mut Working> {
        let machine = self.machines.get_mut(slot.machine)?;
        if machine.life != slot.life || machine.core.is_none() {
            return None;
        }
        let working = machine.slots.get_mut(slot.slot)?.as_mut();
        working.filter(|working| working.part == slot.part)
    }

    fn begin(
        &mut self,
        index: usize,
        slot: SlotIndex,
        key: LeaseKey,
        spec: Spec,
    ) -> Result<(), Ended> {
        let life = self.machines[index].life;
        self.tell(&format!("m{index} begins lease {}", key.lease.0));
        self.model.begins(index, life, key.lease.0, key.token.0)?;
        self.parts += 1;
        let place = usize::try_from(slot.0).unwrap_or(usize::MAX);
        if let Some(place) = self.machines[index].slots.get_mut(place) {
            *place = Some(Working {
                key,
                spec,
                tasks: Vec::new(),
                next: 0,
                stopped: false,
                part: self.parts,
            });
        }
        let slot = self.slot_of(index, place);
        let fails = self.machines[index].slots_fail_until > self.now;
        let (first, last) = if fails {
            FAILING_MILLIS
        } else {
            STAGING_MILLIS
        };
        let delay = self.random.millis(first, last);
        self.after(delay, Happening::Works(slot));
        Ok(())
    }

    /// The next thing in a slot: its lease starts, an execution ends, or the lease does.
    pub(super) fn work(&mut self, slot: Slot) -> Result<(), Ended> {
        let index = SlotIndex(u32::try_from(slot.slot).unwrap_or(u32::MAX));
        let Some(working) = self.working(slot) else {
            return Ok(());
        };
        if working.stopped {
            return Ok(());
        }
        let (key, next, spec) = (working.key, working.next, Arc::clone(&working.spec));
        let task = next.checked_sub(1).and_then(|last| working.tasks.get(last));
        let task = task.cloned().unwrap_or(Task::Nonsense);
        if spec.executions.is_empty() {
            return self.lease_ends(slot, key);
        }
        let Some(execution) = next
            .checked_sub(1)
            .and_then(|last| spec.executions.get(last))
        else {
            // Nothing has begun yet.
            if self.machines[slot.machine].slots_fail_until > self.now {
                return self.fail_slot(slot.machine, slot.slot);
            }
            let stock = &self.durable.stock;
            let tasks = spec.executions.iter().map(|it| Task::of(&spec, it, stock));
            let tasks = tasks.collect();
            if let Some(working) = self.working(slot) {
                working.next = 1;
                working.tasks = tasks;
            }
            self.feed(slot.machine, Event::LeaseStarted(index, key))?;
            self.execute_next(slot);
            return Ok(());
        };
        let (outcome, blob) = self.execute(slot.machine, key, &task);
        let mut outcome = outcome;
        outcome.unit = execution.unit;
        outcome.slot = index.0;
        let outcome = Arc::new(outcome);
        match blob {
            Some(bytes) => {
                self.parts += 1;
                let number = self.parts;
                let upload = Upload {
                    slot,
                    bytes,
                    outcome,
                    attempts: 0,
                };
                self.uploads.insert(number, upload);
                self.upload(number)
            }
            None => self.unit_ends(slot, outcome),
        }
    }

    fn execute(
        &mut self,
        machine: usize,
        key: LeaseKey,
        task: &Task,
    ) -> (regatta_wire::v1::ExecutionOutcome, Option<Bytes>) {
        if self.machines[machine].fails_until > self.now {
            return (job::lost(), None);
        }
        let tests = match task {
            Task::Test(test) => vec![test.clone()],
            Task::Tests(tests) => tests.clone(),
            Task::List(_) | Task::Build(_) | Task::Blocked(_) | Task::Nonsense => Vec::new(),
        };
        let begun = &mut self.begun_tests;
        let verdicts: Vec<bool> = tests.iter().map(|it| job::passes(it, begun)).collect();
        let as_blob = self.random.chance(300);
        let number = self.model.next_execution();
        let (outcome, blob) = job::outcome(task, number, &verdicts, as_blob);
        let executed = Executed {
            machine,
            lease: key.lease.0,
            token: key.token.0,
            tests: tests.into_iter().zip(verdicts).collect(),
            counts: false,
        };
        self.tell(&format!("m{machine} has executed {number}: {task:?}"));
        let printed = blob.as_ref().map(|bytes| Digest::of(bytes));
        self.model.executes(executed, printed);
        (outcome, blob)
    }

    fn execute_next(&mut self, slot: Slot) {
        let is_long = self.random.chance(60);
        let (first, last) = if is_long { LONG_MILLIS } else { USUAL_MILLIS };
        let own = self.random.millis(first, last);
        let Some(working) = self.working(slot) else {
            return;
        };
        let task = working.next.checked_sub(1);
        let task = task.and_then(|it| working.tasks.get(it));
        let takes = task.map(|it| it.takes(own));
        if let Some(takes) = takes {
            self.after(takes, Happening::Works(slot));
        }
    }

    fn unit_ends(&mut self, slot: Slot, outcome: Outcome) -> Result<(), Ended> {
        let index = SlotIndex(u32::try_from(slot.slot).unwrap_or(u32::MAX));
        let Some(working) = self.working(slot).filter(|working| !working.stopped) else {
            return Ok(());
        };
        working.next += 1;
        let (key, is_last) = (working.key, working.next > working.spec.executions.len());
        self.feed(slot.machine, Event::UnitFinished(index, key, outcome))?;
        if is_last {
            return self.lease_ends(slot, key);
        }
        self.execute_next(slot);
        Ok(())
    }

    fn lease_ends(&mut self, slot: Slot, key: LeaseKey) -> Result<(), Ended> {
        let index = SlotIndex(u32::try_from(slot.slot).unwrap_or(u32::MAX));
        if self.working(slot).is_none() {
            return Ok(());
        }
        self.machines[slot.machine].slots[slot.slot] = None;
        let fate = if self.random.chance(900) {
            ContainerFate::Kept
        } else {
            ContainerFate::Gone
        };
        self.feed(slot.machine, Event::LeaseFinished(index, key, fate))
    }

    pub(super) fn stopped(&mut self, slot: Slot, key: LeaseKey) -> Result<(), Ended> {
        self.lease_ends(slot, key)
    }

    /// Whatever works in the slots of a machine is lost without an outcome.
    pub(super) fn fail_slots(&mut self, machine: usize) -> Result<(), Ended> {
        (0..self.machines[machine].slots.len()).try_for_each(|place| self.fail_slot(machine, place))
    }

    fn fail_slot(&mut self, machine: usize, place: usize) -> Result<(), Ended> {
        let index = SlotIndex(u32::try_from(place).unwrap_or(u32::MAX));
        let working = self.machines[machine].slots.get_mut(place);
        let Some(working) = working.and_then(Option::take) else {
            return Ok(());
        };
        self.tell(&format!("m{machine} slot {place} fails"));
        self.feed(machine, Event::SlotFailed(index, working.key))
    }

    /// Sends a blob to the store, and again if there is no answer.
    pub(super) fn upload(&mut self, number: u64) -> Result<(), Ended> {
        let Some(upload) = self.uploads.get(&number).cloned() else {
            return Ok(());
        };
        if self.working(upload.slot).is_none_or(|it| it.stopped) {
            self.uploads.remove(&number);
            return Ok(());
        }
        if upload.attempts >= UPLOAD_ATTEMPTS {
            self.uploads.remove(&number);
            let mut outcome = job::lost();
            (outcome.unit, outcome.slot) = (upload.outcome.unit, upload.outcome.slot);
            return self.unit_ends(upload.slot, Arc::new(outcome));
        }
        if let Some(known) = self.uploads.get_mut(&number) {
            known.attempts += 1;
        }
        let machine = upload.slot.machine;
        if !self.is_partitioned(machine)
            && let Some(coordinator) = &self.coordinator
        {
            coordinator.upload(number, upload.bytes);
        }
        self.after(UPLOAD_PATIENCE, Happening::Uploads(number));
        Ok(())
    }

    pub(super) fn uploaded(&mut self, number: u64, stored: bool) -> Result<(), Ended> {
        if !stored {
            return Ok(());
        }
        match self.uploads.remove(&number) {
            Some(upload) => self.unit_ends(upload.slot, upload.outcome),
            None => Ok(()),
        }
    }
}
