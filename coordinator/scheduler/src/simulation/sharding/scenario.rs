//! What is known beforehand, of tests and of machines.

use std::time::Duration;

use super::race::{Race, RacingMachine, RacingTest, Stall};
use crate::simulation::Random;

/// How many slots a machine has, as long as there are so many.
const SLOTS_PER_MACHINE: u32 = 4;
/// How many times what is expected of a test it takes at most.
const LATE_FACTOR: u32 = 2;
/// What a test is expected to take of which nothing is known.
const UNKNOWN: Duration = Duration::from_millis(100);
/// The same of one that a runner runs with others,
const UNKNOWN_OF_A_RUNNER: Duration = Duration::from_millis(20);
/// and how long such a runner is believed to take to start.
const ASSUMED_START: Duration = Duration::from_millis(500);
/// What a batch costs where the runner has started,
const OF_A_WORKER: Duration = Duration::from_millis(15);
/// what it is believed to cost,
const ASSUMED_OF_A_WORKER: Duration = Duration::from_millis(50);
/// and how long a runner takes to start at least that is worth keeping.
const WORTH_KEEPING: Duration = Duration::from_millis(200);

/// How much is known before a race.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scenario {
    /// How long each test takes; all machines are there, and equal.
    ExactHistory,
    /// How long each test takes, up to 30 % more or less; machines come in the course of the first tenth,
    /// and their speed is up to 30 % more or less than ordinary.
    NoisyHistory,
    /// Nothing; all machines are there, and equal.
    NoHistory,
    /// How long each test takes; all machines are there, and equal, but in the last third one of them stops for
    /// as long as everything should take.
    Stall,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::ExactHistory,
        Self::NoisyHistory,
        Self::NoHistory,
        Self::Stall,
    ];

    /// The makespan that the scheduler is not to exceed, in lower bounds, if the work is much longer than its
    /// longest test.
    #[must_use]
    pub const fn aim(self) -> f64 {
        match self {
            Self::ExactHistory => 1.05,
            Self::NoisyHistory | Self::Stall => 1.15,
            Self::NoHistory => 1.25,
        }
    }

    /// A race of tests that take so long, over so many slots. `seed` decides what chance does.
    #[must_use]
    pub fn race(
        self,
        timings: &[(String, Duration)],
        slots: u32,
        overhead: Duration,
        seed: u64,
    ) -> Race {
        let mut random = Random::new(seed);
        let work: Duration = timings.iter().map(|(_, takes)| *takes).sum();
        let first_tenth = work / slots.max(1) / 10;
        let test = |(name, takes): &(String, Duration)| RacingTest {
            name: name.clone(),
            takes: *takes,
            expected: match self {
                Self::ExactHistory | Self::Stall => *takes,
                Self::NoisyHistory => *takes * around_100(&mut random) / 100,
                Self::NoHistory => UNKNOWN,
            },
            guessed: self == Self::NoHistory,
            late_after: None,
            first: false,
        };
        let late = |test: RacingTest| RacingTest {
            late_after: (self != Self::NoHistory).then_some(test.expected * LATE_FACTOR),
            ..test
        };
        let tests = timings.iter().map(test).map(late).collect();
        let mut machines: Vec<_> = machines_of(slots).collect();
        for machine in machines.iter_mut().filter(|_| self == Self::NoisyHistory) {
            machine.speed_percent = around_100(&mut random);
            machine.joins_after = share_of(first_tenth, &mut random);
        }
        if let Some(first) = machines.first_mut().filter(|_| self == Self::Stall) {
            let whole = work / slots.max(1);
            first.stall = Some(Stall {
                after: whole * 2 / 3 + share_of(whole / 3, &mut random),
                lasts: whole,
            });
        }
        // Somebody is there, or nothing begins.
        if let Some(first) = machines.first_mut() {
            first.joins_after = Duration::ZERO;
        }
        Race {
            tests,
            machines,
            overhead,
            overhead_again: overhead,
            assumed_overhead: overhead,
        }
    }
}

/// A suite of a runner's own that is small and of which nothing is known, not even how long the runner takes to
/// start: 2 to 60 tests, 2 to 16 slots, and a start of up to a second. Its tests take `mean` on average.
#[must_use]
pub fn small_unknown(seed: u64, mean: Duration) -> Race {
    let mut random = Random::new(seed);
    let mut number = |least: u64, most: u64| least + random.below(most - least + 1);
    let tests = usize::try_from(number(2, 60)).unwrap_or(2);
    let slots = u32::try_from(number(2, 16)).unwrap_or(2);
    let overhead = Duration::from_millis(number(0, 1000));
    let (sigma, of_timings) = (1.0_f64, number(0, u64::from(u32::MAX)));
    let median = mean.div_f64((sigma * sigma / 2.0).exp());
    let timings = log_normal(of_timings, tests, median, sigma);
    let mut race = Scenario::NoHistory.race(&timings, slots, overhead, seed);
    race.assumed_overhead = ASSUMED_START;
    for test in &mut race.tests {
        test.expected = UNKNOWN_OF_A_RUNNER;
    }
    race
}

/// The same where a runner stays in each slot for further batches.
#[must_use]
pub fn small_unknown_of_worker(seed: u64, mean: Duration) -> Race {
    let race = small_unknown(seed, mean);
    Race {
        overhead: race.overhead.max(WORTH_KEEPING),
        overhead_again: OF_A_WORKER,
        assumed_overhead: ASSUMED_OF_A_WORKER,
        ..race
    }
}

fn machines_of(slots: u32) -> impl Iterator<Item = RacingMachine> {
    let full = (0..slots / SLOTS_PER_MACHINE).map(|_| SLOTS_PER_MACHINE);
    let rest = slots % SLOTS_PER_MACHINE;
    full.chain((rest > 0).then_some(rest))
        .map(|slots| RacingMachine {
            slots,
            joins_after: Duration::ZERO,
            speed_percent: 100,
            stall: None,
        })
}

/// 70 to 130.
fn around_100(random: &mut Random) -> u32 {
    u32::try_from(70 + random.below(61)).unwrap_or(100)
}

fn share_of(whole: Duration, random: &mut Random) -> Duration {
    whole * u32::try_from(random.below(1001)).unwrap_or_default() / 1000
}

/// Tests that take as long as tests do: most of them little, and few of them much. The logarithm is normal
/// with a standard deviation of `sigma`; half of them take less than `median`.
#[must_use]
pub fn log_normal(
    seed: u64,
    count: usize,
    median: Duration,
    sigma: f64,
) -> Vec<(String, Duration)> {
    let mut random = Random::new(seed);
    let test = |index: usize| {
        // Twelve uniform numbers make a normal one, near enough.
        let normal: f64 = (0..12).map(|_| uniform(&mut random)).sum::<f64>() - 6.0;
        let takes = median.mul_f64((sigma * normal).exp());
        (format!("test_{index}"), takes)
    };
    (0..count).map(test).collect()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a million is exact in floating point"
)]
fn uniform(random: &mut Random) -> f64 {
    (random.below(1_000_000) + 1) as f64 / 1_000_001.0
}
