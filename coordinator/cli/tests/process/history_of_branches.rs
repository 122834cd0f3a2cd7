//! `regatta history` tells of tests as the runs show them that are asked for.

use std::path::Path;

use serde_json::Value;

use super::fleet::Fleet;
use super::program::Ended;
use super::repository::{commit, git};
use super::shared_project::SharedProject;

const PIPELINE: &str = r#"
[jobs.check]
inputs = ["suite.sh"]
retry = 1
[jobs.check.suite]
discover = ["printf", "shaky\nsteady\n"]
run = ["sh", "suite.sh"]
junit = "junit.xml"
"#;

/// Of two tests one fails when it runs for the first time ever.
fn suite(directory: &Path) -> String {
    format!(
        r#"
{{
  echo '<testsuites><testsuite name="check">'
  while read -r id; do
    echo "<testcase name=\"$id\" classname=\"\" time=\"0.01\">"
    if [ "$id" = shaky ] && mkdir {directory}/ran; then echo '<failure message="it is the first time"/>'; fi
    echo '</testcase>'
  done < "${{1#@}}"
  echo '</testsuite></testsuites>'
}} > junit.xml
! grep -q '<failure' junit.xml
"#,
        directory = directory.display()
    )
}

/// Each test with how often it ran and how often it was flaky.
fn tests(history: &Value) -> Vec<(&str, u64, u64)> {
    let tests = history["tests"].as_array().expect("are listed").iter();
    let figures = tests.map(|test| {
        let count = |name: &str| test[name].as_u64().expect("a number");
        let name = test["test"].as_str().expect("a name");
        (name, count("runs"), count("flakes"))
    });
    figures.collect()
}

#[test]
fn a_test_that_is_flaky_on_one_branch_is_so_on_that_alone() {
    let fleet = Fleet::of(1);
    let project = SharedProject::new(PIPELINE, suite);
    let (root, shared) = (project.root(), project.shared());
    git(root, &["init", "--quiet", "--initial-branch", "a"]);
    std::fs::write(root.join(".gitignore"), "shared\n").expect("is written");
    commit(root);
    let ran = |flaky: u64| {
        let ended = project.told(&fleet, &["run"]);
        ended.expect_code(0);
        assert_eq!(ended.finished()["counts"]["flaky"], flaky, "{ended:#?}");
    };
    ran(1);
    assert!(shared.join("ran").is_dir());
    git(root, &["checkout", "--quiet", "-b", "b"]);
    ran(0);
    let history = |arguments: &[&str]| {
        let mut command = fleet.command();
        let ended = Ended::of(command.current_dir(root).arg("history").args(arguments));
        ended.expect_code(0);
        ended
    };
    let json = |arguments: &[&str]| -> Value {
        let ended = history(&[&["--format", "json"], arguments].concat());
        serde_json::from_str(&ended.stdout).expect("is JSON")
    };
    let all = json(&[]);
    assert_eq!(tests(&all), [("shaky", 2, 1), ("steady", 1, 0)]);
    let on_a = json(&["--branch", "a"]);
    assert_eq!(tests(&on_a), [("shaky", 1, 1), ("steady", 1, 0)]);
    // There it is known that the other one passes.
    assert_eq!(tests(&json(&["--branch", "b"])), [("shaky", 1, 0)]);
    assert_eq!(tests(&json(&["--branch", "c"])), []);
    for (branch, is_flaky) in [("a", true), ("b", false)] {
        let text = history(&["--branch", branch]);
        assert!(text.stdout.contains("SLOWEST TESTS"), "{text:#?}");
        assert_eq!(text.stdout.contains("FLAKIEST"), is_flaky, "{text:#?}");
        let csv = history(&["--branch", branch, "--format", "csv"]);
        let flakes = if is_flaky { "1,0,1," } else { "1,0,0," };
        assert!(csv.stdout.contains(flakes), "{csv:#?}");
    }
    // Of a time that both of them are in it is the same as of all, and of one that begins later there is nothing.
    assert_eq!(json(&["--since", "1d"])["tests"], all["tests"]);
    assert_eq!(tests(&json(&["--since", "1ms"])), []);
    let groups = json(&["--by", "branch"]);
    let flaky = |group: usize| groups["groups"][group]["flaky"].as_u64();
    assert_eq!((flaky(0), flaky(1)), (Some(1), Some(0)), "{groups}");
    // What is kept no longer is said to be missing where it is asked for.
    let missing = |since: &str| {
        let text = history(&["--since", since]);
        text.stdout.contains("--keep-runs")
    };
    assert!(missing("200d") && !missing("1d"));
    let csv = history(&["--since", "200d", "--format", "csv"]);
    assert!(csv.stderr.contains("--keep-runs"), "{csv:#?}");
    fleet.stop();
}
