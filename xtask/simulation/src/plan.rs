//! What a seed holds: machines, runs and faults.

use std::collections::BTreeMap;
use std::time::Duration;

use regatta_wire::v1;

use crate::coordinator::Transport;
use crate::job::{self, InputTree, Kind};
use crate::large::{LargeBlob, LargeUse, large};
use crate::random::Random;
use crate::weather::Crash;

/// When the last fault begins at the latest, and when every fault is over.
pub(crate) const FAULTS_END: Duration = Duration::from_secs(45);
/// When everything that is broken is mended.
pub(crate) const MENDED: Duration = Duration::from_secs(80);
/// How long after the first runs some come again: by then, what nobody used is swept from the store.
const LATER: Duration = Duration::from_secs(180);

/// For how long everything is kept after its last use: as much less than in earnest as everything takes less time.
pub(crate) const KEEP: Duration = Duration::from_secs(32);
/// For how long what verdicts name is kept after the last was given.
pub(crate) const KEEP_VERDICTS: Duration = Duration::from_secs(90);
/// Uses that are not older when a coordinator is killed may be in no log.
pub(crate) const LAST_USES: Duration = Duration::from_millis(2200);

/// How long a coordinator stands still, at least and at most: until after another has its place, and in half of all cases
/// for longer than that one keeps what it found, so that it may have let go what the first still knows of.
const STANDSTILLS: (Duration, Duration) = (Duration::from_secs(11), Duration::from_secs(75));

/// How often somebody uploads what no run needs.
const UPLOADS: u32 = 24;
/// Everything that is decided beforehand.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) storage: StoragePlan,
    pub(crate) transport: Transport,
    pub(crate) machines: Vec<MachinePlan>,
    pub(crate) runs: Vec<RunPlan>,
    pub(crate) faults: Vec<Fault>,
    /// When the store forgets what was not used for long.
    pub(crate) sweeps: Vec<Duration>,
    /// When cached results are asked for.
    pub(crate) look_ups: Vec<Duration>,
    /// When somebody asks whether these are there, and uploads what is not.
    pub(crate) uploads: Vec<(Duration, InputTree)>,
    /// When somebody does something with a large blob.
    pub(crate) large: Vec<(Duration, LargeBlob, LargeUse)>,
}

/// How everything is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct StoragePlan {
    /// Whether small blobs are packed.
    pub(crate) packs: bool,
    /// Whether another coordinator stands by that may go on, with files of its own.
    pub(crate) is_shared: bool,
    /// Whether somebody else lets go of what is unused; else the coordinator does.
    pub(crate) is_swept: bool,
    /// How many bytes there may be.
    pub(crate) max_bytes: Option<u64>,
    /// How many a tenant may have, if that is limited, and for how long.
    pub(crate) tenant_bytes: Option<u64>,
    pub(crate) max_age: Option<Duration>,
}

