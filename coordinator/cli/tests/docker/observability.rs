//! What whoever runs a fleet sees of it.

use serde_json::Value;

use super::fleet::Fleet;
use super::program::{Ended, write};

const PIPELINE: &str = r#"
[jobs.check]
inputs = ["suite.sh"]
[jobs.check.suite]
discover = ["sh", "suite.sh", "list"]
run = ["sh", "suite.sh", "run"]
junit = "junit.xml"
"#;

const SUITE: &str = r#"
if [ "$1" = list ]; then echo one; echo two; exit; fi
{
  echo '<testsuites><testsuite name="s" tests="1">'
  while read -r id; do echo "<testcase name=\"$id\" classname=\"\" time=\"0.1\"/>"; done < "${2#@}"
  echo '</testsuite></testsuites>'
} > junit.xml
"#;

/// A fleet on which a suite has run, twice.
fn seasoned() -> Fleet {
    let fleet = Fleet::of(1);
    let project = tempfile::tempdir().expect("a directory");
    write(
        project.path(),
        &[("regatta.toml", PIPELINE), ("suite.sh", SUITE)],
    );
    for _ in 0..2 {
        let mut run = fleet.command();
        Ended::of(run.current_dir(project.path()).arg("run")).expect_code(0);
    }
    fleet
}

/// The sum of what a metric counts.
fn sum(metrics: &str, name: &str) -> f64 {
    let of = |line: &&str| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with([' ', '{']))
    };
    let values = metrics.lines().filter(of);
    values
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

#[test]
fn metrics_tell_how_long_a_runs_work_took() {
    let fleet = seasoned();
    let (status, metrics) = fleet.page("/metrics");
    assert_eq!(status, 200);
    for name in [
        "regatta_ledger_seconds_count{call=\"append_events\"}",
        "regatta_queue_seconds_count",
        "regatta_lease_to_exec_seconds_count",
        "regatta_exec_seconds_count",
        "regatta_publish_seconds_count",
        "regatta_action_cache_hits_total",
        "regatta_slots",
    ] {
        assert!(sum(&metrics, name) > 0.0, "{name} in:\n{metrics}");
    }
    let kinds = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "));
    for name in kinds.filter_map(|line| line.split(' ').next()) {
        let help = format!("# HELP {name} ");
        assert!(metrics.contains(&help), "no help for {name} in:\n{metrics}");
    }
    assert_eq!(fleet.page("/readyz"), (200, "ready\n".to_owned()));
    fleet.stop();
}

#[test]
fn logs_in_json_name_the_run_the_task_the_lease_and_the_agent() {
    let fleet = seasoned();
    let log = fleet.log_of("coordinator");
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")))
        .collect();
    let leased = lines.iter().find(|line| line["message"] == "leased");
    let leased = leased.unwrap_or_else(|| panic!("nothing was leased:\n{log}"));
    for field in ["run", "task", "lease", "agent"] {
        assert!(!leased[field].is_null(), "no {field} in {leased}");
    }
    let ended = lines
        .iter()
        .find(|line| line["message"] == "a run has ended");
    let ended = ended.unwrap_or_else(|| panic!("no run ended:\n{log}"));
    assert_eq!(ended["span"]["name"], "run", "{ended}");
    assert_eq!(ended["span"]["run"], ended["run"], "{ended}");
    fleet.stop();
}
