//! Small suites of which nothing is known.

use std::error::Error;
use std::time::Duration;

use regatta_scheduler::SchedulerConfig;
use regatta_scheduler::simulation::sharding::{
    Race, Scenario, Split, small_unknown, small_unknown_of_worker,
};

use super::label_of;

/// How long the tests of a suite take on average, which nobody knows before.
const MEANS: [Duration; 6] = [
    Duration::from_millis(1),
    Duration::from_millis(5),
    Duration::from_millis(20),
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(2),
];
/// How many suites there are of each mean, for each seed that is asked for.
const SUITES_PER_SEED: u64 = 10;

/// What came of a split, in lower bounds with one start of the runner.
#[derive(Default)]
struct Ratios {
    all: Vec<f64>,
    batches: usize,
}

/// A suite of tests that take so long on average, by a seed.
type Suites = fn(u64, Duration) -> Race;

/// Prints how long small suites take without history. It fails if the mean of the scheduler misses the aim.
pub(crate) fn print(seeds: u64) -> Result<(), Box<dyn Error>> {
    let suites = seeds.saturating_mul(SUITES_PER_SEED);
    println!(
        "\n2 to 60 tests of which nothing is known, 2 to 16 slots, up to 1 s to start a runner, {suites} suites for \
         each mean:\nmakespan / (lower bound + one start)     mean  worst  batches"
    );
    for split in [Split::Guided, Split::RoundRobin, Split::Hash] {
        print_all(split, suites, small_unknown)?;
    }
    println!("\nThe same, with a runner that stays:");
    print_all(Split::Guided, suites, small_unknown_of_worker)
}

fn print_all(split: Split, count: u64, suites: Suites) -> Result<(), Box<dyn Error>> {
    let mut of_all = Ratios::default();
    for mean in MEANS {
        let ratios = measure(split, (count, suites), mean)?;
        ratios.print(split, &format!("tests of {} ms", mean.as_millis()));
        of_all.all.extend(ratios.all);
        of_all.batches += ratios.batches;
    }
    of_all.print(split, "all of them");
    let aim = Scenario::NoHistory.aim();
    if split == Split::Guided && of_all.mean() > aim {
        let mean = of_all.mean();
        return Err(format!(
            "small suites without history took {mean:.3} lower bounds, which should be at most {aim:.2}"
        )
        .into());
    }
    Ok(())
}

fn measure(
    split: Split,
    (count, suites): (u64, Suites),
    mean: Duration,
) -> Result<Ratios, Box<dyn Error>> {
    let mut ratios = Ratios::default();
    for seed in 1..=count {
        let race = suites(seed, mean);
        let played = race.play(split, SchedulerConfig::default())?;
        ratios.all.push(played.ratio_with_start(&race));
        ratios.batches += played.batches;
    }
    Ok(ratios)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a measurement is no exact number"
)]
impl Ratios {
    fn mean(&self) -> f64 {
        self.all.iter().sum::<f64>() / self.count()
    }

    fn count(&self) -> f64 {
        self.all.len().max(1) as f64
    }

    fn print(&self, split: Split, what: &str) {
        let worst = self.all.iter().copied().fold(0.0, f64::max);
        println!(
            "{what:<24} {:<13} {:6.3} {worst:6.3} {:8.1}",
            label_of(split),
            self.mean(),
            self.batches as f64 / self.count()
        );
    }
}
