//! Agents as production has them, and the work that keeps them busy.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::{Duration, Instant};

use regatta_model::{
    AgentId, Digest, FencingToken, ImageReference, LeaseId, Platform, Resources, SlotIndex, TaskId,
    Timestamp, UnitIndex,
};
use regatta_scheduler::{
    AgentState, Effect, Event, HeldLease, Offer, OutcomeKind, Scheduler, SchedulerConfig, Step,
    Submission, UnitOutcome,
};

const START: Timestamp = Timestamp::from_nanos(1_800_000_000_000_000_000);
const SLOTS: u32 = 4;

/// One agent, as the scheduler sees it.
struct Machine {
    agent: AgentId,
    offer: Offer,
    sequence: u64,
    observed_version: u64,
    held: Vec<(LeaseId, FencingToken)>,
}

/// A scheduler, its agents, and how long it took.
pub(crate) struct Fleet {
    scheduler: Scheduler,
    now: Timestamp,
    machines: Vec<Machine>,
    by_agent: BTreeMap<AgentId, usize>,
    /// How many leases were granted.
    pub(crate) granted: usize,
    /// How long the scheduler has taken for each step that is measured.
    pub(crate) spent: Vec<Duration>,
    last_granted_to: Option<usize>,
}

/// What an agent of a cloud's machine says of itself: a name of its own, a size in bytes that no other
/// has, and images that it has pulled.
fn offer(index: usize) -> Result<Offer, Box<dyn Error>> {
    let platform = Platform::new([
        ("OSFamily", "linux"),
        ("Arch", "amd64"),
        ("Arch", "x86_64"),
        ("runtime", "docker"),
        ("hostname", &format!("machine-{index:05}")),
    ]);
    let image = |number: usize| format!("registry.example/image-{number}:latest").parse();
    let images = (0..4).map(|number| image((index + number) % 8));
    Ok(Offer {
        slots: SLOTS,
        resources: Resources {
            cpu_milli: 4000,
            memory_bytes: (1 << 34) - 4096 * u64::try_from(index)?,
        },
        platform,
        images: images.collect::<Result<Vec<ImageReference>, _>>()?,
        trees: Vec::new(),
    })
}

/// Work of ten tenants, a hundred runs and four sizes.
fn submission(index: usize) -> Result<Submission, Box<dyn Error>> {
    let number = u64::try_from(index)?;
    let name = Digest::of(&number.to_le_bytes());
    Ok(Submission {
        task: TaskId(number),
        tenant: format!("tenant-{}", index % 10).parse()?,
        run: format!("run-{}", index % 100).parse()?,
        priority: 0,
        platform: Platform::new([("OSFamily", "linux"), ("Arch", "amd64")]),
        resources: Resources {
            cpu_milli: 500 * (1 + number % 4),
            memory_bytes: 1 << 30,
        },
        image: Some(format!("registry.example/image-{}:latest", index % 8).parse()?),
        tree: Some(name),
        units: vec![Duration::from_micros(1000 + number * 7919 % 100_000).into()],
        batch_overhead: Duration::from_millis(5),
        merge_key: Some(name),
        failed_at: None,
    })
}

impl Fleet {
    pub(crate) fn new(agents: usize) -> Result<Self, Box<dyn Error>> {
        let machine = |index: usize| -> Result<Machine, Box<dyn Error>> {
            Ok(Machine {
                agent: format!("agent-{index:05}").parse()?,
                offer: offer(index)?,
                sequence: 0,
                observed_version: 0,
                held: Vec::new(),
            })
        };
        let machines = (0..agents).map(machine).collect::<Result<Vec<_>, _>>()?;
        let names = machines.iter().map(|machine| machine.agent.clone());
        Ok(Self {
            scheduler: Scheduler::new(SchedulerConfig::default()),
            now: START,
            by_agent: names.zip(0..).collect(),
            machines,
            granted: 0,
            spent: Vec::new(),
            last_granted_to: None,
        })
    }

    /// Submits a task; if it is placed at once, where.
    pub(crate) fn submit(&mut self, index: usize) -> Result<Option<usize>, Box<dyn Error>> {
        let submission = submission(index)?;
        self.last_granted_to = None;
        self.step(Event::Submit(submission));
        Ok(self.last_granted_to)
    }

    pub(crate) fn connect(&mut self) {
        for index in 0..self.machines.len() {
            self.report(index, Vec::new());
        }
    }

    /// An agent reports that the oldest of its leases has its outcome.
    pub(crate) fn finish_one(&mut self, index: usize) {
        let held = &mut self.machines[index].held;
        if held.is_empty() {
            return;
        }
        let (lease, token) = held.remove(0);
        let outcome = UnitOutcome {
            unit: UnitIndex(0),
            index: 0,
            slot: SlotIndex(0),
            kind: OutcomeKind::Answered,
        };
        let finished = HeldLease {
            lease,
            token,
            slot: None,
            outcomes: vec![outcome],
            finished: true,
            claim: None,
        };
        let going_on = |(lease, token): &(LeaseId, FencingToken)| HeldLease {
            lease: *lease,
            token: *token,
            slot: None,
            outcomes: Vec::new(),
            finished: false,
            claim: None,
        };
        let leases = std::iter::once(finished).chain(held.iter().map(going_on));
        let leases = leases.collect();
        self.report(index, leases);
    }

    fn report(&mut self, index: usize, leases: Vec<HeldLease>) {
        let machine = &mut self.machines[index];
        machine.sequence += 1;
        let state = AgentState {
            agent: machine.agent.clone(),
            sequence: machine.sequence,
            observed_version: machine.observed_version,
            offer: (machine.sequence == 1).then(|| machine.offer.clone()),
            leases,
            refusal: None,
        };
        self.step(Event::AgentReported(state));
    }

    fn step(&mut self, event: Event) {
        self.now = self.now + Duration::from_micros(1);
        let begun = Instant::now();
        let step = self.scheduler.step(self.now, event);
        self.spent.push(begun.elapsed());
        self.follow(step);
    }

    fn follow(&mut self, step: Step) {
        for effect in step.effects {
            match effect {
                Effect::Granted(grant) => {
                    self.granted += 1;
                    if let Some(index) = self.by_agent.get(&grant.agent).copied() {
                        self.machines[index].held.push((grant.lease, grant.token));
                        self.last_granted_to = Some(index);
                    }
                }
                Effect::Desire(desired) => {
                    if let Some(index) = self.by_agent.get(&desired.agent).copied() {
                        self.machines[index].observed_version = desired.version;
                    }
                }
                Effect::UnitAnswered { .. }
                | Effect::Fenced { .. }
                | Effect::UnitRetried { .. }
                | Effect::UnitReturned { .. }
                | Effect::UnitFailed { .. }
                | Effect::Merged { .. }
                | Effect::TaskFinished(_)
                | Effect::Refused { .. }
                | Effect::AgentLost(_) => {}
            }
        }
    }
}
