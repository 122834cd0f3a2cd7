//! Machines whose wall clock is set a day ahead, and back, in the middle of a run.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::clock::{Clock, DAY};
use super::fleet::Fleet;
use super::program::{Ended, Running, wait_until, write};
use super::repository::{commit, git};

const TESTS: usize = 40;
const JUNIT: &str = "report.xml";
/// Nothing here takes as long, in seconds.
const LONG: f64 = 300.0;
const JUMP: SignedDuration = SignedDuration::from_secs(DAY);
/// What else a day can be wrong by.
const CLOSE: SignedDuration = SignedDuration::from_secs(300);

/// A suite of a number's own: nothing is known of how long its tests take, so that every slot is given some.
fn pipeline(number: u32) -> String {
    format!(
        r#"
[jobs.many-{number}]
inputs = ["suite.sh", "number"]
[jobs.many-{number}.suite]
adapter = "libtest"
run = ["sh", "suite.sh"]
"#
    )
}

/// Forty tests, each of which waits for somebody.
fn suite(directory: &Path) -> String {
    format!(
        r#"
for last; do :; done
case "$*" in
*--list*--ignored*|*--ignored*--list*) exit ;;
*--list*) seq 1 {TESTS} | sed 's/.*/test-&: test/'; exit ;;
esac
number=$(cat number)
cd {directory}
echo >> waiting-$number
until [ -e go-$number ]; do sleep 0.05; done
echo; echo "running 1 test"; echo
echo "test result: ok. 1 passed; 0 failed; 0 ignored"
"#,
        directory = directory.display()
    )
}

/// A project that has runs of different inputs.
struct Project {
    root: tempfile::TempDir,
}

impl Project {
    fn new() -> Self {
        // Not below /tmp, of which each job has its own.
        let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let suite = suite(root.path());
        write(root.path(), &[("suite.sh", &suite)]);
        Self { root }
    }

    /// The next run is that of a number.
    fn choose(&self, number: u32) {
        let files = [
            ("regatta.toml", pipeline(number)),
            ("number", number.to_string()),
        ];
        let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
        write(self.root.path(), &files);
    }

    fn run(&self, fleet: &Fleet) -> Command {
        let mut run = fleet.command();
        run.args(["--message-format", "json", "run", "--no-duplicates"])
            .args(["--junit", JUNIT])
            .current_dir(self.root.path());
        run
    }

    /// Begins the run of a number, and waits until every slot of the fleet waits in it.
    fn begin(&self, fleet: &Fleet, number: u32) -> Running {
        self.choose(number);
        let running = Running::begin(&mut self.run(fleet));
        let waiting = self.root.path().join(format!("waiting-{number}"));
        wait_until("every slot waits", || {
            let waiting = std::fs::read_to_string(&waiting).unwrap_or_default();
            waiting.lines().count() == 4
        });
        running
    }

    /// Lets the run of a number go on to its end, of which nothing may show that a clock was set.
    #[track_caller]
    fn end(&self, number: u32, running: Running) {
        write(self.root.path(), &[(&format!("go-{number}"), "")]);
        let ended = running.end();
        expect_each_test_once(&ended);
        let report = std::fs::read_to_string(self.root.path().join(JUNIT)).expect("JUnit");
        assert_eq!(report.matches("<testcase ").count(), TESTS, "{report}");
        let times = report.split(" time=\"").skip(1);
        for time in times.map(|rest| rest.split('"').next().unwrap_or_default()) {
            expect_short(&time.parse::<f64>().expect("a number").into());
        }
    }

    /// Runs what was run: everything is known.
    #[track_caller]
    fn expect_cached(&self, fleet: &Fleet, number: u32) {
        self.choose(number);
        let ended = Ended::of(self.run(fleet).args(["--audit-hits", "0"]));
        let finished = ended.expect_code(0).finished();
        assert_eq!(finished["counts"]["cached"], TESTS, "{ended:#?}");
        assert_eq!(finished["leases"], 0, "{ended:#?}");
    }
}

