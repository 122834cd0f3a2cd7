//! The README's figures, measured in one run on one machine.

mod bazel;
mod bazel_workspace;
mod processes;
mod soak;
mod table;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::fleet::Fleet;
use crate::scratch::Scratch;
use crate::{images, process, workspace};

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Leave out what needs another project's client: Bazel.
    #[arg(long)]
    without_clients: bool,
    /// Measure this alone, without Docker, and print it as JSON.
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// How long the soak takes; what grows is judged from forty minutes on.
    #[arg(long, value_name = "COUNT", default_value_t = 60)]
    minutes: u64,
}

/// A part that can be measured alone.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Part {
    /// Calls of the storage services.
    Calls,
    /// One large blob, in and out.
    Blobs,
    /// A queue of 50,000 actions, of 500 clients, for 200 agents of one slot each.
    Load,
    /// What a build asks of a bucket.
    Requests,
    /// What grows in an hour of work of all kinds, with as large a fleet; not part of the one run.
    Soak,
}

impl Part {
    /// How many agents it takes.
    const fn agents(self) -> usize {
        match self {
            Self::Calls | Self::Blobs | Self::Requests => 0,
            Self::Load | Self::Soak => 200,
        }
    }

    /// What the example `measure` calls it; `requests` is an example of its own.
    const fn name(self) -> &'static str {
        match self {
            Self::Calls => "calls",
            Self::Blobs => "blobs",
            Self::Load => "load",
            Self::Requests => "requests",
            Self::Soak => "soak",
        }
    }
}

/// How often `docker run` is timed: it is slow, and its 99th percentile wants a hundred.
const DOCKER_RUNS: usize = 100;
/// How long a process idles before its memory is read.
const IDLE: Duration = Duration::from_secs(5);
const COPY_MIB: u64 = 1024;
/// The members of a fleet.
const COORDINATOR: &str = "coordinator";
const AGENT: &str = "agent";
/// What the directories are called that hold the state of what is measured.
const SCRATCH: &str = "regatta-bench-";
/// What the figures must not fall short of: a slot's gain over `docker run` at the median, and the
/// memory of processes at rest.
const LEAST_GAIN: f64 = 20.0;
const MOST_COORDINATOR_MIB: f64 = 50.0;
const MOST_AGENT_MIB: f64 = 40.0;
/// It must take less than this to see that 50,000 files are unchanged.
const UNCHANGED_BELOW_MS: f64 = 1000.0;

/// Measures and prints.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    match arguments.only {
        Some(Part::Requests) => {
            let requests = example("regatta-server", Part::Requests.name())?;
            println!("{requests:#}");
            return Ok(());
        }
        Some(Part::Soak) => return soak::run(Part::Soak, arguments.minutes),
        Some(part) => return measure_only(part),
        None => {}
    }
    let image = images::ensure(&images::Arguments::default())?;
    let program = workspace::release(&["--bins", "--examples"])?;
    let state = Scratch::new(SCRATCH)?;
    let (fleet, memory) = measure_fleet(&program, state.path(), &image)?;
    let docker = docker_run(&image)?;
    let copy = file_copy(state.path())?;
    let mut measured = serde_json::json!({
        "fleet": fleet, "memory": memory, "docker_run": docker, "file_copy": copy,
        "digest_tree": example("regatta", "digest_tree")?,
        "scheduler": example("regatta-scheduler", "bench")?,
    });
    if !arguments.without_clients {
        measured["bazel"] = bazel::measure(&program)?;
    }
    if arguments.json {
        println!("{measured:#}");
    } else {
        table::print(&measured);
    }
    check(&measured)
}

/// Measures a part with a fleet that nobody else uses, and prints that.
fn measure_only(part: Part) -> Result<()> {
    let program = measured_program()?;
    let state = Scratch::new(SCRATCH)?;
    let mut fleet = Fleet::start(&program, state.path(), None)?;
    for number in 0..part.agents() {
        fleet.add_agent(&format!("{AGENT}-{number}"), 1, "process")?;
    }
    let pid = fleet.pid(COORDINATOR);
    let pid = pid.context("the fleet has lost its coordinator")?;
    let mut measure = measuring();
    measure.args(["--only", part.name(), fleet.coordinator()]);
    measure.arg(format!("{COORDINATOR}={pid}"));
    let mut figures: Value = serde_json::from_str(&process::output(&mut measure)?)?;
    figures["coordinator_peak_mib"] = processes::peak_mib(pid)?.into();
    figures["coordinator_rest_mib"] = processes::resident_mib(pid)?.into();
    println!("{figures:#}");
    Ok(())
}

/// The program, with the example that measures a fleet, as their users have them.
fn measured_program() -> Result<PathBuf> {
    workspace::release(&["--bin", "regatta", "--example", "measure"])
}

/// The example that measures a fleet.
fn measuring() -> Command {
    Command::new(workspace::target().join("release/examples/measure"))
}

/// The figures that an example prints.
fn example(package: &str, name: &str) -> Result<Value> {
    let mut example = workspace::cargo();
    example.args([
        "run",
        "--quiet",
        "--release",
        "--package",
        package,
        "--example",
        name,
        "--",
        "--json",
    ]);
    let figures = process::output(&mut example)?;
    serde_json::from_str(&figures).with_context(|| format!("the figures of {package}'s {name}"))
}

