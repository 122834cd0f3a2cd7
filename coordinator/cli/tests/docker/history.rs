//! `regatta history`.

use super::fleet::Fleet;
use super::program::{Ended, write};

/// Two tests, one of which says that it took seven seconds.
const PIPELINE: &str = r#"
[jobs.unit]
inputs = ["**"]

[jobs.unit.suite]
discover = "printf 'fast\nslow\n'"
run = ["sh", "suite.sh"]
junit = "junit.xml"
"#;
const SUITE: &str = r#"
{
  echo '<testsuites><testsuite name="unit">'
  while read -r id; do
    if [ "$id" = slow ]; then time=7; else time=0.01; fi
    echo "<testcase name=\"$id\" classname=\"\" time=\"$time\"/>"
  done < "${1#@}"
  echo '</testsuite></testsuites>'
} > junit.xml
"#;

#[test]
fn history_tells_what_runs_and_tests_were_like() {
    let fleet = Fleet::of(1);
    let project = tempfile::tempdir().expect("a directory");
    write(
        project.path(),
        &[("regatta.toml", PIPELINE), ("suite.sh", SUITE)],
    );
    let run = |arguments: &[&str]| {
        let mut command = fleet.command();
        Ended::of(command.current_dir(project.path()).args(arguments))
    };
    let before = run(&["history"]);
    before.expect_code(0);
    assert!(before.stdout.starts_with("runs       0: "), "{before:#?}");
    let unknown = run(&["run", "--plan"]);
    unknown.expect_code(0);
    let words = "of its tests 2 are unknown, and taken to last as long as is usual";
    assert!(unknown.stdout.contains(words), "{unknown:#?}");
    run(&["run"]).expect_code(0);
    run(&["run"]).expect_code(0);
    let cached = run(&["run", "--plan"]);
    assert!(cached.stdout.contains("no test would run"), "{cached:#?}");
    let known = run(&["--message-format", "json", "run", "--plan", "--no-cache"]);
    known.expect_code(0);
    let suite = &known.lines("suite-plan")[0];
    assert_eq!(
        (&suite["from_history"], &suite["longest"]),
        (&2.into(), &7.0.into())
    );
    assert_eq!(suite["longest_test"], "slow");
    assert!(
        known.lines("run-plan")[0]["makespan"].as_f64() >= Some(7.0),
        "{known:#?}"
    );
    let text = run(&["history", "--since", "1d"]);
    text.expect_code(0);
    for words in [
        "runs       2: 2 RELEASABLE",
        "cached     50.0 % of 4 tests",
        "queued     p50 ",
        "worked     p50 ",
        "7.00 s  1     unit slow",
    ] {
        assert!(text.stdout.contains(words), "{words}: {text:#?}");
    }
    let csv = run(&["history", "--format", "csv", "--suite", "unit"]);
    assert_eq!(csv.stdout.lines().count(), 3, "{csv:#?}");
    let json = run(&["history", "--format", "json", "--branch", "none"]);
    let json: serde_json::Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!(json["runs"]["ended"], 0, "of no such branch");
    assert_eq!(json["tests"], serde_json::json!([]));
    let durations = "{\"fast\": 30.0, \"new\": 1.5}";
    write(
        project.path(),
        &[(".test_durations", durations), ("bad.xml", "<a></b>")],
    );
    let import = |file: &str| run(&["history", "import", "--suite", "unit", file]);
    let bad = import("bad.xml");
    bad.expect_code(96)
        .expect_complaint(&["bad.xml", "no well-formed XML"]);
    let learnt = import(".test_durations");
    learnt.expect_code(0);
    let said = "learnt the times of 2 tests of suite `unit` from 1 file; 1 of them it has not run: [\"new\"]\n";
    assert_eq!(learnt.stdout, said);
    let csv = run(&["history", "--format", "csv", "--suite", "unit"]);
    assert!(csv.stdout.contains("unit,new,1.5,1,"), "{csv:#?}");
    run(&["history", "--suite", "none"]).expect_complaint(&["no run of suite `none`"]);
    fleet.stop();
}

#[test]
fn history_tells_what_runs_cost_and_what_they_have_in_common() {
    let fleet = Fleet::of(1);
    let project = tempfile::tempdir().expect("a directory");
    write(
        project.path(),
        &[("regatta.toml", PIPELINE), ("suite.sh", SUITE)],
    );
    let run = |arguments: &[&str]| {
        let mut command = fleet.command();
        Ended::of(command.current_dir(project.path()).args(arguments))
    };
    run(&["run"]).expect_code(0);
    run(&["run"]).expect_code(0);
    let apart = run(&["history", "--by", "day"]);
    assert!(apart.stdout.contains("RUNS OF "), "{apart:#?}");
    let apart = run(&["history", "--by", "branch", "--format", "csv"]);
    assert_eq!(apart.stdout.lines().count(), 2, "{apart:#?}");
    let json = run(&["history", "--format", "json", "--by", "branch"]);
    let json: serde_json::Value = serde_json::from_str(&json.stdout).expect("JSON");
    let group = &json["groups"][0];
    assert_eq!((&group["name"], &group["ended"]), (&"".into(), &2.into()));
    // Two runs, of which only the first leased anything.
    assert_eq!(group["worked_seconds_p50"], 0.0);
    assert!(group["worked_seconds"].as_f64() > Some(0.0), "{group}");
    assert_eq!(group["worked_seconds"], group["worked_seconds_p95"]);
    assert!(group["queued_seconds_p95"].is_number(), "{group}");
    assert!(group["lead_seconds_p50"].is_null(), "it is of no commit");
    // Of more jobs than there are slots, the last waits for the first.
    let busy: String = (0..4)
        .map(|job| format!("[jobs.j{job}]\nrun = 'sleep 0.1; : {job}'\n"))
        .collect();
    write(project.path(), &[("busy.toml", &busy)]);
    run(&["run", "--file", "busy.toml"]).expect_code(0);
    let json = run(&["history", "--format", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json.stdout).expect("JSON");
    let seconds = |key: &str| json["runs"][key].as_f64().expect("is known");
    assert!(seconds("worked_seconds_p95") >= 0.4, "{json}");
    assert!(seconds("queued_seconds_p95") >= 0.1, "{json}");
    fleet.stop();
}
