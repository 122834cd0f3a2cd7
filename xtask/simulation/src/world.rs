//! A world with one coordinator, some machines, clients, and all that can befall them.

mod clients;
mod ending;
mod faults;
mod happening;
mod machines;
mod network;
mod standby;
mod storage;

use std::collections::BTreeMap;
use std::time::Duration;

use regatta_model::Digest;
use regatta_wire::v1;

use crate::coordinator::Coordinator;
use crate::isolation;
use crate::job::Begun;
use crate::machine::Machine;
use crate::model::Model;
use crate::plan::{FAULTS_END, MENDED, Plan};
use crate::random::Random;
use crate::said::Said;
use crate::stock::Durable;
use crate::trace::Trace;
use crate::violation::Violation;
use crate::weather::Weather;
use clients::Client;
use happening::{Happening, Mood};
use machines::Upload;
use network::Wire;
use standby::Hung;

/// How long everything that is under way when all is mended may take to end.
const SETTLING: Duration = Duration::from_secs(45 * 60);
/// How long capacity may take to return once everything has ended.
const RETURNING: Duration = Duration::from_secs(40);
/// How far time goes in one step at most, so that the wall clock and what storage thinks of it keep up.
const STRIDE: Duration = Duration::from_secs(5);
/// What clocks that nobody sets show at the beginning.
const STEADY_CLOCK_BEGAN: Duration = Duration::from_secs(1_000_000);
/// What the wall clock shows at the beginning, in seconds since 1970.
const WALL_CLOCK_BEGAN: u64 = 1_800_000_000;

/// How a seed went.
#[derive(Clone, Debug)]
pub(crate) struct Played {
    pub(crate) violation: Option<Violation>,
    pub(crate) trace: Trace,
    /// What came of it, for people.
    pub(crate) summary: Summary,
}

/// What came of a seed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Summary {
    pub(crate) runs: usize,
    pub(crate) executions: usize,
    pub(crate) faults: usize,
    pub(crate) restarts: usize,
    /// How many blobs went that somebody had been told of.
    pub(crate) gone: usize,
    pub(crate) seconds: u64,
}

/// Everything there is.
pub(crate) struct World {
    now: Duration,
    plan: Plan,
    random: Random,
    agenda: BTreeMap<(Duration, u64), Happening>,
    entries: u64,
    durable: Durable,
    weather: Weather,
    coordinator: Option<Coordinator>,
    /// One that stands still.
    hung: Option<Hung>,
    /// What was seen of runs through that.
    seen_late: Vec<(usize, v1::RunEvent)>,
    restarts: usize,
    /// How much the coordinator's wall clock is off, in seconds.
    wall_clock_off: i64,
    /// The same when it started last.
    wall_clock_was_off: i64,
    machines: Vec<Machine>,
    wires: BTreeMap<crate::said::Link, Wire>,
    uploads: BTreeMap<u64, Upload>,
    parts: u64,
    begun_tests: Begun,
    clients: Vec<Client>,
    /// Keys of passes that runs told of.
    keys: Vec<Digest>,
    model: Model,
    trace: Trace,
}

/// Plays a plan to its end.
///
/// # Errors
/// This machine gives no runtime.
pub(crate) fn play(plan: &Plan) -> std::io::Result<Played> {
    let mut world = World::new(plan)?;
    world.schedule_plan();
    let ended = world.run();
    let trace = world.trace.clone();
    let summary = world.summary();
    let violation = match ended {
        Ok(()) => None,
        Err(Ended::Violated(violation)) => Some(violation),
        Err(Ended::Machine(error)) => return Err(error),
    };
    if let Some(violation) = &violation {
        trace.tell(world.now, &format!("VIOLATION {violation}"));
    }
    Ok(Played {
        violation,
        trace,
        summary,
    })
}

/// Why a world ends early.
enum Ended {
    Violated(Violation),
    /// The machine that it is simulated on failed.
    Machine(std::io::Error),
}

impl From<Violation> for Ended {
    fn from(violation: Violation) -> Self {
        Self::Violated(violation)
    }
}

