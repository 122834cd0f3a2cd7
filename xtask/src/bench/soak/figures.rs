//! What must not grow, and when it has grown.

use std::collections::BTreeMap;

use serde_json::Value;

pub(super) const COORDINATOR_MIB: &str = "coordinator memory, MiB";
pub(super) const AGENT_MIB: &str = "agent memory, MiB";
pub(super) const STORED_MIB: &str = "stored, MiB";
pub(super) const STORED_OBJECTS: &str = "stored objects";
pub(super) const COORDINATOR_FILES: &str = "coordinator open files";
pub(super) const COORDINATOR_THREADS: &str = "coordinator threads";
pub(super) const COORDINATOR_SECONDS: &str = "coordinator processor time, s";
pub(super) const AGENT_FILES: &str = "agent open files";
pub(super) const AGENT_THREADS: &str = "agent threads";
pub(super) const AGENT_STATE_MIB: &str = "agent state, MiB";
pub(super) const LEDGER_MIB: &str = "ledger, MiB";
pub(super) const USE_LOG_MIB: &str = "log of uses, MiB";
pub(super) const UPLOADS: &str = "unfinished uploads";
pub(super) const QUEUED: &str = "queued";
pub(super) const LEASED: &str = "leased";
pub(super) const OPERATIONS: &str = "operations under way";
pub(super) const ENDED_OPERATIONS: &str = "operations ended";
pub(super) const WATCHERS: &str = "watchers";
pub(super) const RUNS: &str = "runs under way";
pub(super) const METRICS: &str = "lines of metrics";

/// Something that is looked at again and again.
pub(super) struct Figure {
    pub(super) name: &'static str,
    /// How much it may grow; `None` for what is meant to.
    allowed: Option<Allowed>,
}

/// How much something may grow from the second quarter to the last: a share of what it was, and so much more.
#[derive(Clone, Copy, Debug)]
struct Allowed {
    percent: f64,
    more: f64,
}

const fn flat(name: &'static str, percent: f64, more: f64) -> Figure {
    let allowed = Some(Allowed { percent, more });
    Figure { name, allowed }
}

const fn growing(name: &'static str) -> Figure {
    Figure {
        name,
        allowed: None,
    }
}

/// Everything that is looked at. The ledger remembers each run, for that is what it is for.
pub(super) const FIGURES: &[Figure] = &[
    flat(COORDINATOR_MIB, 5.0, 1.0),
    flat(COORDINATOR_FILES, 5.0, 10.0),
    flat(COORDINATOR_THREADS, 5.0, 2.0),
    growing(COORDINATOR_SECONDS),
    flat(AGENT_MIB, 5.0, 0.5),
    flat(AGENT_FILES, 5.0, 5.0),
    flat(AGENT_THREADS, 5.0, 2.0),
    flat(AGENT_STATE_MIB, 10.0, 1.0),
    flat(STORED_MIB, 5.0, 1.0),
    flat(STORED_OBJECTS, 5.0, 100.0),
    // It grows until it is written anew, which takes as long as a quarter.
    flat(USE_LOG_MIB, 50.0, 2.0),
    growing(LEDGER_MIB),
    flat(UPLOADS, 10.0, 10.0),
    flat(QUEUED, 10.0, 20.0),
    flat(LEASED, 10.0, 10.0),
    flat(OPERATIONS, 10.0, 10.0),
    flat(ENDED_OPERATIONS, 10.0, 100.0),
    flat(WATCHERS, 10.0, 20.0),
    flat(RUNS, 10.0, 3.0),
    flat(METRICS, 2.0, 2.0),
];

/// Figures by name, as they were at one moment.
pub(super) type Sample = BTreeMap<&'static str, f64>;

/// All samples, evenly spread over the time.
#[derive(Clone, Debug, Default)]
pub(super) struct Records(Vec<Sample>);

