//! Faults, and how they are mended.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::happening::{Happening, Mood};
use super::{Ended, World, permille};
use crate::coordinator::Coordinator;
use crate::plan::FaultKind;
use crate::stock::PLACES;

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
            FaultKind::Hangs(length) => self.hang(length),
            FaultKind::Crashes(crash) => self.weather.plan_crash(Some(crash)),
            FaultKind::CrashesAtList { after } => self.weather.plan_crash_at_list(Some(after)),
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
        self.note_peace();
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

    /// Whether nothing keeps the coordinator from using again what runs need.
    fn note_peace(&mut self) {
        let is_up = self.coordinator.as_ref().is_some_and(Coordinator::is_up);
        let is_peace = is_up && self.weather.is_fine();
        self.model.promises.set_peace(self.now, is_peace);
    }

    pub(super) fn mend_storage(&mut self, mood: Mood) {
        self.tell(&format!("storage is not {mood:?} any more"));
        self.set_mood(mood, 0);
        self.note_peace();
    }

    /// Nothing is broken from now on: what is away comes back.
    pub(super) fn mend(&mut self) {
        self.tell("everything is mended");
        for mood in [Mood::Slow, Mood::Failing, Mood::Full, Mood::Lying] {
            self.set_mood(mood, 0);
        }
        self.note_peace();
        self.weather.plan_crash(None);
        self.weather.plan_crash_at_list(None);
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
        self.set_clocks();
        if self.wall_clock_off > self.wall_clock_was_off {
            self.model.promises.forget_all();
        }
        self.wall_clock_was_off = self.wall_clock_off;
        let last = self.durable.last_place.load(Ordering::Relaxed);
        let place = match (self.plan.storage.is_shared, &self.hung) {
            (true, Some(_)) => (last + 1) % PLACES,
            (true, None) => self.random.index(PLACES),
            (false, _) => 0,
        };
        self.tell(&match place {
            0 => "the coordinator starts".to_owned(),
            place => format!("the coordinator starts on machine {place}"),
        });
        let coordinator = Coordinator::start(
            self.now,
            &self.durable,
            &self.weather,
            self.plan.transport,
            (place, self.plan.storage),
        )?;
        self.coordinator = Some(coordinator);
        Ok(())
    }

    pub(super) fn started(&mut self) {
        self.tell("the coordinator serves");
        self.note_peace();
        self.clients_return();
    }

    /// The coordinator ends at once, with all that it has not stored, and is started again.
    pub(super) fn kill_coordinator(&mut self, down: Duration) {
        if self.coordinator.take().is_none() {
            return;
        }
        self.tell(&format!("the coordinator is gone for {down:?}"));
        self.lose_coordinator(down);
    }

    /// Nobody hears of it any more; another starts after a while.
    pub(super) fn lose_coordinator(&mut self, down: Duration) {
        self.restarts += 1;
        self.note_peace();
        self.model.promises.forget_last_verdicts(self.now);
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
        let swept = self.durable.stock.sweep(RETENTION);
        self.tell(&format!("{swept} objects are swept that nobody used"));
    }
}
