//! Tests whose failures do not count for now.

use std::path::Path;

use super::fleet::Fleet;
use super::program::{Ended, write};

const SUITE: &str = r#"case $1 in
list) printf 'one\ntwo\n';;
run)
  printf '<testsuite name="s">' > junit.xml
  while read -r id; do
    printf '<testcase name="%s" classname="">' "$id" >> junit.xml
    if [ "$id" = two ]; then printf '<failure message="is broken"/>' >> junit.xml; fi
    printf '</testcase>' >> junit.xml
  done < "${2#@}"
  printf '</testsuite>' >> junit.xml;;
esac
"#;

fn pipeline(test: &str, expires: &str) -> String {
    format!(
        r#"
[jobs.check]
inputs = ["suite.sh"]
[jobs.check.suite]
discover = ["sh", "suite.sh", "list"]
run = ["sh", "suite.sh", "run"]
junit = "junit.xml"
[[jobs.check.suite.quarantine]]
test = "{test}"
owner = "jane@example.org"
expires = {expires}
"#
    )
}

fn run(fleet: &Fleet, project: &Path, pipeline: &str, options: &[&str]) -> Ended {
    write(project, &[("regatta.toml", pipeline)]);
    let mut command = fleet.command();
    Ended::of(command.current_dir(project).arg("run").args(options))
}

#[test]
fn a_quarantined_failure_does_not_count_until_its_day_is_over() {
    let fleet = Fleet::of(1);
    let project = tempfile::tempdir().expect("a directory");
    let project = project.path();
    write(project, &[("suite.sh", SUITE)]);

    let expired = run(&fleet, project, &pipeline("two", "2020-02-29"), &[]);
    expired.expect_code(96);
    expired.expect_complaint(&["`two` (owner: jane@example.org)", "expired", "later date"]);

    let good = run(
        &fleet,
        project,
        &pipeline("two", "2999-12-31"),
        &["--max-failures", "1"],
    );
    good.expect_code(0);
    for words in [
        "QUARANTINED",
        "check two: in quarantine, owner jane@example.org: is broken",
        "2 tests run: 1 passed, 1 quarantined",
        "RELEASABLE",
    ] {
        assert!(good.stdout.contains(words), "no {words:?} in {good:#?}");
    }
    let stranger = run(&fleet, project, &pipeline("three", "2999-12-31"), &[]);
    stranger.expect_code(100);
    let words = "the quarantine of `check` names what is no test of it: `three`";
    assert!(stranger.stderr.contains(words), "{stranger:#?}");
    fleet.stop();
}