#[derive(Clone, Debug)]
pub(crate) struct MachinePlan {
    pub(crate) slots: u32,
    pub(crate) arrives: Duration,
    /// How wrong its clock is.
    pub(crate) clock_ahead: Duration,
    /// How much time passes there in a thousandth of a second, in microseconds.
    pub(crate) clock_rate: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct RunPlan {
    pub(crate) at: Duration,
    /// What its jobs start from.
    pub(crate) inputs: InputTree,
    pub(crate) spec: v1::RunSpec,
    pub(crate) cancel_after: Option<Duration>,
    /// The tests of each suite.
    pub(crate) suites: BTreeMap<String, Vec<String>>,
    /// Whether nothing befalls it but what its tests do.
    pub(crate) is_calm: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Fault {
    pub(crate) at: Duration,
    pub(crate) machine: usize,
    pub(crate) kind: FaultKind,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FaultKind {
    /// A machine loses its power for so long.
    PowerFails(Duration),
    /// An agent is asked to end, and is started again so much later.
    Drains(Duration),
    /// Nothing passes between a machine and the coordinator.
    Partition(Duration),
    /// A connection breaks; what is on its way is lost, or comes late.
    LinkBreaks,
    /// The slots of a machine fail without a word, and whatever is begun there for so long.
    SlotsFail(Duration),
    /// Whatever a machine executes, it fails.
    MachineFails(Duration),
    /// The coordinator is killed.
    Killed,
    /// It stands still for so long, and another goes on meanwhile.
    Hangs(Duration),
    /// It ends at a write to the ledger.
    Crashes(Crash),
    /// It ends at the next list of chunks that it stores, before or after that.
    CrashesAtList {
        after: bool,
    },
    StorageSlow(Duration),
    StorageFails(Duration),
    /// The ledger takes nothing for longer than runs wait for it.
    LedgerFull(Duration),
    StorageLies(Duration),
    /// The coordinator's clock is set to another time when it starts next: so many seconds ahead of, or behind,
    /// where it is.
    ClockSet(i32),
}

/// Which faults there may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub(crate) enum Faults {
    /// All of them.
    #[default]
    All,
    /// None: everything has to go well.
    None,
    /// Of machines and their connections alone.
    Machines,
    /// Of the coordinator and its storage alone.
    Coordinator,
}

impl Plan {
    pub(crate) fn of_seed(seed: u64, faults: Faults) -> Self {
        let mut random = Random::new(seed, 1);
        let machines = (0..random.between(1, 4))
            .map(|_| machine(&mut random))
            .collect::<Vec<_>>();
        let is_later = random.chance(150);
        let mut runs = runs(&mut random, is_later);
        // Of other numbers, so that everything else is as it would be without.
        let mut others = Random::new(seed, 4);
        let mut storage = storage(&mut others, is_later);
        if !is_later && others.chance(500) {
            let at = others.millis(35_000, 75_000);
            runs.push(again(&runs[others.index(runs.len())], at));
        }
        for run in &mut runs {
            run.is_calm = faults == Faults::None;
        }
        let count = random.between(0, 9);
        let faults_of_seed = (0..count).map(|_| fault(&mut random, machines.len()));
        let mut planned: Vec<Fault> = faults_of_seed.collect();
        if storage.is_shared && others.chance(600) {
            planned.push(Fault {
                at: others.millis(2000, millis(FAULTS_END)),
                machine: 0,
                kind: FaultKind::Hangs(others.millis(millis(STANDSTILLS.0), millis(STANDSTILLS.1))),
            });
        }
        let mut of_large = Random::new(seed, 5);
        let large = large(&mut of_large, &mut storage, &mut planned);
        planned.retain(|fault| faults.allow(fault.kind));
        let end = if is_later {
            LATER + Duration::from_secs(40)
        } else {
            MENDED
        };
        let is_loose = faults == Faults::All && random.chance(250);
        Self {
            seed,
            storage,
            transport: if is_loose {
                Transport::Datagrams
            } else {
                Transport::Stream
            },
            machines,
            runs,
            faults: planned,
            sweeps: if is_later {
                vec![LATER - Duration::from_secs(5)]
            } else {
                Vec::new()
            },
            large,
            uploads: (0..UPLOADS).map(|_| upload(&mut others)).collect(),
            look_ups: (0..20).map(|_| random.millis(1000, millis(end))).collect(),
        }
    }

    /// The same without some of its faults, by their places.
    pub(crate) fn without(mut self, omitted: &[usize]) -> Self {
        let mut place = 0..;
        self.faults
            .retain(|_| place.next().is_some_and(|place| !omitted.contains(&place)));
        self
    }

    /// Whether nothing befalls the coordinator and its storage.
    pub(crate) fn is_orderly(&self) -> bool {
        let mut faults = self.faults.iter();
        !self.storage.is_swept && faults.all(|fault| Faults::Machines.allow(fault.kind))
    }

    /// When the last run is submitted at the latest.
    pub(crate) fn last_submission(&self) -> Duration {
        self.runs.iter().map(|run| run.at).max().unwrap_or_default()
    }
}

impl Faults {
    fn allow(self, kind: FaultKind) -> bool {
        let of_machines = match kind {
            FaultKind::PowerFails(_)
            | FaultKind::Drains(_)
            | FaultKind::Partition(_)
            | FaultKind::LinkBreaks
            | FaultKind::SlotsFail(_)
            | FaultKind::MachineFails(_) => true,
            FaultKind::Killed
            | FaultKind::Hangs(_)
            | FaultKind::Crashes(_)
            | FaultKind::CrashesAtList { .. }
            | FaultKind::StorageSlow(_)
            | FaultKind::StorageFails(_)
            | FaultKind::LedgerFull(_)
            | FaultKind::StorageLies(_)
            | FaultKind::ClockSet(_) => false,
        };
        match self {
            Self::All => true,
            Self::None => false,
            Self::Machines => of_machines,
            Self::Coordinator => !of_machines,
        }
    }
}

pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn machine(random: &mut Random) -> MachinePlan {
    let is_late = random.chance(200);
    MachinePlan {
        slots: u32::try_from(random.between(1, 3)).unwrap_or(1),
        arrives: random.millis(0, if is_late { 40_000 } else { 500 }),
        clock_ahead: random.millis(0, 7_200_000),
        clock_rate: random.between(950, 1050),
    }
}

fn storage(random: &mut Random, is_swept: bool) -> StoragePlan {
    let limited = |random: &mut Random, first, last| {
        let limit = random.between(first, last);
        random.chance(300).then_some(limit)
    };
    let tenant_bytes = limited(random, 500, 3000);
    let max_age = limited(random, 20, 60).map(Duration::from_secs);
    StoragePlan {
        packs: !is_swept && random.chance(500),
        is_shared: !is_swept && random.chance(400),
        is_swept,
        max_bytes: (tenant_bytes.is_none() || random.chance(500))
            .then(|| random.between(500, 5000)),
        tenant_bytes,
        max_age,
    }
}

fn upload(random: &mut Random) -> (Duration, InputTree) {
    let at = random.millis(1000, millis(MENDED));
    (at, InputTree::of(random.below(8)))
}

fn runs(random: &mut Random, is_later: bool) -> Vec<RunPlan> {
    let count = random.between(1, 3);
    let mut runs: Vec<RunPlan> = (0..count).map(|_| run(random)).collect();
    if random.chance(300) {
        let at = random.millis(15_000, 40_000);
        runs.push(again(&runs[0], at));
    }
    if is_later {
        let at = LATER + random.millis(0, 5000);
        runs.push(again(&runs[0], at));
    }
    runs
}

fn again(run: &RunPlan, at: Duration) -> RunPlan {
    RunPlan { at, ..run.clone() }
}

fn run(random: &mut Random) -> RunPlan {
    let at = random.millis(100, 20_000);
    let cancel_after = random.chance(200).then(|| random.millis(0, 40_000));
    let variant = random.below(4);
    let retries = u32::try_from(random.below(3)).unwrap_or(0);
    let inputs = InputTree::of(variant);
    let mut suites = BTreeMap::new();
    let mut jobs = Vec::new();
    let has_build = random.chance(400);
    if has_build {
        jobs.push(job::build("make", &format!("v{variant}")));
    }
    let (unit, together) = (random.chance(850), random.chance(350));
    if unit || !together {
        let tests = tests(random, "a", variant, cancel_after.is_some());
        jobs.push(job::suite("unit", &tests, retries));
        suites.insert("unit".to_owned(), tests);
    }
    if together {
        let tests = tests(random, "b", variant, false);
        let suite = job::contract("together", &tests, retries);
        jobs.push(if has_build {
            job::after("make", suite)
        } else {
            suite
        });
        suites.insert("together".to_owned(), tests);
    }
    for job in &mut jobs {
        job.input_root = Some(inputs.root().into());
    }
    let max_failures = if random.chance(150) { 1 } else { 0 };
    let spec = v1::RunSpec {
        jobs,
        max_failures,
        ..Default::default()
    };
    RunPlan {
        at,
        inputs,
        spec,
        cancel_after,
        suites,
        is_calm: false,
    }
}

/// Tests of one suite. Suites with the same tests share what is known of them.
fn tests(random: &mut Random, suite: &str, variant: u64, may_hang: bool) -> Vec<String> {
    let count = random.between(1, 12);
    let name = |random: &mut Random, number: u64| {
        let kind = match random.below(100) {
            0..8 => Kind::Fails,
            8..18 => Kind::Wavers,
            18..60 if may_hang && number < 2 => Kind::Hangs,
            _ => Kind::Passes,
        };
        format!("{}_{suite}{variant}_{number}", kind.name())
    };
    (0..count).map(|number| name(random, number)).collect()
}

fn fault(random: &mut Random, machines: usize) -> Fault {
    let at = random.millis(0, millis(FAULTS_END));
    let machine = random.index(machines);
    let kind = match random.below(15) {
        0 => FaultKind::PowerFails(random.millis(100, 40_000)),
        1 => FaultKind::Drains(random.millis(1000, 30_000)),
        2 | 3 => FaultKind::Partition(random.millis(200, 40_000)),
        4 | 5 => FaultKind::LinkBreaks,
        6 => FaultKind::SlotsFail(random.millis(0, 3000)),
        7 => FaultKind::MachineFails(random.millis(100, 10_000)),
        8 => FaultKind::Killed,
        9..=11 => FaultKind::Crashes(Crash {
            write: u32::try_from(random.between(1, 12)).unwrap_or(1),
            after: random.chance(500),
        }),
        12 => FaultKind::StorageSlow(random.millis(1000, 20_000)),
        13 if random.chance(400) => FaultKind::LedgerFull(random.millis(12_000, 40_000)),
        13 => FaultKind::StorageFails(random.millis(1000, 20_000)),
        _ if random.chance(500) => FaultKind::StorageLies(random.millis(1000, 30_000)),
        _ => FaultKind::ClockSet(i32::try_from(random.below(7200)).unwrap_or(0) - 3600),
    };
    Fault { at, machine, kind }
}
