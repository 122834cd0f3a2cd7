//! Bazel 4 and Bazel 7 in one workspace, offline.

mod building;
mod failing;
mod interrupted;
mod properties;

use std::process::Command;

use super::counters::Counters;
use super::fleet::Fleet;
use super::program::{Ended, Running};
use super::workstation::{Workstation, bookworm, unstable};

/// A Bazel that is tested.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Release {
    /// 4.2, of Debian's stable releases: Remote Execution API 2.0, legacy output fields.
    Four,
    /// 7.7, of Debian unstable.
    Seven,
}

impl Release {
    fn image(self) -> String {
        match self {
            Self::Four => bookworm(),
            Self::Seven => unstable(),
        }
    }

    fn settings(self) -> &'static str {
        match self {
            Self::Four => "--bazelrc=bazel4.rc",
            Self::Seven => "--bazelrc=bazel7.rc",
        }
    }

    /// The name of its log of calls.
    fn name(self) -> &'static str {
        match self {
            Self::Four => "bazel4",
            Self::Seven => "bazel7",
        }
    }
}

/// Remote execution and nothing else: what cannot run remotely is an error.
const REMOTE_ONLY: &[&str] = &[
    "--spawn_strategy=remote",
    "--genrule_strategy=remote",
    "--remote_local_fallback=false",
    "--jobs=8",
    "--color=no",
    "--curses=no",
    "--verbose_failures",
];

/// A Bazel with a workspace of its own, and what it builds with.
struct Bazel {
    release: Release,
    station: Workstation,
    remote: Vec<String>,
}

impl Bazel {
    /// A Bazel that executes at a `HOST:PORT`.
    fn executing_at(release: Release, address: &str) -> Self {
        Self::new(release, vec![format!("--remote_executor=grpc://{address}")])
    }

    fn new(release: Release, remote: Vec<String>) -> Self {
        let station = Workstation::new(&release.image(), "bazel");
        Self {
            release,
            station,
            remote,
        }
    }

    /// A command line of this Bazel without any option.
    fn command(&self, verb: &str) -> Command {
        let mut command = self.station.command(&[]);
        command.args(["bazel", "--nohome_rc"]);
        command.args([self.release.settings(), verb]);
        command
    }

    /// `bazel build` or `bazel test`, of which every action runs remotely.
    fn remotely(&self, verb: &str, arguments: &[&str]) -> Command {
        let mut command = self.command(verb);
        command.args(REMOTE_ONLY).args(&self.remote).args(arguments);
        command
    }

    fn build(&self, arguments: &[&str]) -> Ended {
        Ended::of(&mut self.remotely("build", arguments))
    }

    fn test(&self, arguments: &[&str]) -> Ended {
        Ended::of(self.remotely("test", arguments).arg("--test_output=errors"))
    }

    /// Forgets everything that was built, but not what the coordinator has of it.
    fn clean(&self) {
        Ended::of(&mut self.command("clean")).expect_code(0);
    }

    /// Begins a build in the background.
    fn begin(&self, arguments: &[&str]) -> Running {
        Running::begin(&mut self.remotely("build", arguments))
    }

    /// Ctrl-C for the build that began last.
    fn interrupt(&self) {
        let signal = self.station.shell("kill -INT $(cat /w/client.pid)");
        signal.expect_code(0);
    }
}

/// How many actions Bazel says that it did in some way: `remote`, `remote cache hit`, `internal`.
#[track_caller]
fn processes(ended: &Ended, way: &str) -> u64 {
    let mut said = ended
        .stderr
        .lines()
        .filter(|line| line.contains(" process"));
    let line = said.next_back().unwrap_or_else(|| panic!("{ended:#?}"));
    let parts = line.split([':', ',', '.']).map(str::trim);
    let counts = parts.filter_map(|part| part.strip_suffix(way)?.trim().parse::<u64>().ok());
    counts.sum()
}

/// Builds all over again after a clean, and checks that nothing had to run.
#[track_caller]
fn expect_all_hits(fleet: &Fleet, bazel: &Bazel, rebuild: impl Fn() -> Ended) -> Ended {
    bazel.clean();
    let before = Counters::of(fleet);
    let ended = rebuild();
    ended.expect_code(0);
    assert_eq!(Counters::of(fleet).since(before).leases, 0, "{ended:#?}");
    assert_eq!(processes(&ended, "remote"), 0, "{ended:#?}");
    assert!(processes(&ended, "remote cache hit") > 0, "{ended:#?}");
    ended
}
