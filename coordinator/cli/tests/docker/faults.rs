//! What fails in the middle of a run, and what then still holds.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Stdio};

use rustix::process::Signal;

use super::fleet::{Fleet, send};
use super::program::{Ended, wait_until, write};

const TESTS: usize = 60;

const PIPELINE: &str = r#"
[jobs.slow]
inputs = ["suite.sh"]
[jobs.slow.suite]
discover = ["sh", "suite.sh", "list"]
run = ["sh", "suite.sh", "run"]
junit = "junit.xml"
"#;

/// Sixty tests of a fifth of a second each.
const SUITE: &str = r#"
if [ "$1" = list ]; then seq 1 60 | sed 's/^/test-/'; exit; fi
{
  echo '<testsuites><testsuite name="slow" tests="1">'
  while read -r id; do sleep 0.2; echo "<testcase name=\"$id\" classname=\"\" time=\"0.2\"/>"; done < "${2#@}"
  echo '</testsuite></testsuites>'
} > junit.xml
"#;

fn project() -> tempfile::TempDir {
    let project = tempfile::tempdir().expect("a directory");
    write(
        project.path(),
        &[("regatta.toml", PIPELINE), ("suite.sh", SUITE)],
    );
    project
}

/// A run in the background, and what it has said so far.
struct Begun {
    child: Child,
    stdout: BufReader<ChildStdout>,
    lines: Vec<String>,
}

/// A run that has begun to report tests.
fn begun(fleet: &Fleet, project: &tempfile::TempDir) -> Begun {
    let mut run = fleet.command();
    run.args(["--message-format", "json", "run"])
        .current_dir(project.path());
    let mut child = run
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("regatta starts");
    let mut lines = Vec::new();
    let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    while !lines
        .iter()
        .any(|line: &String| line.contains(r#""type":"test""#))
    {
        let mut line = String::new();
        assert_ne!(
            stdout.read_line(&mut line).expect("a line"),
            0,
            "it ended early: {lines:#?}"
        );
        lines.push(line.trim_end().to_owned());
    }
    Begun {
        child,
        stdout,
        lines,
    }
}

fn end(begun: Begun) -> Ended {
    let Begun {
        mut child,
        mut stdout,
        mut lines,
    } = begun;
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).expect("output");
    lines.extend(rest.lines().map(str::to_owned));
    let mut stderr = String::new();
    child
        .stderr
        .take()
        .expect("a pipe")
        .read_to_string(&mut stderr)
        .expect("output");
    let code = child.wait().expect("it ends").code();
    Ended {
        code,
        stdout: lines.join("\n"),
        stderr,
    }
}

/// How often each test was reported.
fn reported(ended: &Ended) -> BTreeMap<String, usize> {
    let mut reported = BTreeMap::new();
    for line in ended.lines("test") {
        *reported.entry(line["test"].to_string()).or_default() += 1;
    }
    reported
}

#[track_caller]
fn expect_each_test_once(ended: &Ended) {
    let reported = reported(ended);
    assert_eq!(reported.len(), TESTS, "{ended:#?}");
    assert!(reported.values().all(|count| *count == 1), "{reported:#?}");
    assert_eq!(ended.finished()["counts"]["passed"], TESTS, "{ended:#?}");
}

#[test]
fn an_agent_killed_in_the_middle_costs_time_and_nothing_else() {
    let mut fleet = Fleet::of(2);
    let doomed = fleet.add_agent(&[]);
    let project = project();
    let begun = begun(&fleet, &project);
    fleet.kill_agent(&doomed);
    let ended = end(begun);
    ended.expect_code(0);
    expect_each_test_once(&ended);
    wait_until("the killed agent's containers are gone", || {
        !fleet
            .containers()
            .iter()
            .any(|labels| labels.contains(&doomed))
    });
    fleet.stop();
}

#[test]
fn ctrl_c_cancels_the_run_and_frees_the_fleet() {
    let mut fleet = Fleet::of(1);
    let project = project();
    let begun = begun(&fleet, &project);
    send(&begun.child, Signal::INT);
    let ended = end(begun);
    ended.expect_code(130);
    assert_eq!(ended.finished()["cancelled"], true, "{ended:#?}");
    let counts = &ended.finished()["counts"];
    let sum: u64 = ["passed", "flaky", "failed", "cached", "skipped", "not_run"]
        .iter()
        .filter_map(|part| counts[part].as_u64())
        .sum();
    assert_eq!(counts["planned"], sum, "{counts}");
    Ended::of(fleet.command().args(["exec", "--", "true"])).expect_code(0);
    let name = fleet.add_agent(&[]);
    fleet.signal_agent(&name, Signal::TERM);
    fleet.stop();
}

#[test]
fn a_coordinator_that_comes_back_finds_its_agents_and_what_is_cached() {
    let mut fleet = Fleet::of(1);
    let address = fleet.url().trim_start_matches("grpc://").to_owned();
    Ended::of(fleet.command().args(["exec", "--", "cat", "/proc/uptime"])).expect_code(0);
    fleet.kill_coordinator();
    fleet.start_coordinator(&address);
    let mut exec = fleet.command();
    let again = Ended::of(exec.args([
        "--message-format",
        "json",
        "exec",
        "--",
        "cat",
        "/proc/uptime",
    ]));
    again.expect_code(0);
    assert_eq!(again.finished()["leases"], 0, "{again:#?}");
    Ended::of(fleet.command().args(["exec", "--", "true"])).expect_code(0);
    fleet.stop();
}

#[test]
fn nothing_is_left_in_docker_after_all_this() {
    let fleet = Fleet::of(1);
    Ended::of(
        fleet
            .command()
            .args(["exec", "--", "sh", "-c", "sleep 1000 & setsid sleep 1000 &"]),
    )
    .expect_code(0);
    let before = fleet.containers().len();
    assert!(before > 0, "a slot stays warm");
    fleet.stop();
}