#[track_caller]
fn expect_each_test_once(ended: &Ended) {
    let finished = ended.expect_code(0).finished();
    assert_eq!(finished["verdict"], "RELEASABLE", "{ended:#?}");
    for part in ["planned", "passed"] {
        assert_eq!(finished["counts"][part], TESTS, "{ended:#?}");
    }
    expect_short(&finished["duration"]);
    let tests = ended.lines("test");
    let mut names: Vec<_> = tests.iter().map(|it| it["test"].to_string()).collect();
    assert_eq!(names.len(), TESTS, "{ended:#?}");
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), TESTS, "{ended:#?}");
    for test in tests {
        assert_eq!(test["attempts"], 1, "{test}");
        expect_short(&test["duration"]);
    }
    // No lease has expired, no agent was lost.
    assert_eq!(ended.lines("infrastructure-retry"), [0; 0], "{ended:#?}");
}

#[track_caller]
fn expect_short(seconds: &Value) {
    let seconds = seconds.as_f64().expect("a number");
    assert!((0.0..LONG).contains(&seconds), "{seconds}");
}

/// How long the coordinator's clock says that each run took, the newest first.
fn taken(fleet: &Fleet) -> Vec<SignedDuration> {
    let listed = Ended::of(fleet.command().args(["ps", "--all", "--format", "json"]));
    let time = |run: &Value, name: &str| -> Timestamp {
        let text = run[name].as_str().expect("a time");
        text.parse().expect("a time")
    };
    let runs = listed.expect_code(0).stdout.lines();
    let runs = runs.map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    runs.map(|run| time(&run, "finished_at").duration_since(time(&run, "submitted_at")))
        .collect()
}

/// Nothing that is remembered of runs and tests has the length of a jump.
#[track_caller]
fn expect_sane_history(fleet: &Fleet, suites: usize, runs: usize) {
    let history = Ended::of(fleet.command().args(["history", "--format", "json"]));
    let history: Value = serde_json::from_str(&history.expect_code(0).stdout).expect("JSON");
    assert_eq!(history["runs"]["ended"], runs, "{history}");
    for name in [
        "seconds_p50",
        "seconds_p95",
        "queued_seconds",
        "worked_seconds",
    ] {
        expect_short(&history["runs"][name]);
    }
    let tests = history["tests"].as_array().expect("tests");
    assert_eq!(tests.len(), suites * TESTS, "{history}");
    for test in tests {
        expect_short(&test["expected_seconds"]);
    }
}

/// A fleet in which the coordinator has a clock of its own, and two agents have the machine's.
fn coordinator_with(clock: &Clock, options: &[&str]) -> Fleet {
    let environment = clock.environment();
    let environment = environment
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    let mut fleet = Fleet::told_in(&environment, options);
    fleet.add_agent(&[]);
    fleet
}

/// Waits until a member's log has a line of another day: its clock has jumped for it, too.
fn expect_log_of(fleet: &Fleet, member: &str, ahead: i64) {
    let time = |line: &str| -> Option<Timestamp> {
        let line: Value = serde_json::from_str(line).ok()?;
        line["timestamp"].as_str()?.parse().ok()
    };
    wait_until("its log has a line of another day", || {
        let wanted = Timestamp::now() + Duration::from_secs(ahead.unsigned_abs());
        let log = fleet.log_of(member);
        let mut times = log.lines().filter_map(time);
        times.any(|time| time.duration_since(wanted).abs() < CLOSE)
    });
}

