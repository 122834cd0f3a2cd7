//! An hour of work of all kinds, in which nothing may grow.
//!
//! The example `measure` is all the clients. Meanwhile agents are killed and come back, and a coordinator with a small
//! cache, whose eviction never rests, is watched together with an agent that lives all along.

mod figures;
mod logs;
mod plot;
mod watch;

use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;

use super::{AGENT, COORDINATOR, Part, SCRATCH, measured_program, measuring, processes};
use crate::fleet::Fleet;
use crate::scratch::Scratch;
use crate::{interrupt, process};
use figures::Records;
use plot::Line;
use watch::Watch;

/// How the coordinator is started: what is stored is at its limit after a few minutes.
const COORDINATOR_OPTIONS: &[&str] = &["--cache-size", "192MiB", "--cache-keep", "1m"];
const AGENT_OPTIONS: &[&str] = &["--cache-quota", "4MiB"];
/// The agent that nobody kills, and what it offers so that some of the work is for it alone.
const WATCHED_AGENT: &str = "agent-0";
const WATCHED_AGENT_OPTIONS: &[&str] = &["--label", "soak=watched"];
/// How often it is looked at everything.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(10);
/// How often an agent is killed, and after how long it comes back: before and after it is taken for lost.
const KILL_INTERVAL: Duration = Duration::from_secs(20);
const AWAY: [Duration; 2] = [Duration::from_secs(4), Duration::from_secs(30)];
/// How often a line is told.
const TOLD_SAMPLES: usize = 6;
/// How long it may take until nothing is under way any more: nobody's work goes on for half a minute.
const SETTLING: Duration = Duration::from_secs(120);
/// How often it is looked whether something is due.
const TICK: Duration = Duration::from_millis(200);
/// From how many minutes on what grows is judged: what is bounded has to be full before the second quarter.
const JUDGED_MINUTES: u64 = 40;
/// What each of the messages in logs may be. Warnings are told, for a killed agent is worth some.
const MOST_ERRORS: u64 = 0;

/// Soaks a fleet, and fails if anything grew, or had no answer, or was left over.
pub(super) fn run(part: Part, minutes: u64) -> Result<()> {
    let program = measured_program()?;
    let state = Scratch::new(SCRATCH)?;
    let mut soak = Soak::start(&program, state.path(), part.agents())?;
    let started = Instant::now();
    let clients = soak.clients(part, minutes)?;
    soak.attend(&clients)?;
    let clients = clients.join();
    let clients = clients.map_err(|_| anyhow!("waiting for the clients panicked"))?;
    let clients: Value = serde_json::from_str(&clients?)?;
    let left = soak.settle();
    let used = soak.used(started.elapsed())?;
    let records = soak.records.clone();
    // What they say as they stop counts, too.
    drop(soak);
    let logs = logs::read(state.path())?;
    let report = serde_json::json!({
        "clients": clients["soak"], "processor": used, "figures": records.summary(), "logs": logs.summary(),
    });
    println!("{report:#}");
    eprintln!("{}", picture(&records, minutes));
    let mut complaints = answers(&clients);
    complaints.extend(left.err().map(|error| format!("{error:#}")));
    if logs.errors() > MOST_ERRORS {
        complaints.push(format!("{} errors in the logs", logs.errors()));
    }
    let is_judged = minutes >= JUDGED_MINUTES;
    if is_judged {
        complaints.extend(records.complaints());
    } else {
        eprintln!("NOT JUDGED: what grows, for that takes {JUDGED_MINUTES} minutes");
    }
    ensure!(complaints.is_empty(), "{}", complaints.join("; "));
    let grew = if is_judged { ", nothing grew" } else { "" };
    eprintln!("everything was answered, nothing was left{grew}");
    Ok(())
}

struct Soak {
    fleet: Fleet,
    agents: usize,
    watch: Watch,
    records: Records,
    /// Agents that are to come back, and when.
    away: Vec<(Instant, String)>,
    kills: usize,
}

impl Soak {
    fn start(program: &Path, state: &Path, agents: usize) -> Result<Self> {
        let mut fleet = Fleet::start_with(program, state, COORDINATOR_OPTIONS)?;
        for number in 0..agents {
            add_agent(&mut fleet, &format!("{AGENT}-{number}"))?;
        }
        let pid = |name: &str| fleet.pid(name).with_context(|| format!("no {name}"));
        let watch = Watch {
            coordinator: pid(COORDINATOR)?,
            agent: pid(WATCHED_AGENT)?,
            state: state.join(COORDINATOR),
            agent_state: state.join(WATCHED_AGENT),
            agents: (0..agents)
                .map(|number| state.join(format!("{AGENT}-{number}")))
                .collect(),
            pages: fleet.pages().to_owned(),
        };
        Ok(Self {
            fleet,
            agents,
            watch,
            records: Records::default(),
            away: Vec::new(),
            kills: 0,
        })
    }

    /// Starts the clients, who say in the end what they did.
    fn clients(&self, part: Part, minutes: u64) -> Result<JoinHandle<Result<String>>> {
        let mut measure = measuring();
        measure.args(["--only", part.name(), "--minutes", &minutes.to_string()]);
        measure.arg(self.fleet.coordinator());
        let waiting = std::thread::Builder::new().name("clients".to_owned());
        Ok(waiting.spawn(move || process::output(&mut measure))?)
    }

