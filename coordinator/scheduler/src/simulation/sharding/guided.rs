//! Runs a race with the scheduler in charge.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use regatta_model::{
    AgentId, LeaseId, Platform, Resources, RunId, SlotIndex, TaskId, TenantId, Timestamp, UnitIndex,
};

use super::race::{Played, Race};
use crate::{
    AgentState, DesiredAgent, Effect, Event, ExpectedUnit, Grant, HeldLease, Offer, OutcomeKind,
    Scheduler, SchedulerConfig, Step, Submission, UnitOutcome,
};

const START: Timestamp = Timestamp::from_nanos(1_800_000_000_000_000_000);
/// How much a batch asks for, and a machine has for each of its slots.
const CPU_MILLI_PER_SLOT: u64 = 1000;

/// Nobody is lost in a race, and nobody says so in between.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(365 * 24 * 3600);

/// Runs a race to its end.
pub(super) fn play(race: &Race, config: SchedulerConfig) -> Result<Played, String> {
    let config = SchedulerConfig {
        heartbeat_interval: HEARTBEAT_INTERVAL,
        ..config
    };
    let mut play = Play::new(race, config)?;
    play.join_those_that_are_there();
    play.submit()?;
    play.finish()
}

/// What happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Joins(usize),
    Ends(LeaseId),
    /// A machine has let go of what it need not hold any more.
    LetsGo(usize),
}

/// A race under way.
struct Play<'race> {
    race: &'race Race,
    scheduler: Scheduler,
    now: Timestamp,
    /// What happens when; of what happens at once, machines join first.
    agenda: BTreeSet<(Timestamp, Happening)>,
    machines: Vec<Machine>,
    by_id: BTreeMap<AgentId, usize>,
    unanswered: BTreeSet<UnitIndex>,
    batches: usize,
    last_answer: Timestamp,
    last_first: Option<Timestamp>,
    next_tick: Option<Timestamp>,
}

struct Machine {
    id: AgentId,
    sequence: u64,
    observed_version: u64,
    running: BTreeMap<LeaseId, Grant>,
    /// How many of its slots have run a batch.
    slots_begun: usize,
}

impl<'race> Play<'race> {
    fn new(race: &'race Race, config: SchedulerConfig) -> Result<Self, String> {
        let mut play = Self {
            race,
            scheduler: Scheduler::new(config),
            now: START,
            agenda: BTreeSet::new(),
            machines: Vec::new(),
            by_id: BTreeMap::new(),
            unanswered: (0..).map(UnitIndex).take(race.tests.len()).collect(),
            batches: 0,
            last_answer: START,
            last_first: None,
            next_tick: None,
        };
        for (index, machine) in race.machines.iter().enumerate() {
            let id: AgentId = name(&format!("machine-{index}"))?;
            play.by_id.insert(id.clone(), index);
            play.machines.push(Machine {
                id,
                sequence: 0,
                observed_version: 0,
                running: BTreeMap::new(),
                slots_begun: 0,
            });
            let joins_at = START + machine.joins_after;
            play.agenda.insert((joins_at, Happening::Joins(index)));
        }
        Ok(play)
    }

    fn join_those_that_are_there(&mut self) {
        for (index, machine) in self.race.machines.iter().enumerate() {
            if machine.joins_after.is_zero() {
                self.agenda.remove(&(START, Happening::Joins(index)));
                self.join(index);
            }
        }
    }

    fn submit(&mut self) -> Result<(), String> {
        let units = self.race.tests.iter().map(|test| ExpectedUnit {
            expected: test.expected,
            guessed: test.guessed,
            late_after: test.late_after,
            first: test.first,
            alone: false,
            key: None,
        });
        let submission = Submission {
            task: TaskId(1),
            tenant: name::<TenantId>("tenant")?,
            run: name::<RunId>("run")?,
            priority: 0,
            platform: Platform::default(),
            resources: Resources {
                cpu_milli: CPU_MILLI_PER_SLOT,
                memory_bytes: 1,
            },
            image: None,
            tree: None,
            units: units.collect(),
            batch_overhead: self.race.assumed_overhead,
            merge_key: None,
            failed_at: None,
        };
        self.step(Event::Submit(submission));
        Ok(())
    }

    fn finish(mut self) -> Result<Played, String> {
        while !self.unanswered.is_empty() {
            let next = self.agenda.pop_first();
            let tick = self
                .next_tick
                .filter(|at| next.is_none_or(|(next, _)| *at < next));
            if let Some(at) = tick {
                self.agenda.extend(next);
                self.now = at;
                self.step(Event::Tick);
                continue;
            }
            let Some((at, happening)) = next else {
                return Err(format!("{} tests never ran", self.unanswered.len()));
            };
            self.now = at;
            match happening {
                Happening::Joins(machine) => self.join(machine),
                Happening::Ends(lease) => self.end(lease),
                Happening::LetsGo(machine) => self.report(machine, None, None),
            }
        }
        Ok(Played {
            makespan: self.last_answer.since(START),
            first_answered: self.last_first.map(|at| at.since(START)),
            batches: self.batches,
        })
    }