impl Records {
    pub(super) fn add(&mut self, sample: Sample) {
        self.0.push(sample);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// One figure over time.
    pub(super) fn values(&self, name: &str) -> Vec<f64> {
        let value = |sample: &Sample| sample.get(name).copied().unwrap_or(f64::NAN);
        self.0.iter().map(value).collect()
    }

    /// The last sample, in a line.
    pub(super) fn last(&self) -> String {
        let sample = self.0.last().into_iter().flatten();
        let shown = sample.map(|(name, value)| format!("{name} {value:.1}"));
        shown.collect::<Vec<_>>().join(" | ")
    }

    /// Each figure's course, in a few numbers.
    pub(super) fn summary(&self) -> Value {
        let row = |figure: &Figure| {
            let values = self.values(figure.name);
            let growth = Growth::of(&values);
            let most = values.iter().copied().reduce(f64::max);
            let value = serde_json::json!({
                "first": values.first(), "most": most, "last": values.last(),
                "second_quarter": growth.map(|it| it.second_quarter),
                "last_quarter": growth.map(|it| it.last_quarter),
            });
            (figure.name.to_owned(), value)
        };
        Value::Object(FIGURES.iter().map(row).collect())
    }

    /// What has grown.
    pub(super) fn complaints(&self) -> Vec<String> {
        let judged = |figure: &Figure| complaint(figure, &self.values(figure.name));
        FIGURES.iter().filter_map(judged).collect()
    }
}

fn complaint(figure: &Figure, values: &[f64]) -> Option<String> {
    let allowed = figure.allowed?;
    match Growth::of(values) {
        None => Some(format!("{}: too few samples", figure.name)),
        Some(growth) if growth.is_within(allowed) => None,
        Some(growth) => Some(format!(
            "{} grew from {:.2} in the second quarter to {:.2} in the last",
            figure.name, growth.second_quarter, growth.last_quarter
        )),
    }
}

/// What a figure was usually: its medians, which no single peak moves. In the first quarter, what is bounded fills.
#[derive(Clone, Copy, Debug)]
struct Growth {
    second_quarter: f64,
    last_quarter: f64,
}

impl Growth {
    /// None of fewer samples than a median makes sense for.
    fn of(values: &[f64]) -> Option<Self> {
        let quarter = values.len() / 4;
        (quarter >= 3).then(|| Self {
            second_quarter: median(&values[quarter..quarter * 2]),
            last_quarter: median(&values[values.len() - quarter..]),
        })
    }

    /// False also for what is not a number.
    fn is_within(self, allowed: Allowed) -> bool {
        self.last_quarter <= self.second_quarter * (1.0 + allowed.percent / 100.0) + allowed.more
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() % 2 {
        0 => f64::midpoint(sorted[middle - 1], sorted[middle]),
        _ => sorted[middle],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMORY: Figure = flat("memory", 5.0, 1.0);

    /// An hour of a figure that fills within ten minutes and then is what `then` says, with noise.
    fn hour(then: impl Fn(f64) -> f64) -> Vec<f64> {
        let value = |sample: u32| {
            let minute = f64::from(sample) / 6.0;
            let noise = f64::from(sample * 7919 % 13) / 13.0 * 4.0 - 2.0;
            then(minute).min(minute * 10.0) + noise
        };
        (0..360).map(value).collect()
    }

    #[track_caller]
    fn check(values: &[f64], holds: bool) {
        let complaint = complaint(&MEMORY, values);
        assert_eq!(complaint.is_none(), holds, "{complaint:?}");
    }

    #[test]
    fn what_stays_as_it_is_holds() {
        check(&hour(|_| 80.0), true);
        // A saw.
        check(&hour(|minute| 80.0 + minute % 8.0 * 3.0), true);
        // It becomes less.
        check(&hour(|minute| 90.0 - minute / 2.0), true);
        // A peak, however high, that passes.
        check(
            &hour(|minute| {
                if (50.0..55.0).contains(&minute) {
                    500.0
                } else {
                    80.0
                }
            }),
            true,
        );
    }

    #[test]
    fn what_grows_does_not() {
        // Between the middles of the two quarters are thirty minutes.
        check(&hour(|minute| 80.0 + minute * 0.25), false);
        check(&hour(|minute| 80.0 + minute), false);
        // A table that doubles once.
        check(
            &hour(|minute| if minute > 43.0 { 95.0 } else { 80.0 }),
            false,
        );
        check(&[80.0; 11], false);
        check(&[f64::NAN; 360], false);
    }

    #[test]
    fn what_is_meant_to_grow_may() {
        let values = hour(|minute| 80.0 + minute);
        assert_eq!(complaint(&growing("ledger"), &values), None);
    }

    #[test]
    fn a_median_is_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]).to_bits(), 2.0_f64.to_bits());
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]).to_bits(), 2.5_f64.to_bits());
    }
}
