//! Open-source projects that nobody here wrote: their tests on a fleet, and by their own runner on the same
//! cores, in turn.
//!
//! Both sides find everything built, so that both times are of tests alone. The fleet is new each time, with
//! as many slots as there are cores; its time is that of the command that a user types.

mod googletest;
mod image;
mod nextest;
mod on_fleet;
mod own;
mod pytest;
mod table;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::scratch::Scratch;
use crate::{images, interrupt, workspace};
use on_fleet::OnFleet;
use own::{Counts, Project};
use table::Row;

/// Which projects to run.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Their names; all of them if none is given
    #[arg(value_name = "NAME", value_parser = NAMES)]
    names: Vec<String>,
}

const NAMES: [&str; 3] = [nextest::NAME, pytest::NAME, googletest::NAME];
/// How often everything is timed; the median counts.
const REPETITIONS: usize = 3;
/// What the directories are called that hold the projects, and the fleets' state.
const SCRATCH: &str = "regatta-projects-";

/// Runs them, prints a table, and fails if a test failed or was not counted as its own runner counts.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let program = workspace::release(&["--bins"])?;
    let slots = std::thread::available_parallelism()?.get();
    let chosen =
        |name: &&str| arguments.names.is_empty() || arguments.names.iter().any(|it| it == name);
    let (mut rows, mut failed) = (Vec::new(), Vec::new());
    for name in NAMES.into_iter().filter(chosen) {
        match measure(name, &program, slots) {
            Ok(row) => rows.push(row),
            Err(error) => {
                interrupt::check()?;
                eprintln!("{name}: {error:#}");
                failed.push(name);
            }
        }
    }
    table::print(&rows, slots);
    if !failed.is_empty() {
        bail!("not measured, for the reasons above: {}", failed.join(", "));
    }
    Ok(())
}

/// Makes a project ready below a folder, for so many tests at once.
fn prepare(name: &str, folder: &Path, slots: usize) -> Result<Box<dyn Project>> {
    Ok(match name {
        nextest::NAME => Box::new(nextest::prepare(folder, slots)?),
        pytest::NAME => Box::new(pytest::prepare(folder, slots)?),
        googletest::NAME => Box::new(googletest::prepare(folder, slots)?),
        _ => bail!(
            "no project is called {name}; there are {}",
            NAMES.join(", ")
        ),
    })
}

fn measure(name: &str, program: &Path, slots: usize) -> Result<Row> {
    let folder = Scratch::new(SCRATCH)?;
    eprintln!("\n=== {name}: fetching and building");
    let project = prepare(name, folder.path(), slots)?;
    let (mut own, mut on_fleet) = (Vec::new(), Vec::new());
    for repetition in 1..=REPETITIONS {
        eprintln!(
            "=== {name}: {repetition} of {REPETITIONS}, with {}",
            project.runner()
        );
        own.push(project.own()?);
        eprintln!("=== {name}: {repetition} of {REPETITIONS}, on a new fleet");
        let runs = on_fleet::run(program, project.as_ref(), slots)?;
        agree(&own[repetition - 1].counts, &runs)?;
        eprintln!(
            "{:.2?} and {:.2?}, again {:.3?}",
            own[repetition - 1].elapsed,
            runs.cold.elapsed(),
            runs.warm.elapsed()
        );
        on_fleet.push(runs);
    }
    Row::new(project.as_ref(), own, on_fleet, slots).context("nothing was measured")
}

/// Everything passed or was skipped, and as many of each as the own runner says.
fn agree(own: &Counts, runs: &OnFleet) -> Result<()> {
    let cold = Counts {
        passed: runs.cold.passed(),
        skipped: runs.cold.skipped(),
    };
    ensure!(
        cold == *own && cold.passed + cold.skipped == runs.cold.planned(),
        "the own runner has {own}, the fleet {cold} of {}",
        runs.cold.planned()
    );
    ensure!(
        runs.warm.executed() == 0 && runs.warm.planned() == runs.cold.planned(),
        "{} of {} tests ran again although nothing had changed",
        runs.warm.executed(),
        runs.warm.planned()
    );
    Ok(())
}

/// That a source is the one that was chosen.
fn expect_digest(file: &Path, digest: &str) -> Result<()> {
    let found = images::digest_of(file)?;
    ensure!(
        found == digest,
        "{} has the SHA-256 {found}, not {digest}: it is not the source that was chosen",
        file.display()
    );
    Ok(())
}

/// The middle one of an odd number of things, by how long they took.
fn median<T>(mut things: Vec<T>, elapsed: impl Fn(&T) -> Duration) -> Option<T> {
    things.sort_by_key(elapsed);
    let middle = things.len() / 2;
    things.into_iter().nth(middle)
}
