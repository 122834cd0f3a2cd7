//! A suite, and the machines that run it.

use std::time::Duration;

use super::{guided, planned};
use crate::SchedulerConfig;

/// A suite that is to be run as fast as possible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Race {
    /// What is to be run.
    pub tests: Vec<RacingTest>,
    /// Where.
    pub machines: Vec<RacingMachine>,
    /// What each batch costs besides its tests, on a machine of ordinary speed.
    pub overhead: Duration,
}

/// A test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RacingTest {
    /// What it is called, which decides where hashing puts it.
    pub name: String,
    /// How long it takes on a machine of ordinary speed.
    pub takes: Duration,
    /// How long it is believed to take before it has run.
    pub expected: Duration,
}

/// A machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RacingMachine {
    /// How many batches it runs at once.
    pub slots: u32,
    /// How long after the start it is there.
    pub joins_after: Duration,
    /// Its speed: 100 is ordinary, 50 takes twice as long.
    pub speed_percent: u32,
}

/// How the tests get to the slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Split {
    /// The scheduler cuts a batch when a slot asks.
    Guided,
    /// Planned ahead by history: the longest test first, each to the slot with the least (Graham, 1969).
    LongestFirst,
    /// Planned ahead: the slots take turns.
    RoundRobin,
    /// Planned ahead: by a hash of the test's name.
    Hash,
}

/// How a race ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Played {
    /// From the start to the end of the last test.
    pub makespan: Duration,
    /// How often the overhead was paid.
    pub batches: usize,
}

impl Split {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Guided,
        Self::LongestFirst,
        Self::RoundRobin,
        Self::Hash,
    ];
}

impl RacingMachine {
    /// How long it takes for what an ordinary one takes `work` for.
    #[must_use]
    pub fn time_for(&self, work: Duration) -> Duration {
        work.saturating_mul(100) / self.speed_percent.max(1)
    }
}

impl Race {
    /// Runs the suite to its end.
    ///
    /// # Errors
    /// The scheduler left a test without an answer, or there is no slot.
    pub fn play(&self, split: Split, config: SchedulerConfig) -> Result<Played, String> {
        match split {
            Split::Guided => guided::play(self, config),
            Split::LongestFirst => planned::play(self, planned::longest_first(self)),
            Split::RoundRobin => planned::play(self, planned::round_robin(self)),
            Split::Hash => planned::play(self, planned::hash(self)),
        }
    }

    /// The time below which nobody gets, whatever he knows and however small he cuts: the longest test
    /// where it ends first, or all the work with every slot busy from its start to the end. Overhead is left
    /// out. On equal machines that are there from the start it is max(longest test, total / slots).
    #[must_use]
    pub fn lower_bound(&self) -> Duration {
        let work: Duration = self.tests.iter().map(|test| test.takes).sum();
        let longest = self.tests.iter().map(|test| test.takes).max();
        let alone = self
            .machines
            .iter()
            .map(|machine| machine.joins_after + machine.time_for(longest.unwrap_or_default()));
        self.with_all_busy(work)
            .max(alone.min().unwrap_or_default())
    }

    /// When so much work is done if it can be divided at will.
    fn with_all_busy(&self, work: Duration) -> Duration {
        let mut machines: Vec<_> = self.machines.iter().filter(|it| it.slots > 0).collect();
        machines.sort_by_key(|machine| machine.joins_after);
        let mut left = work.as_secs_f64();
        let (mut now, mut speed) = (Duration::ZERO, 0.0);
        for machine in machines {
            let done = speed * machine.joins_after.saturating_sub(now).as_secs_f64();
            if done >= left {
                break;
            }
            left -= done;
            now = machine.joins_after;
            speed += f64::from(machine.slots) * f64::from(machine.speed_percent) / 100.0;
        }
        let rest = if speed > 0.0 { left / speed } else { 0.0 };
        now + Duration::try_from_secs_f64(rest).unwrap_or_default()
    }
}

impl Played {
    /// How many times the lower bound it took.
    #[must_use]
    pub fn ratio(&self, race: &Race) -> f64 {
        self.makespan.as_secs_f64() / race.lower_bound().as_secs_f64()
    }
}