fn measure_fleet(program: &Path, state: &Path, image: &str) -> Result<(Value, Value)> {
    let mut fleet = Fleet::start(program, state, Some(image))?;
    fleet.add_agent(AGENT, 2, "docker")?;
    let mut measure = measuring();
    measure.args(["--image", image, fleet.coordinator()]);
    for (name, pid) in members(&fleet)? {
        measure.arg(format!("{name}={pid}"));
    }
    let figures = process::output(&mut measure)?;
    let idle_since = Instant::now();
    while idle_since.elapsed() < IDLE {
        std::thread::park_timeout(IDLE);
    }
    let figures = serde_json::from_str(&figures).context("the fleet's figures")?;
    let mut memory = serde_json::json!({});
    for (name, pid) in members(&fleet)? {
        memory[format!("{name}_mib")] = processes::resident_mib(pid)?.into();
    }
    Ok((figures, memory))
}

/// The process ids of a fleet's coordinator and its only agent.
fn members(fleet: &Fleet) -> Result<[(&'static str, u32); 2]> {
    let pid = |name| fleet.pid(name).context("the fleet has lost a member");
    Ok([(COORDINATOR, pid(COORDINATOR)?), (AGENT, pid(AGENT)?)])
}

fn docker_run(image: &str) -> Result<Value> {
    let mut times = Vec::new();
    for _ in 0..DOCKER_RUNS {
        let mut run = Command::new("docker");
        let started = Instant::now();
        process::output(run.args(["run", "--rm", "--network", "none", image, "/bin/true"]))?;
        times.push(started.elapsed());
    }
    times.sort();
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    Ok(serde_json::json!({
        "count": DOCKER_RUNS,
        "p50_ms": millis(times[DOCKER_RUNS / 2]),
        "p99_ms": millis(times[DOCKER_RUNS * 99 / 100]),
    }))
}

fn file_copy(folder: &Path) -> Result<Value> {
    let (from, to) = (folder.join("from"), folder.join("to"));
    let size = usize::try_from(COPY_MIB << 20)?;
    std::fs::write(&from, vec![7; size])?;
    let started = Instant::now();
    process::output(
        Command::new("cp")
            .arg("--reflink=never")
            .arg(&from)
            .arg(&to),
    )?;
    let rate = COPY_MIB as f64 / started.elapsed().as_secs_f64();
    Ok(serde_json::json!({ "mib": COPY_MIB, "mib_per_s": rate }))
}

/// A figure by its JSON pointer; not a number if it is missing.
fn figure(measured: &Value, pointer: &str) -> f64 {
    let value = measured.pointer(pointer).and_then(Value::as_f64);
    value.unwrap_or(f64::NAN)
}

/// How many times as long `docker run` takes as a command in a warm slot, at the median.
fn gain(measured: &Value) -> f64 {
    figure(measured, "/docker_run/p50_ms") / figure(measured, "/fleet/action/one_by_one/p50_ms")
}

/// Fails if a figure falls short of what is promised; one that is missing does.
fn check(measured: &Value) -> Result<()> {
    let at_most = |pointer: &str, most: f64| {
        let value = figure(measured, pointer);
        ensure!(
            value <= most,
            "{pointer} is {value:.1}, which should be at most {most}"
        );
        Ok(())
    };
    let gain = gain(measured);
    ensure!(
        gain >= LEAST_GAIN,
        "a warm slot is {gain:.0} times as fast as `docker run`, which should be {LEAST_GAIN} at least"
    );
    at_most("/memory/coordinator_mib", MOST_COORDINATOR_MIB)?;
    at_most("/memory/agent_mib", MOST_AGENT_MIB)?;
    let unchanged = figure(measured, "/digest_tree/unchanged/ms");
    ensure!(
        unchanged < UNCHANGED_BELOW_MS,
        "an unchanged project takes {unchanged:.0} ms, which should be less than {UNCHANGED_BELOW_MS}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_with(pointer: &str, value: f64, holds: bool) {
        let mut measured = serde_json::json!({
            "fleet": { "action": { "one_by_one": { "p50_ms": 4.0 } } },
            "docker_run": { "p50_ms": 250.0 },
            "memory": { "coordinator_mib": 40.0, "agent_mib": 20.0 },
            "digest_tree": { "unchanged": { "ms": 500.0 } },
        });
        *measured.pointer_mut(pointer).unwrap() = value.into();
        let checked = check(&measured);
        assert_eq!(checked.is_ok(), holds, "{pointer} {value}: {checked:?}");
    }

    #[test]
    fn what_falls_short_of_a_promise_fails() {
        check_with("/docker_run/p50_ms", 80.0, true);
        check_with("/docker_run/p50_ms", 79.0, false);
        check_with("/memory/coordinator_mib", 51.0, false);
        check_with("/memory/agent_mib", 41.0, false);
        check_with("/digest_tree/unchanged/ms", 999.0, true);
        check_with("/digest_tree/unchanged/ms", 1000.0, false);
        check_with("/digest_tree/unchanged/ms", f64::NAN, false);
    }
}
