//! What the machines do, and what passes between them and the scheduler.

use std::time::Duration;

use regatta_model::{Digest, LeaseId};

use super::{World, task_index, unit_key};
use crate::simulation::happening::Happening;
use crate::{Claim, DesiredAgent, OutcomeKind};

/// How often a machine reports when nothing changes.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How long a message is on its way at most.
pub(super) const LONGEST_DELAY: Duration = Duration::from_millis(2500);
/// How long a desired state is on its way.
const SHORTEST_DELAY: Duration = Duration::from_millis(2);
/// How long it takes at most to make what its leases take, in a world in which that may fail, in milliseconds.
const LONGEST_PREPARATION_MILLIS: u64 = 1000;

impl World<'_> {
    pub(super) fn connect(&mut self, index: usize, life: u64) {
        let machine = &mut self.machines[index];
        if machine.life != life || machine.connected {
            return;
        }
        machine.connect();
        let connection = machine.connection;
        self.report(index);
        self.beat_again(index, connection);
    }

    pub(super) fn beat(&mut self, index: usize, connection: u64) {
        if self.machines[index].connection == connection {
            self.report(index);
            self.beat_again(index, connection);
        }
    }

    fn beat_again(&mut self, machine: usize, connection: u64) {
        let beat = Happening::Heartbeat {
            machine,
            connection,
        };
        self.after(HEARTBEAT, beat);
    }

    pub(super) fn stopped(&mut self, index: usize, life: u64, lease: LeaseId) {
        if self.machines[index].life == life {
            self.machines[index].held.remove(&lease);
            self.unheard.hears(self.now, std::iter::once(lease));
            self.report(index);
        }
    }

    pub(super) fn unit_ends(&mut self, index: usize, life: u64, lease: LeaseId) {
        if self.machines[index].life == life {
            self.machines[index].end_unit(lease, OutcomeKind::Answered);
            let held = self.machines[index].held.get(&lease);
            if held.is_some_and(|held| !held.is_running()) {
                self.unheard.ends(self.now, lease);
            }
            self.continue_lease(index, lease);
            self.report(index);
        }
    }

    /// Sends a machine's state, which may arrive late, twice, or never: whatever a report says, a later one
    /// says too, but for what a connection begins with.
    pub(super) fn report(&mut self, index: usize) {
        let machine = &mut self.machines[index];
        if !machine.connected || machine.silent {
            return;
        }
        let state = machine.report();
        if state.sequence > 1 && self.random.chance(3) {
            return;
        }
        // A first report that came twice, or after a later one, could not be told from a restart; streams do not do
        // that.
        let is_slow = state.sequence > 1 && self.random.chance(2);
        let delay = Duration::from_millis(if is_slow { 500 } else { 3 });
        if state.sequence > 1 && self.random.chance(5) {
            let late = delay + self.random.millis(2000);
            self.after(late, Happening::ReportArrives(Box::new(state.clone())));
        }
        self.after(delay, Happening::ReportArrives(Box::new(state)));
    }

    pub(super) fn obey(
        &mut self,
        index: usize,
        connection: u64,
        desired: &DesiredAgent,
    ) -> Result<(), String> {
        let machine = &mut self.machines[index];
        if machine.connection != connection || !machine.connected {
            return Ok(());
        }
        // Only the latest is certain to arrive.
        if desired.version < machine.latest_desired && self.random.chance(50) {
            return Ok(());
        }
        let (plan, model) = (self.plan, &self.model);
        let spec = |one: &crate::DesiredLease| {
            let grant = model.grants.get(&one.lease)?;
            let index = task_index(grant.task)?;
            let work = plan.work.get(index)?;
            let units = grant.units.iter().map(|(unit, _)| *unit);
            let claim = Claim {
                tenant: work.tenant().ok()?,
                resources: work.resources(),
                units: units
                    .map(|unit| (unit, Some(unit_key(index, work, unit))))
                    .collect(),
                together: false,
                acknowledged: 0,
            };
            let tree = work
                .tree
                .map(|tree| Digest::of(format!("tree{tree}").as_bytes()));
            Some((claim, tree))
        };
        let (begun, stopped) = machine.obey(desired, spec)?;
        let (slots, used) = machine.usage();
        if slots > machine.offer.slots as usize || !used.fits_in(&machine.offer.resources) {
            let id = &machine.id;
            return Err(format!(
                "capacity_never_exceeded: {slots} slots, {used:?} at {id}"
            ));
        }
        let life = machine.life;
        for lease in begun {
            self.continue_lease(index, lease);
        }
        for lease in stopped {
            let delay = self.random.millis(50);
            self.after(
                delay,
                Happening::Stopped {
                    machine: index,
                    life,
                    lease,
                },
            );
        }
        self.after(Duration::ZERO, Happening::Report { machine: index });
        Ok(())
    }

    /// Sets the end of the unit that a lease works on now.
    fn continue_lease(&mut self, index: usize, lease: LeaseId) {
        let machine = &self.machines[index];
        let unit = machine.held.get(&lease).filter(|held| !held.stopping);
        let Some(unit) = unit.and_then(|held| held.left.first()) else {
            return;
        };
        let grant = self.model.grants.get(&lease);
        let work = grant.and_then(|grant| self.plan.work.get(task_index(grant.task)?));
        let millis = work
            .and_then(|work| work.units_ms.get(unit.0 as usize))
            .copied();
        let life = machine.life;
        let jitter = self.random.millis(5);
        let length = Duration::from_millis(u64::from(millis.unwrap_or(1))) + jitter;
        self.after(
            length,
            Happening::UnitEnds {
                machine: index,
                life,
                lease,
            },
        );
    }

    pub(super) fn send(&mut self, desired: DesiredAgent) {
        let Some(machine) = self.by_id.get(&desired.agent).copied() else {
            return;
        };
        let is_unprepared = self.plan.may_fill_up() && self.random.chance(10);
        let preparing = match is_unprepared {
            true => self.random.millis(LONGEST_PREPARATION_MILLIS),
            false => Duration::ZERO,
        };
        let now = self.now;
        let to = &mut self.machines[machine];
        to.latest_desired = desired.version;
        to.desire_arrives = to.desire_arrives.max(now + SHORTEST_DELAY + preparing);
        let (connection, delay) = (to.connection, to.desire_arrives.since(now));
        self.after(
            delay,
            Happening::DesireArrives {
                machine,
                connection,
                desired,
            },
        );
    }
}
