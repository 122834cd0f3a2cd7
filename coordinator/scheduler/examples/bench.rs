//! What an assignment costs, and what a queued task weighs.
//!
//! `bench [--json] [--tasks N] [--agents N]`: for fleets of 10 to 10,000 agents and queues of 1,000 to 1,000,000 tasks, one
//! line each. An assignment is the whole cycle of a task: an agent reports an outcome, the outcome is
//! taken, the slot gets the next task, the agent is told.

#![expect(clippy::print_stdout, reason = "a program for the terminal")]
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "measuring needs a clock; the scheduler never sees it"
)]
#![expect(unsafe_code, reason = "counting allocations needs an allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use regatta_model::{
    AgentId, Digest, FencingToken, LeaseId, Platform, Resources, SlotIndex, TaskId, Timestamp,
    UnitIndex,
};
use regatta_scheduler::{
    AgentState, Effect, Event, HeldLease, Offer, OutcomeKind, Scheduler, SchedulerConfig, Step,
    Submission, UnitOutcome,
};

struct CountingAllocator;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged; the counter is only a number.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps to the contract of `alloc`, which is the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the pointer came from `alloc` above, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// How many assignments are measured at most.
const ASSIGNMENTS: usize = 200_000;
const START: Timestamp = Timestamp::from_nanos(1_800_000_000_000_000_000);

struct Measured {
    tasks: usize,
    agents: usize,
    assignments: usize,
    nanos_per_assignment: f64,
    median_nanos: u128,
    bytes_per_task: f64,
}

/// One slot of one agent.
struct Slot {
    agent: AgentId,
    sequence: u64,
    observed_version: u64,
    held: Option<(LeaseId, FencingToken)>,
}

struct Bench {
    scheduler: Scheduler,
    now: Timestamp,
    slots: Vec<Slot>,
    by_agent: BTreeMap<AgentId, usize>,
    granted: usize,
}

fn main() -> Result<(), Box<dyn Error>> {
    let json = std::env::args().any(|argument| argument == "--json");
    if !json {
        println!(
            "   tasks  agents  assignments  ns/assignment  median ns  assignments/s  bytes/task"
        );
    }
    let (only_tasks, only_agents) = (number("--tasks")?, number("--agents")?);
    for tasks in only_tasks.map_or(vec![1_000, 10_000, 100_000, 1_000_000], |only| vec![only]) {
        for agents in only_agents.map_or(vec![10, 100, 1_000, 10_000], |only| vec![only]) {
            let measured = measure(tasks, agents)?;
            print(&measured, json);
        }
    }
    Ok(())
}

fn number(flag: &str) -> Result<Option<usize>, Box<dyn Error>> {
    let mut arguments = std::env::args()
        .skip_while(|argument| argument != flag)
        .skip(1);
    Ok(arguments.next().map(|text| text.parse()).transpose()?)
}

fn print(measured: &Measured, json: bool) {
    let Measured {
        tasks,
        agents,
        assignments,
        nanos_per_assignment: nanos,
        median_nanos: median,
        bytes_per_task: bytes,
    } = measured;
    let rate = 1e9 / nanos;
    if json {
        println!(
            "{{\"tasks\":{tasks},\"agents\":{agents},\"assignments\":{assignments},\
             \"nanos_per_assignment\":{nanos:.0},\"median_nanos\":{median},\"assignments_per_second\":{rate:.0},\
             \"bytes_per_task\":{bytes:.0}}}"
        );
    } else {
        println!(
            "{tasks:8} {agents:7} {assignments:12} {nanos:14.0} {median:10} {rate:14.0} {bytes:11.0}"
        );
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a measurement is no exact number"
)]
fn measure(tasks: usize, agents: usize) -> Result<Measured, Box<dyn Error>> {
    let mut bench = Bench::new(agents)?;
    let before = ALLOCATED.load(Ordering::Relaxed);
    for index in 0..tasks {
        let submission = submission(index)?;
        bench.step(Event::Submit(submission));
    }
    let bytes_per_task = (ALLOCATED.load(Ordering::Relaxed) - before) as f64 / tasks as f64;
    let mut spent = Vec::with_capacity(ASSIGNMENTS);
    bench.connect(&mut spent);
    let mut slot = 0;
    while spent.len() < ASSIGNMENTS && bench.granted < tasks {
        bench.cycle(slot % agents, &mut spent);
        slot += 1;
    }
    let assignments = spent.len().max(1);
    let total: u128 = spent.iter().sum();
    spent.sort_unstable();
    let median_nanos = spent.get(assignments / 2).copied().unwrap_or_default();
    Ok(Measured {
        tasks,
        agents,
        assignments,
        nanos_per_assignment: total as f64 / assignments as f64,
        median_nanos,
        bytes_per_task,
    })
}

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
        image: Some("registry.example/image:latest".parse()?),
        tree: Some(name),
        units: vec![Duration::from_micros(1000 + number * 7919 % 100_000)],
        batch_overhead: Duration::from_millis(5),
        merge_key: Some(name),
    })
}

