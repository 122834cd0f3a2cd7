//! Faults, and how they are mended.

use std::time::Duration;

use super::happening::{Happening, Mood};
use super::{Ended, World, permille};
use crate::coordinator::Coordinator;
use crate::plan::FaultKind;

/// What nobody used for so long is swept from the store: longer than blobs are known to be there without asking.
const RETENTION: Duration = Duration::from_secs(80);

impl World {
    pub(super) fn strike(&mut self, index: usize) -> Result<(), Ended> {
        let fault = self.plan.faults[index];
        let machine = fault.machine;
        self.tell(&format!("fault at m{machine}: {:?}", fault.kind));
        match fault.kind {
            FaultKind::PowerFails(pause) => self.power_fails(machine, pause),
            FaultKind::Drains(pause) => {
                self.machines[machine].restarts_after = Some(pause);
                self.feed(machine, regatta_agent_core::Event::Drain)?;
            }
            FaultKind::Partition(length) => {
                let until = self.now + length;
                let known = &mut self.machines[machine].partitioned_until;
                *known = until.max(*known);
            }
            FaultKind::LinkBreaks => {
                if let Some(link) = self.machines[machine].link {
                    self.lose_link(link)?;
                }
            }
            FaultKind::SlotsFail(length) => {
                self.machines[machine].slots_fail_until = self.now + length;
                self.fail_slots(machine)?;
            }
            FaultKind::MachineFails(length) => {
                self.machines[machine].fails_until = self.now + length;
            }
            FaultKind::Killed => {
                let down = self.random.millis(200, 20_000);
                self.kill_coordinator(down);
            }
            FaultKind::Crashes(crash) => self.weather.plan_crash(Some(crash)),
            FaultKind::StorageSlow(length) => self.disturb(Mood::Slow, length),
            FaultKind::StorageFails(length) => self.disturb(Mood::Failing, length),
            FaultKind::LedgerFull(length) => self.disturb(Mood::Full, length),
            FaultKind::StorageLies(length) => self.disturb(Mood::Lying, length),
            FaultKind::ClockSet(seconds) => self.wall_clock_off = i64::from(seconds),
        }
        Ok(())
    }

    fn power_fails(&mut self, machine: usize, pause: Duration) {
        let link = self.machines[machine].link;
        self.machines[machine].stop();
        if let Some(link) = link {
            // Nobody says so.
            let notices = self.random.millis(0, 25_000);
            self.after(notices, Happening::LinkEnds(link));
        }
        self.after(pause, Happening::MachineStarts(machine));
    }

    fn disturb(&mut self, mood: Mood, length: Duration) {
        self.set_mood(mood, permille(mood));
        self.after(length, Happening::StorageMended(mood));
    }

    fn set_mood(&self, mood: Mood, permille: u64) {
        match mood {
            Mood::Slow => self.weather.set_slow(permille > 0),
            Mood::Failing => self.weather.set_failing(permille),
            Mood::Full => self.weather.set_full(permille > 0),
            Mood::Lying => self.weather.set_lying(permille),
        }
    }

    pub(super) fn mend_storage(&mut self, mood: Mood) {
        self.tell(&format!("storage is not {mood:?} any more"));
        self.set_mood(mood, 0);
    }

    /// Nothing is broken from now on: what is away comes back.
    pub(super) fn mend(&mut self) {
        self.tell("everything is mended");
        for mood in [Mood::Slow, Mood::Failing, Mood::Full, Mood::Lying] {
            self.set_mood(mood, 0);
        }
        self.weather.plan_crash(None);
        for index in 0..self.machines.len() {
            self.machines[index].partitioned_until = self.now;
            self.machines[index].fails_until = self.now;
            self.machines[index].slots_fail_until = self.now;
            self.after(Duration::ZERO, Happening::MachineStarts(index));
        }
        if self.coordinator.is_none() {
            self.after(Duration::ZERO, Happening::CoordinatorStarts);
        }
    }

    pub(super) fn start_coordinator(&mut self) -> std::io::Result<()> {
        if self.coordinator.is_some() {
            return Ok(());
        }
        self.tell("the coordinator starts");
        self.set_clocks();
        let transport = self.plan.transport;
        let coordinator = Coordinator::start(
            self.now,
            &self.durable,
            &self.weather,
            &self.said,
            transport,
        )?;
        self.coordinator = Some(coordinator);
        Ok(())
    }

    pub(super) fn started(&mut self) {
        self.tell("the coordinator serves");
        self.clients_return();
    }

    /// The coordinator ends at once, with all that it has not stored, and is started again.
    pub(super) fn kill_coordinator(&mut self, down: Duration) {
        if self.coordinator.take().is_none() {
            return;
        }
        self.tell(&format!("the coordinator is gone for {down:?}"));
        self.restarts += 1;
        self.said.close();
        self.model.fences.leave_behind(self.now);
        self.wires.clear();
        for index in 0..self.machines.len() {
            if let Some(link) = self.machines[index].link {
                let notices = self.random.millis(1, 50);
                let notices = self.machines[index].partitioned_until.max(self.now) + notices;
                self.at(notices, Happening::LinkLost(link));
            }
        }
        self.clients_lose_it();
        let down = if self.is_mended() {
            down.min(Duration::from_secs(1))
        } else {
            down
        };
        self.after(down, Happening::CoordinatorStarts);
    }

    pub(super) fn sweep(&mut self) {
        let shelves = [&self.durable.blobs, &self.durable.results];
        let swept: usize = shelves.iter().map(|shelf| shelf.sweep(RETENTION)).sum();
        self.tell(&format!("{swept} objects are swept that nobody used"));
    }
}
