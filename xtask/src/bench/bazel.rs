//! Bazel 4 with a workspace of many small actions: in its own sandbox, on a fleet, and with every result
//! cached. Only actions count: each time, Bazel has started and has loaded and analysed all beforehand.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::bazel_workspace::{SETTINGS, generate};
use super::processes::Meter;
use super::{AGENT, COORDINATOR, SCRATCH, members};
use crate::fleet::Fleet;
use crate::scratch::Scratch;
use crate::workstation::Workstation;
use crate::{clients, interrupt, process};

/// How many actions Bazel has under way at once, in turn.
const JOBS: [usize; 2] = [50, 200];

/// What Bazel calls an action of its own, which needs no process: the making of links, say.
pub(super) const INTERNAL: &str = "internal";
const REMOTE: &str = "remote";
const HIT: &str = "remote cache hit";

/// What a Bazel with a fleet is told besides where that is: to do nothing here, and to try nothing again,
/// so that no call may fail or take too long.
const REMOTE_ONLY: &[&str] = &[
    "--spawn_strategy=remote",
    "--genrule_strategy=remote",
    "--remote_local_fallback=false",
    "--remote_retries=0",
];
/// What every Bazel is told. Debian's settings make the sandbox describe each of its mounts.
const PLAIN: &[&str] = &[
    "--color=no",
    "--curses=no",
    "--noshow_progress",
    "--nosandbox_debug",
];
/// What lets Bazel's sandbox make its namespaces and mount its own `/proc`: Docker's profiles forbid both.
/// On the host's network, the coordinator's loopback address is the container's own as well.
const SANDBOX_OPTIONS: &[&str] = &[
    "--security-opt=seccomp=unconfined",
    "--security-opt=systempaths=unconfined",
    "--network=host",
];
/// What Bazel says if all was loaded and analysed before.
const PREPARED: &str = "(0 packages loaded, 0 targets configured)";

/// Measures everything, one after the other.
pub(super) fn measure(program: &Path) -> Result<Value> {
    let image = clients::bookworm()?;
    let folder = Scratch::new(SCRATCH)?;
    generate(&folder.path().join("ws"))?;
    let bazel = Bazel {
        station: Workstation::start(&image, folder.path(), SANDBOX_OPTIONS)?,
    };
    let slots = std::thread::available_parallelism()?.get();
    let local = bazel.locally()?;
    let mut fleets = Vec::new();
    for jobs in JOBS {
        let [cold, warm] = bazel.remotely(program, &image, jobs, slots)?;
        let actions = local.spawned();
        cold.expect_all(actions, REMOTE)?;
        warm.expect_all(actions, HIT)?;
        let (cold, warm) = (cold.figures(&local), warm.figures(&local));
        fleets.push(serde_json::json!({ "jobs": jobs, "cold": cold, "warm": warm }));
    }
    Ok(serde_json::json!({
        "actions": local.spawned(), "slots": slots,
        "local": local.figures(&local), "fleets": fleets,
    }))
}

struct Bazel {
    station: Workstation,
}

impl Bazel {
    /// Everything in the sandbox that Bazel chooses.
    fn locally(&self) -> Result<Build> {
        eprintln!("bazel: everything in its own sandbox");
        self.run(&["clean", "--expunge"])?;
        self.build(&[], &[])
    }

    /// Everything on a new fleet, and once more after a clean.
    fn remotely(
        &self,
        program: &Path,
        image: &str,
        jobs: usize,
        slots: usize,
    ) -> Result<[Build; 2]> {
        eprintln!("bazel: everything on a new fleet, --jobs {jobs}");
        let state = Scratch::new(SCRATCH)?;
        let mut fleet = Fleet::start(program, state.path(), Some(image))?;
        fleet.add_agent(AGENT, slots, "docker")?;
        let members = members(&fleet)?;
        let executor = format!("--remote_executor={}", fleet.coordinator());
        let jobs = format!("--jobs={jobs}");
        let options = [&[executor.as_str(), &jobs], REMOTE_ONLY].concat();
        self.run(&["clean", "--expunge"])?;
        let cold = self.build(&options, &members)?;
        self.run(&["clean"])?;
        let warm = self.build(&options, &members)?;
        Ok([cold, warm])
    }