#[test]
fn a_coordinator_whose_clock_jumps_loses_nothing_and_counts_right() {
    let clock = Clock::new();
    // What was used within an hour stays, and an hour is no less of a day that is a jump.
    let limits = ["--cache-size", "1KiB", "--tenant-cache-age", "*=12h"];
    let mut fleet = coordinator_with(&clock, &limits);
    let project = Project::new();
    for (number, ahead) in [(0, DAY), (1, 0), (2, -DAY), (3, 0)] {
        let running = project.begin(&fleet, number);
        clock.set(ahead);
        project.end(number, running);
        for known in 0..=number {
            project.expect_cached(&fleet, known);
        }
    }
    expect_sane_history(&fleet, 4, 4 + 1 + 2 + 3 + 4);
    // It was not told otherwise: the clock that it goes by has jumped, ahead and back, and back and ahead.
    for jump in [JUMP, -JUMP] {
        let is_it = |taken: &&SignedDuration| (**taken - jump).abs() < CLOSE;
        assert_eq!(taken(&fleet).iter().filter(is_it).count(), 2);
    }
    // What is stored with times that have not come yet is no trouble to the next coordinator.
    let address = fleet.url().trim_start_matches("grpc://").to_owned();
    let running = {
        clock.set(DAY);
        project.begin(&fleet, 4)
    };
    clock.set(0);
    fleet.kill_coordinator();
    fleet.start_coordinator(&address);
    project.end(4, running);
    project.expect_cached(&fleet, 0);
    fleet.stop();
}

#[test]
fn an_agent_whose_clock_jumps_keeps_its_leases_and_tells_true_times() {
    let clock = Clock::new();
    let mut fleet = Fleet::coordinator();
    let environment = clock.environment();
    let environment = environment
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    let agent = fleet.add_agent_in(&environment, &[]);
    fleet.add_agent(&[]);
    let project = Project::new();
    for (number, ahead) in [(0, DAY), (1, 0), (2, -DAY), (3, 0)] {
        let running = project.begin(&fleet, number);
        clock.set(ahead);
        project.end(number, running);
        project.expect_cached(&fleet, number);
    }
    expect_sane_history(&fleet, 4, 8);
    clock.set(DAY);
    expect_log_of(&fleet, &agent, DAY);
    fleet.stop();
}

/// A test that somebody can break behind its key's back.
const BREAKABLE: &str = r#"
[jobs.fickle.suite]
adapter = "libtest"
run = ["sh", "suite.sh"]
[jobs.fickle]
inputs = ["suite.sh"]
"#;

fn breakable(broken: &Path) -> String {
    format!(
        r#"
case "$*" in
*--list*--ignored*|*--ignored*--list*) exit ;;
*--list*) echo 'it: test'; exit ;;
esac
if [ -e {} ]; then exit 101; fi
echo; echo "running 1 test"; echo
echo "test result: ok. 1 passed; 0 failed; 0 ignored"
"#,
        broken.display()
    )
}

#[test]
fn a_commit_has_the_verdict_of_its_last_run_whatever_the_clock_said() {
    let clock = Clock::new();
    let fleet = coordinator_with(&clock, &[]);
    // Not below /tmp, of which each job has its own.
    let project = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let shared = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let broken = shared.path().join("broken");
    git(project.path(), &["init", "--quiet"]);
    let files = [
        ("regatta.toml", BREAKABLE),
        ("suite.sh", &breakable(&broken)),
    ];
    write(project.path(), &files);
    commit(project.path());
    let check = |ahead: i64, is_broken: bool| {
        clock.set(ahead);
        match is_broken {
            true => std::fs::write(&broken, "").expect("is written"),
            false => drop(std::fs::remove_file(&broken)),
        }
        let regatta = |arguments: &[&str], code: i32| {
            let mut command = fleet.command();
            Ended::of(command.current_dir(project.path()).args(arguments)).expect_code(code);
        };
        regatta(&["run", "--no-cache"], if is_broken { 100 } else { 0 });
        regatta(&["verdict"], i32::from(is_broken));
    };
    // The later run ends earlier, if one believes the clock.
    check(DAY, false);
    check(0, true);
    check(-DAY, false);
    fleet.stop();
}