impl World {
    fn new(plan: &Plan) -> std::io::Result<Self> {
        let trace = Trace::default();
        let machines = plan.machines.iter().enumerate();
        Ok(Self {
            now: Duration::ZERO,
            random: Random::new(plan.seed, 3),
            agenda: BTreeMap::new(),
            entries: 0,
            durable: Durable::new()?,
            weather: Weather::new(plan.seed, trace.clone()),
            coordinator: None,
            hung: None,
            seen_late: Vec::new(),
            restarts: 0,
            wall_clock_off: 0,
            wall_clock_was_off: 0,
            machines: machines
                .map(|(index, it)| Machine::new(index, it))
                .collect(),
            wires: BTreeMap::new(),
            uploads: BTreeMap::new(),
            parts: 0,
            begun_tests: Begun::new(),
            clients: plan.runs.iter().map(|_| Client::default()).collect(),
            keys: Vec::new(),
            model: Model::default(),
            trace,
            plan: plan.clone(),
        })
    }

    fn schedule_plan(&mut self) {
        self.after(Duration::ZERO, Happening::CoordinatorStarts);
        for (index, fault) in self.plan.faults.clone().iter().enumerate() {
            self.at(fault.at, Happening::Fault(index));
        }
        self.at(MENDED, Happening::Mended);
        for (index, machine) in self.plan.machines.clone().iter().enumerate() {
            self.at(machine.arrives, Happening::MachineStarts(index));
        }
        for (run, planned) in self.plan.runs.clone().iter().enumerate() {
            self.at(planned.at, Happening::Submits { run, attempt: 0 });
        }
        for at in self.plan.sweeps.clone() {
            self.at(at, Happening::Sweeps);
        }
        for at in self.plan.look_ups.clone() {
            self.at(at, Happening::LooksUp);
        }
        for (number, (at, _)) in self.plan.uploads.clone().iter().enumerate() {
            self.at(*at, Happening::Provides(number));
        }
        for (number, (at, ..)) in self.plan.large.clone().iter().enumerate() {
            self.at(*at, Happening::HasLarge(number));
        }
    }