    /// Builds and tests everything, after it has been loaded and analysed.
    fn build(&self, options: &[&str], members: &[(&'static str, u32)]) -> Result<Build> {
        let all = [PLAIN, options, &["//..."]].concat();
        self.run(&[&["build", "--nobuild"], &all[..]].concat())?;
        let meter = Meter::start(members)?;
        let said = self.run(&[&["test"], &all[..]].concat())?;
        let used = meter.stop()?;
        ensure!(said.contains(PREPARED), "not prepared: {said}");
        Build::new(&said, used)
    }

    /// Runs Bazel and returns what it said, which it says on standard error.
    fn run(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.station.command("ws");
        command.args(["bazel", "--nohome_rc", &format!("--bazelrc={SETTINGS}")]);
        ended(command.args(arguments))
    }
}

fn ended(command: &mut Command) -> Result<String> {
    let (status, text, said) = interrupt::capture_both(command.stdin(Stdio::null()))?;
    if !status.success() {
        bail!("`{}`: {status}\n{text}{said}", process::show(command));
    }
    Ok(said)
}

/// What a build came to.
#[derive(Debug, PartialEq)]
struct Build {
    seconds: f64,
    /// How many actions were done in each way.
    ways: BTreeMap<String, u64>,
    /// Seconds of processor time of those who had a part in it.
    used: BTreeMap<&'static str, f64>,
}

impl Build {
    /// Understands Bazel's last lines.
    fn new(said: &str, used: BTreeMap<&'static str, f64>) -> Result<Self> {
        let after = |mark: &str| {
            let found = said.lines().rev().find_map(|line| line.split_once(mark));
            found.with_context(|| format!("Bazel did not say {mark:?}:\n{said}"))
        };
        let (_, elapsed) = after("Elapsed time: ")?;
        let (seconds, _) = elapsed.split_once('s').context("no seconds")?;
        let (_, listed) = after(" processes: ")?;
        let way = |part: &str| {
            let (count, way) = part.split_once(' ').context("no count")?;
            Ok((way.to_owned(), count.parse()?))
        };
        let ways = listed.trim_end_matches('.').split(", ").map(way);
        Ok(Self {
            seconds: seconds.parse()?,
            ways: ways.collect::<Result<_>>()?,
            used,
        })
    }

    /// How many actions needed a process.
    fn spawned(&self) -> u64 {
        self.ways().map(|(_, count)| count).sum()
    }

    /// The ways in which these were done.
    fn ways(&self) -> impl Iterator<Item = (&str, u64)> {
        let ways = self.ways.iter().map(|(way, count)| (way.as_str(), *count));
        ways.filter(|(way, _)| *way != INTERNAL)
    }

    fn expect_all(&self, actions: u64, way: &str) -> Result<()> {
        ensure!(
            self.ways().eq([(way, actions)]),
            "{actions} should have been {way}: {:?}",
            self.ways
        );
        Ok(())
    }

    fn figures(&self, local: &Self) -> Value {
        let each = |seconds: &f64| seconds * 1e3 / self.spawned() as f64;
        let each: BTreeMap<_, _> = self.used.iter().map(|(it, all)| (*it, each(all))).collect();
        let regatta = each.get(COORDINATOR).zip(each.get(AGENT));
        serde_json::json!({
            "seconds": self.seconds,
            "of_local": self.seconds / local.seconds,
            "ways": self.ways,
            "processor_ms": each,
            "regatta_ms": regatta.map(|(coordinator, agent)| coordinator + agent),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bazels_last_lines_are_understood() {
        let said = "INFO: Elapsed time: 7.310s, Critical Path: 0.16s\n\
                    INFO: 12 processes: 1 disk cache hit, 4 internal, 7 remote cache hit.\n\
                    INFO: Build completed successfully, 2 total actions\n";
        let build = Build::new(said, BTreeMap::new()).unwrap();
        assert!((build.seconds - 7.31).abs() < 1e-9, "{build:?}");
        assert_eq!(build.spawned(), 8);
        assert!(build.expect_all(8, HIT).is_err());
        assert!(Build::new("INFO: Elapsed time: 7.310s\n", BTreeMap::new()).is_err());
        assert!(Build::new("INFO: 1 processes: 1 internal.\n", BTreeMap::new()).is_err());
    }

    #[test]
    fn all_must_be_done_in_one_way() {
        let said = "INFO: Elapsed time: 1.0s, Critical Path: 0.16s\n\
                    INFO: 11 processes: 4 internal, 7 remote.\n";
        let build = Build::new(said, BTreeMap::new()).unwrap();
        assert!(build.expect_all(7, REMOTE).is_ok());
        assert!(build.expect_all(8, REMOTE).is_err());
        assert!(build.expect_all(7, HIT).is_err());
    }
}