    /// Looks at everything, kills agents and starts them again until the clients have ended.
    fn attend(&mut self, clients: &JoinHandle<Result<String>>) -> Result<()> {
        let started = Instant::now();
        let (mut samples, mut kills) = (1, 1);
        while !clients.is_finished() {
            let now = started.elapsed();
            if now >= SAMPLE_INTERVAL * samples {
                samples += 1;
                self.records.add(self.watch.look()?);
                if self.records.len().is_multiple_of(TOLD_SAMPLES) {
                    eprintln!("{:>4} s: {}", now.as_secs(), self.records.last());
                }
            }
            if now >= KILL_INTERVAL * kills {
                kills += 1;
                self.kill_one();
            }
            self.bring_back(|due| due <= Instant::now())?;
            std::thread::park_timeout(TICK);
        }
        self.bring_back(|_| true)
    }

    fn kill_one(&mut self) {
        // One after the other in an order without a pattern; the first is watched.
        let number = 1 + self.kills * 37 % (self.agents - 1);
        let name = format!("{AGENT}-{number}");
        let away = AWAY[self.kills % AWAY.len()];
        self.kills += 1;
        self.fleet.kill(&name);
        self.away.push((Instant::now() + away, name));
    }

    fn bring_back(&mut self, is_due: impl Fn(Instant) -> bool) -> Result<()> {
        let (due, away) = self.away.drain(..).partition(|(due, _)| is_due(*due));
        self.away = away;
        let due: Vec<(Instant, String)> = due;
        for (_, name) in due {
            add_agent(&mut self.fleet, &name)?;
        }
        Ok(())
    }

    /// Waits until nothing is under way and every slot is free.
    fn settle(&self) -> Result<()> {
        let deadline = Instant::now() + SETTLING;
        loop {
            interrupt::check()?;
            let left = self.watch.left(self.agents)?;
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!("left after {SETTLING:?}: {}", left.join(", "));
            }
            std::thread::park_timeout(TICK);
        }
    }

    /// What share of this machine the fleet took, its jobs included, but not the agents that were killed.
    fn used(&self, elapsed: Duration) -> Result<Value> {
        let coordinator = processes::processor_seconds(self.watch.coordinator)?;
        let mut agents = 0.0;
        for number in 0..self.agents {
            if let Some(pid) = self.fleet.pid(&format!("{AGENT}-{number}")) {
                agents += processes::processor_seconds_with_children(pid)?;
            }
        }
        let cores = std::thread::available_parallelism()?.get() as f64;
        let all = elapsed.as_secs_f64() * cores;
        Ok(serde_json::json!({
            "seconds": elapsed.as_secs_f64(), "cores": cores, "agents_killed": self.kills,
            "coordinator_seconds": coordinator, "agents_and_jobs_seconds": agents,
            "coordinator_percent": coordinator / all * 100.0,
            "agents_and_jobs_percent": agents / all * 100.0,
        }))
    }
}

fn add_agent(fleet: &mut Fleet, name: &str) -> Result<()> {
    let more = if name == WATCHED_AGENT {
        WATCHED_AGENT_OPTIONS
    } else {
        &[]
    };
    fleet.add_agent_with(name, 1, "process", &[AGENT_OPTIONS, more].concat())
}

/// What was asked for and had no answer.
fn answers(clients: &Value) -> Vec<String> {
    let Some(kinds) = clients["soak"]["kinds"].as_object() else {
        return vec!["the clients say nothing".to_owned()];
    };
    let unanswered = kinds.iter().filter(|(_, it)| it["asked"] != it["answered"]);
    let unanswered = unanswered
        .map(|(kind, it)| format!("{kind}: {} of {} answered", it["answered"], it["asked"]));
    let mut complaints: Vec<String> = unanswered.collect();
    let failures = &clients["soak"]["failures"];
    if failures != 0 {
        complaints.push(format!("{failures} failures"));
    }
    complaints
}

/// Memory over time, beside what is stored.
fn picture(records: &Records, minutes: u64) -> String {
    let line = |mark, what, name| Line {
        mark,
        what,
        values: records.values(name),
    };
    let lines = [
        line('s', "stored", figures::STORED_MIB),
        line('c', "coordinator's memory", figures::COORDINATOR_MIB),
        line('a', "an agent's memory", figures::AGENT_MIB),
    ];
    plot::draw("MiB", &lines, &format!("{minutes} min"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_had_no_answer_is_told() {
        let clients = |answered: u64, failures: u64| {
            serde_json::json!({ "soak": {
                "failures": failures, "kinds": { "run": { "asked": 3, "answered": answered } },
            } })
        };
        assert_eq!(answers(&clients(3, 0)), [""; 0]);
        assert_eq!(answers(&clients(2, 0)), ["run: 2 of 3 answered"]);
        assert_eq!(answers(&clients(3, 1)), ["1 failures"]);
        assert_eq!(answers(&Value::Null).len(), 1);
    }

    #[test]
    fn every_figure_is_looked_at_once() {
        let figures = figures::FIGURES;
        let names: std::collections::BTreeSet<_> = figures.iter().map(|it| it.name).collect();
        assert_eq!(names.len(), figures.len());
    }
}