    fn at(&mut self, time: Duration, happening: Happening) {
        self.entries += 1;
        let millis = time.max(self.now).as_nanos().div_ceil(1_000_000);
        let time = Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX));
        self.agenda.insert((time, self.entries), happening);
    }

    fn after(&mut self, delay: Duration, happening: Happening) {
        self.at(self.now + delay, happening);
    }

    fn tell(&self, what: &str) {
        self.trace.tell(self.now, what);
    }

    /// Whether faults may still happen.
    fn is_mended(&self) -> bool {
        self.now >= MENDED
    }

    fn run(&mut self) -> Result<(), Ended> {
        let ends_by = self.plan.last_submission().max(FAULTS_END).max(MENDED) + SETTLING;
        let mut quiet_since = None;
        loop {
            if self.is_over() {
                let since = *quiet_since.get_or_insert(self.now);
                if self.now >= since + RETURNING {
                    break;
                }
            } else {
                quiet_since = None;
                self.check_time(ends_by)?;
            }
            self.advance()?;
        }
        self.check_stored()?;
        self.check_capacity()?;
        Ok(())
    }

    /// Goes to the next moment at which something happens.
    fn advance(&mut self) -> Result<(), Ended> {
        let next = self.agenda.first_key_value().map(|((time, _), _)| *time);
        let stride = self.now + STRIDE;
        let target = next.map_or(stride, |next| next.min(stride));
        self.set_clocks();
        if let Some(coordinator) = &self.coordinator {
            self.now = coordinator.run_until(target);
            for said in coordinator.said() {
                self.hear(said)?;
            }
        } else {
            self.now = target;
        }
        self.go_on()?;
        self.check_panics()?;
        while let Some(entry) = self
            .agenda
            .first_entry()
            .filter(|it| it.key().0 <= self.now)
        {
            let happening = entry.remove();
            self.happens(happening)?;
        }
        Ok(())
    }

    fn set_clocks(&self) {
        self.durable.stock.set_clock(self.now);
        let seconds = WALL_CLOCK_BEGAN.saturating_add_signed(self.wall_clock_off);
        let wall = Duration::from_secs(seconds) + self.now;
        let steady = STEADY_CLOCK_BEGAN + self.now;
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        isolation::set_clocks(nanos(wall), nanos(steady));
    }

    fn happens(&mut self, happening: Happening) -> Result<(), Ended> {
        match happening {
            Happening::Fault(index) => self.strike(index)?,
            Happening::Mended => self.mend(),
            Happening::CoordinatorStarts => self.start_coordinator().map_err(Ended::Machine)?,
            Happening::MachineStarts(machine) => self.start_machine(machine)?,
            Happening::Wakes { machine, life } => self.wake(machine, life)?,
            Happening::Connects { machine, life } => self.connect(machine, life)?,
            Happening::LinkLost(link) => self.lose_link(link)?,
            Happening::LinkEnds(link) => self.end_link(link),
            Happening::KeepAlive(link) => self.keep_alive(link)?,
            Happening::ReportLeft(link) => self.report_left(link)?,
            Happening::ReportArrives(link, report) => self.report_arrives(link, *report),
            Happening::StateArrives(link, state) => self.state_arrives(link, *state)?,
            Happening::Works(slot) => self.work(slot)?,
            Happening::Stopped(slot, key) => self.stopped(slot, key)?,
            Happening::Uploads(upload) => self.upload(upload)?,
            Happening::StorageMended(mood) => self.mend_storage(mood),
            Happening::Submits { run, attempt } => self.submit(run, attempt),
            Happening::Watches(run) => self.watch(run),
            Happening::Cancels(run) => self.cancel(run),
            Happening::Sweeps => self.sweep(),
            Happening::LooksUp => self.look_up(),
            Happening::Awakes => self.awake(),
            Happening::Provides(number) => self.provide(number),
            Happening::HasLarge(number) => self.have_large(number),
        }
        Ok(())
    }

    fn hear(&mut self, said: Said) -> Result<(), Ended> {
        match said {
            Said::Started => self.started(),
            Said::FailedToStart(error) => {
                self.tell(&format!("the coordinator cannot start: {error}"));
                self.kill_coordinator(Duration::from_secs(1));
            }
            Said::Crashed => {
                let down = self.random.millis(200, 20_000);
                self.kill_coordinator(down);
            }
            Said::State(link, state) => self.state_leaves(link, state)?,
            Said::HungUp(link, reason) => {
                self.tell(&format!(
                    "{}: the coordinator hangs up: {reason}",
                    show(link)
                ));
                let delay = self.random.millis(1, 20);
                self.after(delay, Happening::LinkLost(link));
            }
            Said::Uploaded { upload, stored } => self.uploaded(upload, stored)?,
            Said::Submitted { run, answer } => self.submitted(run, answer),
            Said::Event { run, event } => self.event(run, *event)?,
            Said::WatchEnded { run, failure } => self.watch_ended(run, failure.as_deref()),
            Said::Served { key, absent } => {
                self.tell(&format!("the result of {key} is served"));
                self.model.served(&key, &absent)?;
            }
            Said::Read { digest, is_right } => self.read(&digest, is_right)?,
            Said::Promised(promise) => self.promised(&promise)?,
            Said::StoreChanged { removed } => {
                if removed {
                    self.check_promises()?;
                }
            }
            Said::Removing { key } => self.removing(&key),
            Said::Spoilt { key } => self.spoilt(&key),
        }
        Ok(())
    }

    fn summary(&self) -> Summary {
        Summary {
            runs: self.clients.len(),
            executions: self.model.next_execution(),
            faults: self.plan.faults.len(),
            restarts: self.restarts,
            gone: self.model.promises.gone(),
            seconds: self.now.as_secs(),
        }
    }
}

/// A connection, for people.
fn show(link: crate::said::Link) -> String {
    format!("m{} link {}", link.machine, link.number)
}

/// What storage is like in each mood, of a thousand operations.
const fn permille(mood: Mood) -> u64 {
    match mood {
        Mood::Slow => 1000,
        Mood::Failing => 300,
        Mood::Full => 1000,
        Mood::Lying => 200,
    }
}
