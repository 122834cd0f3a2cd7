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
    /// What the first batch of a slot costs besides its tests, on a machine of ordinary speed,
    pub overhead: Duration,
    /// and what each further one does: less where a runner stays for it.
    pub overhead_again: Duration,
    /// What it is believed to cost.
    pub assumed_overhead: Duration,
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
    /// Whether that is a guess, because nothing was measured.
    pub guessed: bool,
    /// How long it is believed to take at most, if anything is known of it.
    pub late_after: Option<Duration>,
    /// Whether its answer is wanted first.
    pub first: bool,
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
    /// When it does nothing for a while, if it does.
    pub stall: Option<Stall>,
}

/// A pause in which a machine neither works nor answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stall {
    /// How long after the start it begins.
    pub after: Duration,
    /// How long it lasts.
    pub lasts: Duration,
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
    /// From the start to the last answer that was wanted first; `None` if none was, or nobody cares.
    pub first_answered: Option<Duration>,
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

    /// When it is done with what an ordinary machine takes `work` for, if it begins so long after the start.
    #[must_use]
    pub fn end_of(&self, begins: Duration, work: Duration) -> Duration {
        let end = begins + self.time_for(work);
        match self.stall {
            Some(stall) if end > stall.after && begins < stall.after + stall.lasts => {
                end.max(stall.after)
                    + stall
                        .lasts
                        .saturating_sub(begins.saturating_sub(stall.after))
            }
            Some(_) | None => end,
        }
    }

    /// Whether it does nothing so long after the start.
    #[must_use]
    pub fn is_stalled(&self, now: Duration) -> bool {
        self.stall
            .is_some_and(|stall| now >= stall.after && now < stall.after + stall.lasts)
    }

    /// When its speed changes, and by how many percent of an ordinary machine's slot.
    fn changes(&self) -> impl Iterator<Item = (Duration, i64)> {
        let speed = i64::from(self.slots) * i64::from(self.speed_percent);
        let stall = self.stall.map(|stall| {
            let begins = stall.after.max(self.joins_after);
            let ends = begins.max(stall.after + stall.lasts);
            [(begins, -speed), (ends, speed)]
        });
        [(self.joins_after, speed)]
            .into_iter()
            .chain(stall.into_iter().flatten())
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
            .map(|machine| machine.end_of(machine.joins_after, longest.unwrap_or_default()));
        self.with_all_busy(work)
            .max(alone.min().unwrap_or_default())
    }

    /// When so much work is done if it can be divided at will.
    #[expect(
        clippy::cast_precision_loss,
        reason = "the speed of a fleet is exact in floating point"
    )]
    fn with_all_busy(&self, work: Duration) -> Duration {
        let changes = self.machines.iter().flat_map(RacingMachine::changes);
        let mut changes: Vec<_> = changes.collect();
        changes.sort_unstable();
        let mut left = work.as_secs_f64();
        let (mut now, mut percent) = (Duration::ZERO, 0);
        for (at, change) in changes {
            let done = percent as f64 / 100.0 * at.saturating_sub(now).as_secs_f64();
            if done >= left {
                break;
            }
            left -= done;
            now = at;
            percent += change;
        }
        let rest = if percent > 0 {
            left * 100.0 / percent as f64
        } else {
            0.0
        };
        now + Duration::try_from_secs_f64(rest).unwrap_or_default()
    }
}

impl Played {
    /// How many times the lower bound it took.
    #[must_use]
    pub fn ratio(&self, race: &Race) -> f64 {
        self.makespan.as_secs_f64() / race.lower_bound().as_secs_f64()
    }

    /// The same, where one start of a batch counts as a part of the bound: nothing runs without it.
    #[must_use]
    pub fn ratio_with_start(&self, race: &Race) -> f64 {
        let bound = race.lower_bound() + race.overhead;
        self.makespan.as_secs_f64() / bound.as_secs_f64()
    }
}
