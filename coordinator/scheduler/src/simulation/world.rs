//! Plays a plan in simulated time.

mod conservation;
mod faults;
mod machines;

use std::collections::BTreeMap;
use std::time::Duration;

use regatta_model::{
    AgentId, Digest, ImageReference, Platform, Resources, RunId, SlotIndex, TaskId, TenantId,
    Timestamp, UnitIndex,
};

use super::happening::Happening;
use super::machine::Machine;
use super::model::Model;
use super::plan::{Fault, MachinePlan, Plan, WorkPlan};
use super::random::Random;
use super::summary::Summary;
use super::unheard::Unheard;
use super::violation::Violation;
use crate::{
    Effect, Event, ExpectedUnit, FailedAt, Offer, Scheduler, SchedulerConfig, Step, Submission,
};

/// How long after its last fault a plan may take to end, in simulated time.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);
/// How many events a plan may take for each machine, task and fault in it.
const EVENTS_PER_PART: usize = 20_000;
/// Fleets of up to so many machines are looked at as a whole after every event,
const SMALL_FLEET: usize = 16;
/// larger ones after every so many.
const THOROUGH_EVERY: usize = 256;
const START: Timestamp = Timestamp::from_nanos(1_800_000_000_000_000_000);

struct World<'plan> {
    plan: &'plan Plan,
    now: Timestamp,
    random: Random,
    config: SchedulerConfig,
    scheduler: Scheduler,
    restarts: usize,
    model: Model,
    unheard: Unheard,
    machines: Vec<Machine>,
    by_id: BTreeMap<AgentId, usize>,
    agenda: BTreeMap<(Timestamp, u64), Happening>,
    scheduled: u64,
    trace: Vec<(Timestamp, Event)>,
    fingerprint: u64,
    next_tick: Option<Timestamp>,
    /// The fault for which nothing is to be begun.
    held_by: Option<usize>,
}

/// Plays a plan to its end.
///
/// # Errors
/// An invariant does not hold.
pub fn run(plan: &Plan, config: SchedulerConfig) -> Result<Summary, Box<Violation>> {
    let mut world = World::new(plan, config);
    match world.play() {
        Ok(()) => Ok(world.summary()),
        Err(what) => Err(Box::new(Violation {
            what,
            trace: world.trace,
        })),
    }
}

fn name<Id: std::str::FromStr>(text: &str) -> Result<Id, String> {
    text.parse().map_err(|_| format!("`{text}` names nothing"))
}

/// What a machine says of itself: like those of production, each has a name and an amount of memory that
/// no other has.
fn offer(index: usize, planned: &MachinePlan) -> Offer {
    let mut platform = arch(planned.arch);
    platform.insert("hostname", format!("machine-{index}"));
    let number = u64::try_from(index).unwrap_or_default();
    let image = |number: u64| format!("image-{}", number % 4).parse().ok();
    Offer {
        slots: planned.slots,
        resources: Resources {
            cpu_milli: planned.cpu_milli,
            memory_bytes: (1 << 34) - 4096 * number,
        },
        platform,
        images: [image(number), image(number + 1)]
            .into_iter()
            .flatten()
            .collect(),
        trees: Vec::new(),
    }
}

fn arch(number: u8) -> Platform {
    Platform::new([("Arch", format!("arch-{}", number % 3))])
}

/// What a unit is, whoever submits it: one of work that may be merged is the same for all of them.
fn unit_key(index: usize, work: &WorkPlan, unit: UnitIndex) -> Digest {
    let (count, cpu, arch) = (work.units_ms.len(), work.cpu_milli, work.arch);
    let name = match work.merge {
        Some(merge) => format!("merge {merge} {count} {cpu} {arch:?}: {unit:?}"),
        None => format!("{index}: {unit:?}"),
    };
    Digest::of(name.as_bytes())
}

impl WorkPlan {
    fn tenant(&self) -> Result<TenantId, String> {
        name(&format!("tenant-{}", self.tenant))
    }

    fn resources(&self) -> Resources {
        Resources {
            cpu_milli: self.cpu_milli,
            memory_bytes: 1 << 20,
        }
    }
}

