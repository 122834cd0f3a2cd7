//! What was measured, as a table for people.

use std::time::Duration;

use super::median;
use super::on_fleet::OnFleet;
use super::own::{Outcome, Project};

/// A fleet is to take at most so many times as long as the own runner, and so long for a thousand known tests.
/// The machine and its load decide too much to fail because of it.
const MOST_OF_OWN: f64 = 1.05;
const MOST_WARM_PER_THOUSAND: Duration = Duration::from_millis(500);

/// A project's figures.
pub(super) struct Row {
    title: String,
    runner: String,
    tests: u64,
    skipped: u64,
    /// Medians.
    own: Duration,
    cold: Duration,
    warm: Duration,
    /// Of the cold run that is the median.
    lower_bound: Duration,
}

impl Row {
    pub(super) fn new(
        project: &dyn Project,
        own: Vec<Outcome>,
        runs: Vec<OnFleet>,
        slots: usize,
    ) -> Option<Self> {
        let (cold, warm): (Vec<_>, Vec<_>) = runs.into_iter().map(|it| (it.cold, it.warm)).unzip();
        let cold = median(cold, |it| it.elapsed())?;
        Some(Self {
            title: project.title(),
            runner: project.runner().to_owned(),
            tests: cold.planned(),
            skipped: cold.skipped(),
            own: median(own, |it| it.elapsed)?.elapsed,
            warm: median(warm, |it| it.elapsed())?.elapsed(),
            lower_bound: cold.lower_bound(slots),
            cold: cold.elapsed(),
        })
    }
}

/// Prints the rows, and what the figures are to be.
pub(super) fn print(rows: &[Row], slots: usize) {
    println!(
        "{:18} {:20} {:>6} {:>7} {:>8} {:>8} {:>7} {:>8} {:>9} {:>8} {:>10}",
        "project",
        "its own runner",
        "tests",
        "skipped",
        "own s",
        "cold s",
        "of own",
        "bound s",
        "of bound",
        "warm s",
        "per 1,000"
    );
    for row in rows {
        let (cold, bound, warm) = (
            row.cold.as_secs_f64(),
            row.lower_bound.as_secs_f64(),
            row.warm.as_secs_f64(),
        );
        let own = row.own.as_secs_f64();
        let of_own = cold / own;
        println!(
            "{:18} {:20} {:6} {:7} {own:8.2} {cold:8.2} {of_own:7.2} {bound:8.2} {:9.2} {warm:8.3} {:10.3}",
            row.title,
            row.runner,
            row.tests,
            row.skipped,
            cold / bound,
            warm * 1e3 / row.tests as f64,
        );
    }
    println!(
        "{:18} {:20} {:6} {:7} {:8} {:8} {MOST_OF_OWN:7.2} {:8} {:9} {:8} {:10.3}",
        "at most",
        "",
        "",
        "",
        "",
        "",
        "",
        "",
        "",
        MOST_WARM_PER_THOUSAND.as_secs_f64()
    );
    println!(
        "medians of {} runs, {slots} slots and {slots} tests at once; bound: the longest test, or all tests' time for \
         each slot, whichever is longer",
        super::REPETITIONS
    );
}
