//! A run that was carried out, beside what other splits would have made of the same tests.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::time::Duration;

use regatta_scheduler::SchedulerConfig;
use regatta_scheduler::simulation::sharding::{Scenario, Split};
use serde_json::Value;

use super::label_of;

/// What a run told of one of its suites.
#[derive(Default)]
struct RealSuite {
    /// Tests that were executed, each with how long it took.
    timings: Vec<(String, Duration)>,
    /// The slots that they ran in, each with its agent.
    slots: BTreeSet<(String, u64)>,
    /// How long the job took, its list of tests included.
    took: Duration,
}

/// Prints, for each suite of a run that executed anything, how long it took in lower bounds, and how long each
/// split takes with the same times, slots and cost of a batch. `file` has the lines that
/// `regatta run --message-format json` printed.
pub(crate) fn compare(file: &str, overhead: Duration) -> Result<(), Box<dyn Error>> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
    let mut suites = suites(&text).map_err(|error| format!("{file} cannot be used: {error}"))?;
    suites.retain(|_, suite| !suite.timings.is_empty());
    if suites.is_empty() {
        return Err(format!("{file} tells of no test that was executed").into());
    }
    for (job, suite) in &suites {
        print_suite(job, suite, overhead)?;
    }
    Ok(())
}

fn suites(text: &str) -> Result<BTreeMap<String, RealSuite>, Box<dyn Error>> {
    let mut suites: BTreeMap<String, RealSuite> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let line: Value = serde_json::from_str(line)?;
        let Some(job) = line["job"].as_str() else {
            continue;
        };
        let seconds = line["duration"].as_f64().unwrap_or(0.0);
        let duration = Duration::try_from_secs_f64(seconds)?;
        match line["type"].as_str() {
            Some("test") => {
                let suite = suites.entry(job.to_owned()).or_default();
                suite.take_test(&line, duration);
            }
            Some("job-finished") => suites.entry(job.to_owned()).or_default().took = duration,
            _ => {}
        }
    }
    Ok(suites)
}

impl RealSuite {
    fn take_test(&mut self, line: &Value, duration: Duration) {
        let (Some(agent), Some(slot)) = (line["agent"].as_str(), line["slot"].as_u64()) else {
            return;
        };
        self.slots.insert((agent.to_owned(), slot));
        let name = line["test"].as_str().unwrap_or_default();
        self.timings.push((name.to_owned(), duration));
    }
}

fn print_suite(job: &str, suite: &RealSuite, overhead: Duration) -> Result<(), Box<dyn Error>> {
    let slots = u32::try_from(suite.slots.len())?;
    let total: Duration = suite.timings.iter().map(|(_, takes)| *takes).sum();
    let longest = suite.timings.iter().map(|(_, takes)| *takes).max();
    let bound = longest.unwrap_or_default().max(total / slots.max(1));
    println!(
        "`{job}`: {} tests executed in {slots} slots; lower bound {:.2} s (the longest test, or all divided \
         by the slots); splits are played with {} ms for each batch",
        suite.timings.len(),
        bound.as_secs_f64(),
        overhead.as_millis(),
    );
    let print = |label: &str, took: Duration| {
        let ratio = took.as_secs_f64() / bound.as_secs_f64().max(f64::MIN_POSITIVE);
        println!("{label:<38} {:8.2} s {ratio:6.3}", took.as_secs_f64());
    };
    print("the run, with listing its tests", suite.took);
    for split in Split::ALL {
        let race = Scenario::ExactHistory.race(&suite.timings, slots, overhead, 1);
        let played = race.play(split, SchedulerConfig::default())?;
        print(&format!("{}, played", label_of(split)), played.makespan);
    }
    Ok(())
}
