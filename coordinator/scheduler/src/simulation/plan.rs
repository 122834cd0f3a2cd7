//! What a simulation plays.

use std::time::Duration;

use super::Random;

/// Machines, work and faults. Every number is taken modulo what it picks from, so any plan is valid.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Decides delays, duplicates and the order of what happens at once.
    pub seed: u64,
    /// The fleet.
    pub machines: Vec<MachinePlan>,
    /// What is submitted, and when.
    pub work: Vec<WorkPlan>,
    /// What goes wrong, and when.
    pub faults: Vec<Fault>,
}

/// One machine.
#[derive(Debug, Clone)]
pub struct MachinePlan {
    /// How many leases at once.
    pub slots: u32,
    /// Thousandths of a CPU.
    pub cpu_milli: u64,
    /// Which of three architectures it has.
    pub arch: u8,
}

/// One submission.
#[derive(Debug, Clone)]
pub struct WorkPlan {
    /// When it arrives.
    pub at: Duration,
    /// Whose it is.
    pub tenant: u8,
    /// On behalf of what.
    pub run: u8,
    /// Lower sooner.
    pub priority: i8,
    /// How long each unit takes, in milliseconds.
    pub units_ms: Vec<u16>,
    /// Thousandths of a CPU that it needs.
    pub cpu_milli: u64,
    /// Which of three architectures it needs, or none in particular.
    pub arch: Option<u8>,
    /// What it shares with equal work.
    pub merge: Option<u8>,
    /// Which input tree it would like to find.
    pub tree: Option<u8>,
    /// After how many percent of what a unit takes it is late, if it may run twice at once.
    pub late_percent: Option<u8>,
    /// The machine and the slot in which it has failed before, if it is tried again.
    pub failed_at: Option<(u8, u8)>,
    /// When it is cancelled after it has arrived, if ever.
    pub cancel_after: Option<Duration>,
}

/// Something that goes wrong.
#[derive(Debug, Clone)]
pub struct Fault {
    /// When.
    pub at: Duration,
    /// On which machine.
    pub machine: usize,
    /// What.
    pub kind: FaultKind,
}

/// What can go wrong, or be asked for by somebody.
#[derive(Debug, Clone)]
pub enum FaultKind {
    /// The machine forgets everything and comes back later.
    Crash(Duration),
    /// The connection breaks and is made again later; the work goes on.
    Disconnect(Duration),
    /// Nothing is heard of the machine for a while; its connection stays up and its work goes on.
    Silence(Duration),
    /// Every unit that it works on is failed by the machine.
    BreakUnits,
    /// An operator drains it for a while.
    Drain(Duration),
    /// Nothing new is to be begun for a while, anywhere.
    Hold(Duration),
    /// Everything of one run is cancelled.
    CancelRun(u8, u8),
    /// The coordinator starts anew: it knows nothing but which tokens are reserved, every connection
    /// breaks, and whoever waits submits again.
    Restart,
}

impl Plan {
    /// A fleet of so many machines under load and in trouble: two tasks a machine, one fault for every
    /// second machine, a time in which nothing is begun, and a restart of the coordinator, all within two minutes.
    #[must_use]
    pub fn of_seed(seed: u64, machines: usize) -> Self {
        let mut random = Random::new(seed);
        Self {
            seed,
            machines: (0..machines).map(|_| machine(&mut random)).collect(),
            work: (0..machines * 2).map(|_| work(&mut random)).collect(),
            faults: (0..machines / 2)
                .map(|_| fault(&mut random, machines))
                .chain([
                    Fault {
                        at: Duration::from_secs(20),
                        machine: 0,
                        kind: FaultKind::Hold(Duration::from_secs(10)),
                    },
                    Fault {
                        at: Duration::from_secs(45),
                        machine: 0,
                        kind: FaultKind::Restart,
                    },
                ])
                .collect(),
        }
    }

    /// Whether there is a time in which nothing is begun.
    pub(crate) fn may_fill_up(&self) -> bool {
        let mut faults = self.faults.iter();
        faults.any(|fault| matches!(fault.kind, FaultKind::Hold(_)))
    }
}

fn small(random: &mut Random, bound: u8) -> u8 {
    u8::try_from(random.below(u64::from(bound))).unwrap_or_default()
}

fn machine(random: &mut Random) -> MachinePlan {
    MachinePlan {
        slots: 1 + u32::from(small(random, 8)),
        cpu_milli: 1000 * (1 + random.below(8)),
        arch: small(random, 3),
    }
}

fn work(random: &mut Random) -> WorkPlan {
    let units = if random.chance(20) {
        1 + random.below(60)
    } else {
        1
    };
    let unit = |random: &mut Random| u16::try_from(1 + random.below(8000)).unwrap_or(1);
    WorkPlan {
        at: random.millis(60_000),
        tenant: small(random, 4),
        run: small(random, 8),
        priority: 0,
        units_ms: (0..units).map(|_| unit(random)).collect(),
        cpu_milli: 250 * (1 + random.below(8)),
        arch: random.chance(50).then(|| small(random, 3)),
        merge: random.chance(20).then(|| small(random, 200)),
        tree: random.chance(50).then(|| small(random, 20)),
        late_percent: random.chance(50).then(|| 50 + small(random, 100)),
        failed_at: random
            .chance(10)
            .then(|| (small(random, u8::MAX), small(random, 8))),
        cancel_after: random.chance(5).then(|| random.millis(20_000)),
    }
}

fn fault(random: &mut Random, machines: usize) -> Fault {
    let kind = match random.below(6) {
        0 => FaultKind::Crash(random.millis(30_000)),
        1 | 2 => FaultKind::Disconnect(random.millis(30_000)),
        3 => FaultKind::Silence(random.millis(30_000)),
        4 => FaultKind::BreakUnits,
        _ => FaultKind::Drain(random.millis(30_000)),
    };
    Fault {
        at: random.millis(120_000),
        machine: usize::try_from(random.below(u64::try_from(machines).unwrap_or(1))).unwrap_or(0),
        kind,
    }
}
