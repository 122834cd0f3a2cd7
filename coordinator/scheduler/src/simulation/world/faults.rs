//! What breaks.

use std::collections::BTreeSet;
use std::time::Duration;

use regatta_model::{RunId, TenantId};

use super::machines::LONGEST_DELAY;
use super::{World, name};
use crate::simulation::happening::Happening;
use crate::simulation::plan::FaultKind;
use crate::{Event, OutcomeKind, Scheduler, SchedulerConfig};

impl World<'_> {
    pub(super) fn fault(&mut self, index: usize) -> Result<(), String> {
        let fault = &self.plan.faults[index];
        if let FaultKind::CancelRun(tenant, run) = fault.kind {
            let tenant = name::<TenantId>(&format!("tenant-{tenant}"))?;
            let run = name::<RunId>(&format!("run-{run}"))?;
            return self.step(Event::CancelRun(tenant, run));
        }
        if let FaultKind::Restart = fault.kind {
            return self.restart();
        }
        if let FaultKind::Hold(pause) = fault.kind {
            self.after(pause, Happening::Unhold { fault: index });
            self.held_by = Some(index);
            self.step(Event::Hold(Some("no room".to_owned())))?;
            return self.return_unprepared();
        }
        let Some(index) = fault.machine.checked_rem(self.machines.len()) else {
            return Ok(());
        };
        let machine = &mut self.machines[index];
        let id = machine.id.clone();
        match fault.kind {
            FaultKind::Crash(pause) => {
                let lost = machine.held.keys().copied();
                self.unheard.hears(self.now, lost);
                machine.crash();
                self.disconnect(index, pause)
            }
            FaultKind::Disconnect(pause) => self.disconnect(index, pause),
            FaultKind::Silence(pause) => {
                machine.silent = true;
                self.after(pause, Happening::Unsilence { machine: index });
                Ok(())
            }
            FaultKind::BreakUnits => {
                for lease in machine.held.keys().copied().collect::<Vec<_>>() {
                    let kind = OutcomeKind::Infrastructure("the engine is gone".to_owned());
                    machine.end_unit(lease, kind);
                }
                self.report(index);
                Ok(())
            }
            FaultKind::Drain(pause) => {
                self.after(pause, Happening::Undrain { machine: index });
                self.step(Event::DrainAgent(id, true))
            }
            FaultKind::CancelRun(..) | FaultKind::Restart | FaultKind::Hold(_) => Ok(()),
        }
    }

    /// Gives some leases back that no machine has been told of yet: what they take cannot be stored.
    fn return_unprepared(&mut self) -> Result<(), String> {
        let mut untold = BTreeSet::new();
        for happening in self.agenda.values() {
            if let Happening::DesireArrives {
                machine,
                connection,
                desired,
            } = happening
            {
                let machine = &self.machines[*machine];
                let arrives = machine.connected && machine.connection == *connection;
                let leases = desired.leases.iter().map(|one| one.lease);
                untold.extend(leases.filter(|lease| arrives && !machine.told.contains(lease)));
            }
        }
        untold.retain(|_| self.random.chance(50));
        for happening in self.agenda.values_mut() {
            if let Happening::DesireArrives { desired, .. } = happening {
                desired.leases.retain(|one| !untold.contains(&one.lease));
            }
        }
        for lease in untold {
            self.step(Event::ReturnLease(lease))?;
        }
        Ok(())
    }

    /// Begins with a scheduler that knows nothing, as a new process does.
    fn restart(&mut self) -> Result<(), String> {
        self.restarts += 1;
        let first_token = self.model.restarted();
        self.scheduler = Scheduler::new(SchedulerConfig {
            first_token,
            ..self.config.clone()
        });
        self.trace.clear();
        self.next_tick = None;
        self.held_by = None;
        for index in 0..self.machines.len() {
            let machine = &mut self.machines[index];
            machine.connected = false;
            machine.connection += 1;
            let (machine, life) = (index, machine.life);
            // What is still on its way from the last connection arrives before the next begins.
            let pause = LONGEST_DELAY + self.random.millis(2000);
            self.after(pause, Happening::Connect { machine, life });
        }
        for task in self.model.open_tasks() {
            let pause = self.random.millis(2000);
            let restart = self.restarts;
            self.after(pause, Happening::Resubmit { task, restart });
        }
        Ok(())
    }

    fn disconnect(&mut self, index: usize, pause: Duration) -> Result<(), String> {
        let machine = &mut self.machines[index];
        machine.connected = false;
        machine.connection += 1;
        let (id, life) = (machine.id.clone(), machine.life);
        self.after(
            pause,
            Happening::Connect {
                machine: index,
                life,
            },
        );
        self.step(Event::AgentDisconnected(id))
    }
}
