//! A scheduler, a clock, and short words for events.

use std::time::Duration;

use regatta_model::{
    AgentId, Digest, FencingToken, LeaseId, Platform, Resources, SlotIndex, TaskId, Timestamp,
    UnitIndex,
};

use crate::{
    AgentState, DesiredAgent, Effect, Event, Grant, HeldLease, Offer, OutcomeKind, Scheduler,
    SchedulerConfig, Step, Submission, UnitError, UnitOutcome,
};

pub(crate) struct Fixture {
    pub(crate) scheduler: Scheduler,
    pub(crate) now: Timestamp,
    pub(crate) step: Step,
}

pub(crate) fn agent(name: &str) -> AgentId {
    name.parse().unwrap()
}

pub(crate) fn submission(task: u64) -> Submission {
    Submission {
        task: TaskId(task),
        tenant: "tenant".parse().unwrap(),
        run: "run".parse().unwrap(),
        priority: 0,
        platform: Platform::default(),
        resources: Resources {
            cpu_milli: 1000,
            memory_bytes: 1,
        },
        image: None,
        tree: None,
        units: vec![Duration::from_secs(1).into()],
        batch_overhead: Duration::ZERO,
        merge_key: None,
        failed_at: None,
    }
}

pub(crate) fn suite(task: u64, units: usize) -> Submission {
    Submission {
        units: vec![Duration::from_secs(1).into(); units],
        ..submission(task)
    }
}

pub(crate) fn merged(task: u64, run: &str, units: usize) -> Submission {
    Submission {
        run: run.parse().unwrap(),
        merge_key: Some(Digest::of(b"same")),
        ..suite(task, units)
    }
}

pub(crate) fn offer(slots: u32) -> Offer {
    Offer {
        slots,
        resources: Resources {
            cpu_milli: 1000 * u64::from(slots),
            memory_bytes: 1000,
        },
        ..Offer::default()
    }
}

/// A report of a live connection that has seen everything.
pub(crate) fn report(name: &str, sequence: u64, leases: Vec<HeldLease>) -> AgentState {
    AgentState {
        agent: agent(name),
        sequence,
        observed_version: 1_000 * sequence,
        offer: None,
        leases,
        refusal: None,
    }
}

pub(crate) fn held(grant: &Grant, kinds: &[OutcomeKind], finished: bool) -> HeldLease {
    let outcome = |(index, kind): (u32, &OutcomeKind)| UnitOutcome {
        unit: grant.units[index as usize].0,
        index,
        slot: SlotIndex(0),
        kind: kind.clone(),
    };
    HeldLease {
        lease: grant.lease,
        token: grant.token,
        slot: None,
        outcomes: (0..).zip(kinds).map(outcome).collect(),
        finished,
        claim: None,
    }
}

/// That the only unit of a task has failed.
pub(crate) fn failed(task: u64, error: UnitError) -> Effect {
    Effect::UnitFailed {
        task: TaskId(task),
        unit: UnitIndex(0),
        error,
    }
}

impl Default for Fixture {
    fn default() -> Self {
        Self::new(SchedulerConfig::default())
    }
}

impl Fixture {
    pub(crate) fn new(config: SchedulerConfig) -> Self {
        Self {
            scheduler: Scheduler::new(config),
            now: Timestamp::from_nanos(1_000_000_000),
            step: Step::default(),
        }
    }

    pub(crate) fn give(&mut self, event: Event) -> &Step {
        self.step = self.scheduler.step(self.now, event);
        &self.step
    }

    pub(crate) fn submit(&mut self, submission: Submission) -> &Step {
        self.give(Event::Submit(submission))
    }

    pub(crate) fn connect(&mut self, name: &str, offer: Offer) -> &Step {
        let first = AgentState {
            offer: Some(offer),
            observed_version: 0,
            ..report(name, 1, Vec::new())
        };
        self.give(Event::AgentReported(first))
    }

    pub(crate) fn report(&mut self, state: AgentState) -> &Step {
        self.give(Event::AgentReported(state))
    }

    /// Lets time pass, tick by tick, as the driver would. Returns everything that came of it.
    pub(crate) fn pass(&mut self, duration: Duration) -> Vec<Effect> {
        let until = self.now + duration;
        let mut effects = Vec::new();
        while let Some(at) = self.step.wake_at.filter(|at| *at <= until) {
            self.now = at;
            effects.append(&mut self.scheduler_tick());
        }
        self.now = until;
        effects
    }

    fn scheduler_tick(&mut self) -> Vec<Effect> {
        self.give(Event::Tick);
        std::mem::take(&mut self.step.effects)
    }

    pub(crate) fn grants(&self) -> Vec<Grant> {
        let granted = |effect: &Effect| match effect {
            Effect::Granted(grant) => Some(grant.clone()),
            _ => None,
        };
        self.step.effects.iter().filter_map(granted).collect()
    }

    #[track_caller]
    pub(crate) fn the_grant(&self) -> Grant {
        let grants = self.grants();
        assert_eq!(grants.len(), 1, "{:?}", self.step);
        grants[0].clone()
    }

    #[track_caller]
    pub(crate) fn desired(&self) -> DesiredAgent {
        let desired = |effect: &Effect| match effect {
            Effect::Desire(desired) => Some(desired.clone()),
            _ => None,
        };
        self.step
            .effects
            .iter()
            .find_map(desired)
            .expect("a desired state")
    }

    pub(crate) fn has(&self, effect: &Effect) -> bool {
        self.step.effects.contains(effect)
    }

    pub(crate) fn answers(&self) -> Vec<(TaskId, UnitIndex, LeaseId)> {
        let answered = |effect: &Effect| match effect {
            Effect::UnitAnswered {
                task, unit, lease, ..
            } => Some((*task, *unit, *lease)),
            _ => None,
        };
        self.step.effects.iter().filter_map(answered).collect()
    }
}

pub(crate) fn unknown_lease(number: u64) -> HeldLease {
    HeldLease {
        lease: LeaseId(number),
        token: FencingToken(number),
        slot: None,
        outcomes: vec![UnitOutcome {
            unit: UnitIndex(0),
            index: 0,
            slot: SlotIndex(0),
            kind: OutcomeKind::Answered,
        }],
        finished: false,
        claim: None,
    }
}