    fn join(&mut self, machine: usize) {
        let slots = self.race.machines[machine].slots;
        let offer = Offer {
            slots,
            resources: Resources {
                cpu_milli: CPU_MILLI_PER_SLOT * u64::from(slots),
                memory_bytes: u64::from(slots),
            },
            ..Offer::default()
        };
        self.report(machine, Some(offer), None);
    }

    fn end(&mut self, lease: LeaseId) {
        let holder = |machine: &Machine| machine.running.contains_key(&lease);
        if let Some(machine) = self.machines.iter().position(holder)
            && let Some(grant) = self.machines[machine].running.remove(&lease)
        {
            self.report(machine, None, Some(&grant));
        }
    }

    /// A machine says what it holds, and that a batch has ended, if one has.
    fn report(&mut self, index: usize, offer: Option<Offer>, ended: Option<&Grant>) {
        let machine = &mut self.machines[index];
        machine.sequence += 1;
        let running = machine.running.values().map(|grant| held(grant, false));
        let leases = running.chain(ended.map(|grant| held(grant, true)));
        let state = AgentState {
            agent: machine.id.clone(),
            sequence: machine.sequence,
            observed_version: machine.observed_version,
            offer,
            leases: leases.collect(),
            refusal: None,
        };
        self.step(Event::AgentReported(state));
    }

    fn step(&mut self, event: Event) {
        let Step {
            effects, wake_at, ..
        } = self.scheduler.step(self.now, event);
        self.next_tick = wake_at;
        for effect in effects {
            match effect {
                Effect::Granted(grant) => self.begin(grant),
                Effect::UnitAnswered { unit, .. } => {
                    self.unanswered.remove(&unit);
                    self.last_answer = self.now;
                    let test = usize::try_from(unit.0).ok();
                    let test = test.and_then(|index| self.race.tests.get(index));
                    if test.is_some_and(|test| test.first) {
                        self.last_first = Some(self.now);
                    }
                }
                Effect::Desire(desired) => self.obey(&desired),
                Effect::Fenced { .. }
                | Effect::UnitRetried { .. }
                | Effect::UnitFailed { .. }
                | Effect::Merged { .. }
                | Effect::TaskFinished(_)
                | Effect::Refused { .. }
                | Effect::UnitReturned { .. }
                | Effect::AgentLost(_) => {}
            }
        }
    }

    fn begin(&mut self, grant: Grant) {
        let Some(machine) = self.by_id.get(&grant.agent).copied() else {
            return;
        };
        self.batches += 1;
        let known = &mut self.machines[machine];
        let overhead = match known.running.len() < known.slots_begun {
            true => self.race.overhead_again,
            false => self.race.overhead,
        };
        known.slots_begun = known.slots_begun.max(known.running.len() + 1);
        let work = overhead + work_of(&grant, self.race);
        let now = self.now.since(START);
        let end = START + self.race.machines[machine].end_of(now, work);
        self.agenda.insert((end, Happening::Ends(grant.lease)));
        self.machines[machine].running.insert(grant.lease, grant);
    }

    fn obey(&mut self, desired: &DesiredAgent) {
        let Some(index) = self.by_id.get(&desired.agent).copied() else {
            return;
        };
        let machine = &mut self.machines[index];
        machine.observed_version = desired.version;
        if self.race.machines[index].is_stalled(self.now.since(START)) {
            return;
        }
        let before = machine.running.len();
        let wanted: BTreeSet<_> = desired.leases.iter().map(|it| it.lease).collect();
        machine.running.retain(|lease, _| wanted.contains(lease));
        if machine.running.len() < before {
            self.agenda.insert((self.now, Happening::LetsGo(index)));
        }
    }
}

fn name<Id: std::str::FromStr>(text: &str) -> Result<Id, String> {
    text.parse().map_err(|_| format!("`{text}` names nothing"))
}

/// How long an ordinary machine takes for the tests of a batch.
fn work_of(grant: &Grant, race: &Race) -> Duration {
    let tests = grant.units.iter().filter_map(|(unit, _)| {
        let index = usize::try_from(unit.0).ok()?;
        race.tests.get(index)
    });
    tests.map(|test| test.takes).sum()
}

fn held(grant: &Grant, finished: bool) -> HeldLease {
    let outcome = |(index, (unit, _)): (u32, &(UnitIndex, _))| UnitOutcome {
        unit: *unit,
        index,
        slot: SlotIndex(0),
        kind: OutcomeKind::Answered,
    };
    let units = grant
        .units
        .iter()
        .take(if finished { usize::MAX } else { 0 });
    HeldLease {
        lease: grant.lease,
        token: grant.token,
        slot: None,
        outcomes: (0..).zip(units).map(outcome).collect(),
        finished,
        claim: None,
    }
}
