//! The main job, end to end, on this machine: Regatta's own test suites on a fleet of two agents,
//! cold, warm, and after a change of one leaf.

mod checkout;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::fleet::{EXIT_WITH_STDIN, Fleet};
use crate::report::Report;
use crate::scratch::Scratch;
use crate::{docker, images, interrupt, process, workspace};
use checkout::Checkout;

/// How to run the demo.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Run jobs in Docker containers, or as plain processes of this machine.
    #[arg(long, default_value = "docker", value_parser = ["docker", "process"])]
    runtime: String,
    /// How many agents.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    agents: u16,
    /// How many slots each of them has.
    #[arg(long, default_value_t = 2)]
    slots: usize,
}

/// The crate that the last act changes, and the file of it.
const LEAF: &str = "regatta-agent-core";
const LEAF_FILE: &str = "agent/core/src/lib.rs";

/// Runs the demo.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let image = match arguments.runtime.as_str() {
        "docker" => Some(image()?),
        _ => None,
    };
    let checkout = Checkout::copy(&workspace::target().join("demo/checkout"))?;
    let state = Scratch::new("regatta-demo-")?;
    let program = build(&checkout, state.path())?;
    say("a coordinator and its agents, on free ports of this machine");
    let mut fleet = Fleet::start(&program, state.path(), image.as_deref())?;
    for number in 1..=arguments.agents {
        fleet.add_agent(
            &format!("agent-{number}"),
            arguments.slots,
            &arguments.runtime,
        )?;
    }
    let stage = Stage {
        program,
        checkout,
        fleet: &fleet,
        agents: arguments.agents.into(),
    };
    let outcome = stage.three_acts();
    fleet.stop();
    outcome
}

fn say(line: &str) {
    eprintln!("\n=== {line}");
}

fn image() -> Result<String> {
    if let Some(trouble) = docker::trouble() {
        bail!(
            "{}\nWithout containers: `cargo xtask demo --runtime process` runs the tests as plain \
             processes of this machine.\n({trouble})",
            docker::NO_DAEMON
        );
    }
    say("an image to run tests in");
    let image = images::ensure(&images::Arguments::default())?;
    eprintln!("{image}");
    Ok(image)
}

/// Builds the command from the scratch copy, so that its tests find everything built, and puts it
/// where the last act's change does not reach it.
fn build(checkout: &Checkout, state: &Path) -> Result<PathBuf> {
    say("building regatta");
    let mut build = checkout.command(workspace::cargo());
    // The tests with it, which the first act needs: with the command alone, cargo would choose other features of other
    // people's packages, and build those twice.
    process::run(build.args(["build", "--workspace", "--bins", "--lib", "--tests"]))?;
    let program = state.join("regatta");
    std::fs::copy(checkout.target().join("debug/regatta"), &program).context("copying regatta")?;
    Ok(program)
}

/// What the acts are played with.
struct Stage<'a> {
    program: PathBuf,
    checkout: Checkout,
    fleet: &'a Fleet,
    agents: usize,
}

impl Stage<'_> {
    fn three_acts(&self) -> Result<()> {
        say("act 1: every test of Regatta's own workspace, on the fleet");
        let cold = self.test("cold")?;
        ensure!(
            cold.executed() > 0,
            "nothing ran: is the state directory not new?"
        );
        ensure!(
            cold.agents_used() == self.agents,
            "{} of {} agents ran tests",
            cold.agents_used(),
            self.agents
        );

        say("act 2: the same again");
        let warm = self.test("warm")?;
        ensure!(
            warm.executed() == 0 && warm.leases == 0,
            "{} tests ran again",
            warm.executed()
        );
        ensure!(
            warm.planned() == cold.planned(),
            "{} tests, then {}",
            cold.planned(),
            warm.planned()
        );

        say(&format!(
            "act 3: the same after a change of one leaf, {LEAF}"
        ));
        self.checkout.change(LEAF_FILE)?;
        let affected = self.checkout.dependents(LEAF)?;
        let changed = self.test("changed")?;
        let stray: BTreeSet<_> = changed
            .packages_run()
            .difference(&affected)
            .cloned()
            .collect();
        ensure!(
            stray.is_empty(),
            "ran although nothing of theirs changed: {stray:?}"
        );
        ensure!(
            changed.packages_run().contains(LEAF),
            "{LEAF} changed and did not run"
        );

        say("what happened");
        for (name, report) in [
            ("cold", &cold),
            ("again", &warm),
            ("one leaf changed", &changed),
        ] {
            eprintln!("{name:>18}: {report}");
        }
        eprintln!("{:>18}: {}", "ran in act 3", join(&changed.packages_run()));
        let reports = self.junit("*");
        eprintln!("{:>18}: {}", "JUnit", reports.display());
        Ok(())
    }

    /// Where an act's report stays for whoever wants to read it: beside the scratch copy.
    fn junit(&self, name: &str) -> PathBuf {
        let file = format!("junit-{name}.xml");
        self.checkout.root().with_file_name(file)
    }

    fn test(&self, name: &str) -> Result<Report> {
        let junit = self.junit(name);
        let mut command = self.checkout.command(Command::new(&self.program));
        command
            .args([
                "test",
                "--workspace",
                "--no-fail-fast",
                "--message-format",
                "json",
                "--junit",
            ])
            .arg(&junit);
        command.args(["--coordinator", self.fleet.coordinator(), EXIT_WITH_STDIN]);
        let started = Instant::now();
        let (status, events) = interrupt::capture(command.stdin(Stdio::piped()))?;
        let elapsed = started.elapsed();
        let report = Report::read(&events, elapsed)
            .with_context(|| format!("`{}` ended with {status}", process::show(&command)))?;
        report.agrees_with_junit(&junit)?;
        ensure!(
            status.success() && report.verdict == "RELEASABLE",
            "the verdict is {}, and `regatta test` ended with {status}",
            report.verdict
        );
        Ok(report)
    }
}

fn join(names: &BTreeSet<String>) -> String {
    names
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ")
}

/// Reads a file that must be there.
pub(crate) fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}
