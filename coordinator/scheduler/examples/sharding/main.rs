//! How close suites come to the shortest time possible: the scheduler beside splits that plan ahead.
//!
//! `sharding [--tests N] [--slots N] [--seeds N] [--overhead-ms N] [--json]` makes suites up, whose times are
//! log-normal with a median of 200 ms. `--timings FILE` plays a suite as it was measured instead: a JUnit
//! report, or what `regatta history --format csv` prints.
//!
//! `--run FILE` compares a run that was carried out with splits of the same tests; FILE has what
//! `regatta run --message-format json` printed.
//!
//! For each scenario and each split it prints the makespan in lower bounds, overhead included: the mean over
//! the seeds and the worst. Then the same for small suites without history, if the suite is not one of the caller's
//! and it does not print JSON. It fails if the scheduler misses an aim, unless the suite is one of the caller's.

#![expect(clippy::print_stdout, reason = "a program for the terminal")]
#![expect(
    clippy::disallowed_methods,
    reason = "reads its command line and a file; the scheduler never does"
)]

mod real_run;
mod small;
mod timings;

use std::error::Error;
use std::time::Duration;

use regatta_scheduler::SchedulerConfig;
use regatta_scheduler::simulation::sharding::{Scenario, Split, log_normal};

/// Half of the tests that are made up take less.
const MEDIAN: Duration = Duration::from_millis(200);
/// The standard deviation of the logarithm of their times.
const SIGMA: f64 = 1.0;

/// What the command line asks for.
struct Asked {
    tests: usize,
    slots: u32,
    seeds: u64,
    overhead: Duration,
    /// Tests that were measured, if they are not to be made up.
    timings: Option<Vec<(String, Duration)>>,
}

/// What came of one split in one scenario.
struct Measured {
    scenario: Scenario,
    split: Split,
    mean: f64,
    worst: f64,
    /// The mean.
    batches: f64,
}

fn main() -> Result<(), Box<dyn Error>> {
    if let Some(file) = value_of("--run")? {
        let overhead = Duration::from_millis(number("--overhead-ms", 20)?);
        return real_run::compare(&file, overhead);
    }
    let asked = Asked::of_this_process()?;
    let json = std::env::args().any(|argument| argument == "--json");
    let mut all = Vec::new();
    for scenario in Scenario::ALL {
        for split in Split::ALL {
            all.push(measure(&asked, scenario, split)?);
        }
    }
    if json {
        let objects: Vec<_> = all.iter().map(as_json).collect();
        println!("[{}]", objects.join(",\n "));
    } else {
        print_table(&asked, &all);
    }
    let is_made_up = asked.timings.is_none();
    let missed = all
        .iter()
        .find(|it| is_made_up && it.split == Split::Guided && it.worst > it.scenario.aim());
    match missed {
        Some(missed) => Err(format!(
            "with {}, the scheduler took {:.3} lower bounds, which should be at most {:.2}",
            name_of(missed.scenario),
            missed.worst,
            missed.scenario.aim()
        )
        .into()),
        None if is_made_up && !json => small::print(asked.seeds),
        None => Ok(()),
    }
}

impl Asked {
    fn of_this_process() -> Result<Self, Box<dyn Error>> {
        let file = value_of("--timings")?;
        let timings = file.map(|file| timings::read(&file)).transpose()?;
        Ok(Self {
            tests: number("--tests", 2000)?,
            slots: number("--slots", 16)?,
            seeds: number("--seeds", 20)?,
            overhead: Duration::from_millis(number("--overhead-ms", 20)?),
            timings,
        })
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a measurement is no exact number"
)]
fn measure(asked: &Asked, scenario: Scenario, split: Split) -> Result<Measured, Box<dyn Error>> {
    let (mut sum, mut worst, mut batches) = (0.0, 0.0_f64, 0);
    for seed in 1..=asked.seeds {
        let timings = match &asked.timings {
            Some(timings) => timings.clone(),
            None => log_normal(seed, asked.tests, MEDIAN, SIGMA),
        };
        let race = scenario.race(&timings, asked.slots, asked.overhead, seed);
        let played = race.play(split, SchedulerConfig::default())?;
        let ratio = played.ratio(&race);
        sum += ratio;
        worst = worst.max(ratio);
        batches += played.batches;
    }
    let seeds = asked.seeds.max(1) as f64;
    Ok(Measured {
        scenario,
        split,
        mean: sum / seeds,
        worst,
        batches: batches as f64 / seeds,
    })
}

fn print_table(asked: &Asked, all: &[Measured]) {
    let tests = asked.timings.as_ref().map_or(asked.tests, Vec::len);
    let Asked {
        slots,
        seeds,
        overhead,
        ..
    } = asked;
    println!(
        "{tests} tests, {slots} slots, {} ms for each batch, {seeds} seeds: makespan / lower bound",
        overhead.as_millis()
    );
    println!("                                        mean  worst  batches");
    for it in all {
        let (scenario, split) = (name_of(it.scenario), label_of(it.split));
        println!(
            "{scenario:<24} {split:<13} {:6.3} {:6.3} {:8.0}",
            it.mean, it.worst, it.batches
        );
    }
}

fn as_json(it: &Measured) -> String {
    format!(
        "{{\"scenario\":\"{:?}\",\"split\":\"{:?}\",\"mean\":{:.4},\"worst\":{:.4},\
         \"batches\":{:.0},\"aim\":{}}}",
        it.scenario,
        it.split,
        it.mean,
        it.worst,
        it.batches,
        it.scenario.aim()
    )
}

const fn name_of(scenario: Scenario) -> &'static str {
    match scenario {
        Scenario::ExactHistory => "exact history",
        Scenario::NoisyHistory => "noise, uneven, staggered",
        Scenario::NoHistory => "no history",
        Scenario::Stall => "one machine stops",
    }
}

const fn label_of(split: Split) -> &'static str {
    match split {
        Split::Guided => "regatta",
        Split::LongestFirst => "static LPT",
        Split::RoundRobin => "round-robin",
        Split::Hash => "hash",
    }
}

fn value_of(flag: &str) -> Result<Option<String>, Box<dyn Error>> {
    let mut arguments = std::env::args().skip_while(|argument| argument != flag);
    if arguments.next().is_none() {
        return Ok(None);
    }
    let value = arguments.next();
    value
        .map(Some)
        .ok_or_else(|| format!("{flag} wants a value").into())
}

fn number<Number: std::str::FromStr>(
    flag: &str,
    default: Number,
) -> Result<Number, Box<dyn Error>> {
    match value_of(flag)? {
        Some(text) => text
            .parse()
            .map_err(|_| format!("{flag} takes a number, not `{text}`").into()),
        None => Ok(default),
    }
}