impl Bench {
    fn new(agents: usize) -> Result<Self, Box<dyn Error>> {
        let slot = |index: usize| -> Result<Slot, Box<dyn Error>> {
            Ok(Slot {
                agent: format!("agent-{index:05}").parse()?,
                sequence: 0,
                observed_version: 0,
                held: None,
            })
        };
        let slots = (0..agents).map(slot).collect::<Result<Vec<_>, _>>()?;
        let by_agent = slots
            .iter()
            .map(|slot| slot.agent.clone())
            .zip(0..)
            .collect();
        Ok(Self {
            scheduler: Scheduler::new(SchedulerConfig::default()),
            now: START,
            slots,
            by_agent,
            granted: 0,
        })
    }

    fn connect(&mut self, spent: &mut Vec<u128>) {
        for index in 0..self.slots.len() {
            self.report(index, Vec::new(), spent);
        }
    }

    /// Ends what a slot works on.
    fn cycle(&mut self, index: usize, spent: &mut Vec<u128>) {
        let Some((lease, token)) = self.slots[index].held.take() else {
            return;
        };
        let outcome = UnitOutcome {
            unit: UnitIndex(0),
            index: 0,
            slot: SlotIndex(0),
            kind: OutcomeKind::Answered,
        };
        let held = HeldLease {
            lease,
            token,
            outcomes: vec![outcome],
            finished: true,
        };
        self.report(index, vec![held], spent);
    }

    /// Reports, and notes how many nanoseconds the scheduler took if that led to an assignment.
    fn report(&mut self, index: usize, leases: Vec<HeldLease>, spent: &mut Vec<u128>) {
        let slot = &mut self.slots[index];
        slot.sequence += 1;
        let offer = (slot.sequence == 1).then(|| Offer {
            slots: 1,
            resources: Resources {
                cpu_milli: 4000,
                memory_bytes: 1 << 34,
            },
            platform: Platform::new([("OSFamily", "linux"), ("Arch", "amd64")]),
            images: Vec::new(),
            trees: Vec::new(),
        });
        let state = AgentState {
            agent: slot.agent.clone(),
            sequence: slot.sequence,
            observed_version: slot.observed_version,
            offer,
            leases,
            accepts_work: true,
        };
        let begun = Instant::now();
        let step = self.step(Event::AgentReported(state));
        let elapsed = begun.elapsed().as_nanos();
        let granted = self.granted;
        self.follow(step);
        if self.granted > granted {
            spent.push(elapsed);
        }
    }

    fn step(&mut self, event: Event) -> Step {
        self.now = self.now + Duration::from_micros(1);
        self.scheduler.step(self.now, event)
    }

    fn follow(&mut self, step: Step) {
        for effect in step.effects {
            match effect {
                Effect::Granted(grant) => {
                    self.granted += 1;
                    if let Some(slot) = self.by_agent.get(&grant.agent) {
                        self.slots[*slot].held = Some((grant.lease, grant.token));
                    }
                }
                Effect::Desire(desired) => {
                    if let Some(slot) = self.by_agent.get(&desired.agent) {
                        self.slots[*slot].observed_version = desired.version;
                    }
                }
                Effect::UnitAnswered { .. }
                | Effect::Fenced { .. }
                | Effect::UnitRetried { .. }
                | Effect::UnitFailed { .. }
                | Effect::Merged { .. }
                | Effect::TaskFinished(_)
                | Effect::Refused { .. }
                | Effect::AgentLost(_) => {}
            }
        }
    }
}
