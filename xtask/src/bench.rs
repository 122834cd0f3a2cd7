//! The README's figures, measured in one run on one machine.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::fleet::Fleet;
use crate::{images, process, workspace};

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

/// How often `docker run` is timed: it is slow.
const DOCKER_RUNS: usize = 21;
/// How long a process idles before its memory is read.
const IDLE: Duration = Duration::from_secs(5);
const COPY_MIB: u64 = 1024;

/// Measures and prints.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let image = images::ensure(&images::Arguments::default())?;
    let program = build()?;
    let state = tempfile::Builder::new()
        .prefix("regatta-bench-")
        .tempdir()?;
    let (fleet, memory) = measure_fleet(&program, state.path(), &image)?;
    let docker = docker_run(&image)?;
    let copy = file_copy(state.path())?;
    let scheduler = example("regatta-scheduler", "bench", &["--json"])?;
    let measured = serde_json::json!({
        "fleet": fleet, "memory": memory, "docker_run": docker, "file_copy": copy,
        "scheduler": serde_json::from_str::<Value>(&scheduler).context("the scheduler's figures")?,
    });
    if arguments.json {
        println!("{measured:#}");
    } else {
        print_table(&measured);
    }
    Ok(())
}

fn build() -> Result<PathBuf> {
    let mut build = workspace::cargo();
    process::run(build.args([
        "build",
        "--release",
        "--package",
        "regatta",
        "--bins",
        "--examples",
    ]))?;
    Ok(workspace::target().join("release/regatta"))
}

fn example(package: &str, name: &str, arguments: &[&str]) -> Result<String> {
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
    ]);
    process::output(example.args(arguments))
}

fn measure_fleet(program: &Path, state: &Path, image: &str) -> Result<(Value, Value)> {
    let mut fleet = Fleet::start(program, state, Some(image))?;
    fleet.add_agent("agent", 2, "docker")?;
    let mut measure = Command::new(workspace::target().join("release/examples/measure"));
    let figures = process::output(measure.args([fleet.coordinator(), image]))?;
    let idle_since = Instant::now();
    while idle_since.elapsed() < IDLE {
        std::thread::park_timeout(IDLE);
    }
    let memory = serde_json::json!({
        "coordinator_mib": resident_mib(fleet.pid("coordinator"))?,
        "agent_mib": resident_mib(fleet.pid("agent"))?,
    });
    Ok((
        serde_json::from_str(&figures).context("the fleet's figures")?,
        memory,
    ))
}

/// Resident memory of a process, from `/proc`.
fn resident_mib(pid: Option<u32>) -> Result<f64> {
    let pid = pid.context("no such process in the fleet")?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line
        .and_then(|line| line.split_whitespace().next())
        .context("no VmRSS")?;
    Ok(kib.parse::<f64>()? / 1024.0)
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
    let slowest = times.last().copied().unwrap_or_default();
    Ok(serde_json::json!({
        "count": DOCKER_RUNS, "p50_ms": millis(times[DOCKER_RUNS / 2]), "max_ms": millis(slowest),
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

fn print_table(measured: &Value) {
    let number = |pointer: &str| {
        measured
            .pointer(pointer)
            .and_then(Value::as_f64)
            .unwrap_or(f64::NAN)
    };
    let (action, run) = (number("/fleet/action/p50_ms"), number("/docker_run/p50_ms"));
    println!(
        "action in a warm slot     p50 {action:.1} ms, p99 {:.1} ms",
        number("/fleet/action/p99_ms")
    );
    println!(
        "docker run --rm           p50 {run:.0} ms, max {:.0} ms",
        number("/docker_run/max_ms")
    );
    println!(
        "                          {:.0} times as long",
        run / action
    );
    println!(
        "blob in, over gRPC        {:.0} MiB/s",
        number("/fleet/blob/write_mib_per_s")
    );
    println!(
        "blob out, over gRPC       {:.0} MiB/s",
        number("/fleet/blob/read_mib_per_s")
    );
    println!(
        "cp of a file              {:.0} MiB/s",
        number("/file_copy/mib_per_s")
    );
    println!(
        "idle coordinator          {:.0} MiB resident",
        number("/memory/coordinator_mib")
    );
    println!(
        "idle agent                {:.0} MiB resident",
        number("/memory/agent_mib")
    );
    println!("scheduler                 {:#}", measured["scheduler"]);
}