impl<'plan> World<'plan> {
    fn new(plan: &'plan Plan, config: SchedulerConfig) -> Self {
        let mut world = Self {
            plan,
            now: START,
            random: Random::new(plan.seed),
            scheduler: Scheduler::new(config.clone()),
            config,
            restarts: 0,
            model: Model::default(),
            unheard: Unheard::default(),
            machines: Vec::new(),
            by_id: BTreeMap::new(),
            agenda: BTreeMap::new(),
            scheduled: 0,
            trace: Vec::new(),
            fingerprint: 0xcbf2_9ce4_8422_2325,
            next_tick: None,
            held_by: None,
        };
        world.set_up();
        world
    }

    fn set_up(&mut self) {
        for (index, planned) in self.plan.machines.iter().enumerate() {
            let Ok(id) = name::<AgentId>(&format!("agent-{index:05}")) else {
                continue;
            };
            let offer = offer(index, planned);
            self.by_id.insert(id.clone(), self.machines.len());
            self.machines.push(Machine::new(id, offer));
            let delay = self.random.millis(5000);
            self.after(
                delay,
                Happening::Connect {
                    machine: index,
                    life: 0,
                },
            );
        }
        for (index, work) in self.plan.work.iter().enumerate() {
            self.after(work.at, Happening::Submit(index));
            if let Some(delay) = work.cancel_after {
                self.after(work.at + delay, Happening::Cancel(index));
            }
        }
        for (index, fault) in self.plan.faults.iter().enumerate() {
            self.after(fault.at, Happening::Fault(index));
        }
    }

    fn after(&mut self, delay: Duration, happening: Happening) {
        self.scheduled += 1;
        self.agenda
            .insert((self.now + delay, self.scheduled), happening);
    }

    fn play(&mut self) -> Result<(), String> {
        let ends_of = |fault: &Fault| fault.at;
        let last = self
            .plan
            .faults
            .iter()
            .map(ends_of)
            .chain(self.plan.work.iter().map(|w| w.at));
        let last = START + last.max().unwrap_or_default();
        let parts = self.plan.machines.len() + self.plan.work.len() + self.plan.faults.len() + 1;
        while let Some(((at, _), happening)) = self.agenda.pop_first() {
            self.now = at;
            self.happen(happening)?;
            if self.now > last && self.model.is_idle() {
                return Ok(());
            }
            let endless = self.now > last + PATIENCE || self.trace.len() > EVENTS_PER_PART * parts;
            if endless {
                break;
            }
        }
        if self.model.is_idle() {
            return Ok(());
        }
        let left = self.model.open_tasks();
        Err(format!(
            "everything_ends_when_agents_are_healthy: {left:?} never end"
        ))
    }

    fn happen(&mut self, happening: Happening) -> Result<(), String> {
        match happening {
            Happening::Submit(index) => self.submit(index),
            Happening::Resubmit { task, restart } => match task_index(task) {
                Some(index) if self.restarts == restart && self.model.is_open(task) => {
                    self.submit(index)
                }
                Some(_) | None => Ok(()),
            },
            Happening::Cancel(index) => self.step(Event::CancelTask(task_id(index))),
            Happening::Fault(index) => self.fault(index),
            Happening::Connect { machine, life } => {
                self.connect(machine, life);
                Ok(())
            }
            Happening::Unsilence { machine } => {
                self.machines[machine].silent = false;
                Ok(())
            }
            Happening::Unhold { fault } if self.held_by == Some(fault) => {
                self.held_by = None;
                self.step(Event::Hold(None))
            }
            Happening::Unhold { .. } => Ok(()),
            Happening::Undrain { machine } => {
                let id = self.machines[machine].id.clone();
                self.step(Event::DrainAgent(id, false))
            }
            Happening::Heartbeat {
                machine,
                connection,
            } => {
                self.beat(machine, connection);
                Ok(())
            }
            Happening::Report { machine } => {
                self.report(machine);
                Ok(())
            }
            Happening::ReportArrives(state) => {
                let ended = state.leases.iter().filter(|lease| lease.finished);
                self.unheard.hears(self.now, ended.map(|lease| lease.lease));
                self.step(Event::AgentReported(*state))
            }
            Happening::DesireArrives {
                machine,
                connection,
                desired,
            } => self.obey(machine, connection, &desired),
            Happening::UnitEnds {
                machine,
                life,
                lease,
            } => {
                self.unit_ends(machine, life, lease);
                Ok(())
            }
            Happening::Stopped {
                machine,
                life,
                lease,
            } => {
                self.stopped(machine, life, lease);
                Ok(())
            }
            Happening::Tick => self.step(Event::Tick),
        }
    }

