//! What fails in the middle of a run, and what then still holds.

use std::collections::BTreeMap;
use std::time::Instant;

use rustix::process::Signal;

use super::fleet::Fleet;
use super::program::{Ended, PATIENCE, Running, write};

const TESTS: usize = 60;
const JUNIT: &str = "report.xml";

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

/// The JUnit report of a run in the background.
fn junit(project: &tempfile::TempDir) -> String {
    std::fs::read_to_string(project.path().join(JUNIT)).expect("JUnit")
}

pub(crate) fn project() -> tempfile::TempDir {
    let project = tempfile::tempdir().expect("a directory");
    write(
        project.path(),
        &[("regatta.toml", PIPELINE), ("suite.sh", SUITE)],
    );
    project
}

/// A run that has begun to report tests. Those of a batch are reported together: it may be all there is.
fn begun(fleet: &Fleet, project: &tempfile::TempDir) -> Running {
    until(fleet, project, r#""type":"test""#)
}

/// A run whose tests are known, and take some seconds yet.
pub(crate) fn planned(fleet: &Fleet, project: &tempfile::TempDir) -> Running {
    until(fleet, project, r#""type":"suite-planned""#)
}

/// A run that has printed this.
fn until(fleet: &Fleet, project: &tempfile::TempDir, words: &str) -> Running {
    let mut run = fleet.command();
    run.args(["--message-format", "json", "run", "--junit", JUNIT])
        .current_dir(project.path());
    let mut begun = Running::begin(&mut run);
    begun.expect_words(words);
    begun
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
pub(crate) fn expect_each_test_once(ended: &Ended) {
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
    let ended = begun.end();
    ended.expect_code(0);
    expect_each_test_once(&ended);
    fleet.expect_gone(&doomed);
    fleet.stop();
}

#[test]
fn an_agent_whose_starter_is_killed_ends_and_leaves_nothing() {
    let mut fleet = Fleet::of(1);
    let doomed = fleet.add_agent(&[]);
    let project = project();
    let begun = begun(&fleet, &project);
    fleet.orphan_agent(&doomed);
    fleet.expect_gone(&doomed);
    let ended = begun.end();
    ended.expect_code(0);
    expect_each_test_once(&ended);
    fleet.stop();
}

#[test]
fn ctrl_c_cancels_the_run_and_frees_the_fleet() {
    let mut fleet = Fleet::of(1);
    let project = project();
    let begun = planned(&fleet, &project);
    begun.send(Signal::INT);
    let ended = begun.end();
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
fn a_run_goes_on_whenever_its_coordinator_is_killed() {
    let mut fleet = Fleet::of(2);
    let address = fleet.url().trim_start_matches("grpc://").to_owned();
    let project = project();
    let mut begun = planned(&fleet, &project);
    for times in 1..=3 {
        fleet.kill_coordinator();
        fleet.start_coordinator(&address);
        begun.expect_words_times(r#""type":"run-resumed""#, times);
    }
    let ended = begun.end();
    ended
        .expect_code(0)
        .expect_complaint(&["coordinator is away"]);
    expect_each_test_once(&ended);
    assert_eq!(ended.lines("run-started").len(), 1, "{ended:#?}");
    assert_eq!(ended.finished()["verdict"], "RELEASABLE", "{ended:#?}");
    let cases = junit(&project).matches("<testcase ").count();
    assert_eq!(cases, TESTS, "JUnit has each test once");
    fleet.stop();
}

#[test]
fn a_second_ctrl_c_leaves_though_the_coordinator_has_stopped() {
    let fleet = Fleet::of(2);
    let project = project();
    // A job that is not over when all tests of the other have been reported.
    let endless = format!("{PIPELINE}[jobs.endless]\nrun = \"sleep 600\"\n");
    write(project.path(), &[("regatta.toml", &endless)]);
    let mut begun = begun(&fleet, &project);
    fleet.signal_coordinator(Signal::STOP);
    begun.send(Signal::INT);
    begun.expect_words("interrupt again");
    begun.send(Signal::INT);
    let ended = begun.end();
    ended.expect_code(130);
    let run = ended.lines("run-submitted")[0]["run_id"].clone();
    let run = run.as_str().expect("an id");
    ended.expect_complaint(&["may go on", &format!("regatta cancel {run}")]);
    assert!(junit(&project).contains("<testcase "));
    fleet.signal_coordinator(Signal::CONT);
    Ended::of(fleet.command().args(["cancel", run])).expect_code(0);
    fleet.stop();
}

#[test]
fn a_coordinator_that_has_stopped_holds_nobody_for_long() {
    let fleet = Fleet::coordinator();
    fleet.signal_coordinator(Signal::STOP);
    let begun = Instant::now();
    let ended = Ended::of(fleet.command().arg("ps"));
    ended.expect_code(97);
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    fleet.signal_coordinator(Signal::CONT);
    fleet.stop();
}