    fn submit(&mut self, index: usize) -> Result<(), String> {
        let work: &WorkPlan = &self.plan.work[index];
        let unit = |(unit, millis): (u32, &u16)| {
            let expected = Duration::from_millis(u64::from(*millis));
            ExpectedUnit {
                expected,
                guessed: millis.is_multiple_of(3),
                late_after: work.late_percent.map(|it| expected * u32::from(it) / 100),
                first: millis.is_multiple_of(5),
                alone: millis.is_multiple_of(7),
                key: Some(unit_key(index, work, UnitIndex(unit))),
            }
        };
        let digest = |kind: &str, number: u8| Digest::of(format!("{kind}{number}").as_bytes());
        let submission = Submission {
            task: task_id(index),
            tenant: work.tenant()?,
            run: name::<RunId>(&format!("run-{}", work.run))?,
            priority: i32::from(work.priority),
            platform: work.arch.map(arch).unwrap_or_default(),
            resources: work.resources(),
            image: Some(name::<ImageReference>(&format!("image-{}", index % 4))?),
            tree: work.tree.map(|tree| digest("tree", tree)),
            units: (0..).zip(&work.units_ms).map(unit).collect(),
            batch_overhead: Duration::from_millis(50),
            merge_key: work.merge.map(|merge| digest("merge", merge)),
            failed_at: work.failed_at.and_then(|place| self.failed_at(place)),
        };
        self.step(Event::Submit(submission))
    }

    fn failed_at(&self, (machine, slot): (u8, u8)) -> Option<FailedAt> {
        let machine = usize::from(machine).checked_rem(self.machines.len())?;
        Some(FailedAt {
            agent: self.machines[machine].id.clone(),
            slot: SlotIndex(slot.into()),
        })
    }

    fn step(&mut self, event: Event) -> Result<(), String> {
        self.trace.push((self.now, event.clone()));
        let step = self.scheduler.step(self.now, event.clone());
        self.note(&step);
        let is_small = self.machines.len() <= SMALL_FLEET;
        let thorough = is_small || self.trace.len().is_multiple_of(THOROUGH_EVERY);
        let (now, model) = (self.now, &mut self.model);
        model.check(now, &event, &step, &self.scheduler, thorough)?;
        if thorough {
            self.check_conservation()?;
        }
        self.check_duplicates(&step)?;
        self.check_hold(&step)?;
        if step.wake_at.is_some_and(|at| at <= self.now) {
            return Err(format!("wake_at is not after {}", self.now));
        }
        if let Some(at) = step.wake_at.filter(|_| step.wake_at != self.next_tick) {
            self.next_tick = Some(at);
            self.after(at.since(self.now), Happening::Tick);
        }
        for effect in step.effects {
            if let Effect::Desire(desired) = effect {
                self.send(desired);
            }
        }
        Ok(())
    }

    /// FNV-1a (Fowler, Noll and Vo) over everything that a step says.
    fn note(&mut self, step: &Step) {
        for byte in format!("{}{step:?}", self.now).bytes() {
            self.fingerprint = (self.fingerprint ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }

    /// For how much of the wait of a task something had ended that the scheduler did not know of.
    fn unheard_of(&self, task: TaskId) -> Duration {
        let wait = self.model.waits.get(&task);
        let begun = self.model.submitted_at.get(&task).zip(wait);
        begun.map_or(Duration::ZERO, |(begun, wait)| {
            self.unheard.within(*begun, *begun + *wait)
        })
    }

    fn summary(&self) -> Summary {
        Summary {
            fingerprint: self.fingerprint,
            events: self.trace.len(),
            grants: self.model.grants.len(),
            answered: self.model.answered,
            failed: self.model.failed,
            retried: self.model.retried,
            returned: self.model.returned,
            fenced: self.model.fenced,
            duplicated: self.model.duplicated,
            adopted: self.model.adopted,
            lost_agents: self.model.lost_agents,
            restarts: self.restarts,
            waits: (0..self.plan.work.len())
                .map(|index| self.model.waits.get(&task_id(index)).copied())
                .collect(),
            unheard: (0..self.plan.work.len())
                .map(|index| self.unheard_of(task_id(index)))
                .collect(),
            took: self.now.since(START),
        }
    }
}

fn task_id(index: usize) -> TaskId {
    TaskId(u64::try_from(index).unwrap_or(u64::MAX))
}

fn task_index(task: TaskId) -> Option<usize> {
    usize::try_from(task.0).ok()
}
