//! `regatta flake`.

use super::fleet::Fleet;
use super::program::{Ended, write};

/// Its second test fails half of the time.
const SUITE: &str = r#"case $1 in
list) printf 'one\ntwo\n';;
run)
  printf '<testsuite name="s">' > junit.xml
  while read -r id; do
    printf '<testcase name="%s" classname="">' "$id" >> junit.xml
    random=$(od -An -N1 -tu1 /dev/urandom)
    if [ "$id" = two ] && [ $((random % 2)) = 0 ]; then printf '<failure message="odd"/>' >> junit.xml; fi
    printf '</testcase>' >> junit.xml
  done < "${2#@}"
  printf '</testsuite>' >> junit.xml;;
esac
"#;

const PIPELINE: &str = r#"
[jobs.check]
inputs = ["suite.sh"]
retry = 10
[jobs.check.suite]
discover = ["sh", "suite.sh", "list"]
run = ["sh", "suite.sh", "run"]
junit = "junit.xml"
"#;

#[test]
fn a_test_runs_many_times_whatever_is_cached() {
    let fleet = Fleet::of(1);
    let project = tempfile::tempdir().expect("a directory");
    let project = project.path();
    write(project, &[("suite.sh", SUITE), ("regatta.toml", PIPELINE)]);
    let regatta = |arguments: &[&str]| {
        let mut command = fleet.command();
        Ended::of(command.current_dir(project).args(arguments))
    };
    // Most likely its second test passes in the end, and is cached.
    regatta(&["run"]);

    let flaky = regatta(&["flake", "two", "--times", "40"]);
    flaky.expect_code(100);
    let summary = flaky.stdout.lines().last().expect("a last line");
    assert!(summary.starts_with("two failed "), "{flaky:#?}");
    assert!(summary.contains(" of 40 times: "), "{flaky:#?}");
    assert!(flaky.stdout.contains("40 tests run: "), "{flaky:#?}");
    assert!(flaky.stdout.contains("check two (run "), "{flaky:#?}");

    let good = regatta(&["flake", "one", "--times", "40"]);
    good.expect_code(0);
    let words = "one failed 0 of 40 times: 0.0 % (with 95 % confidence 0.0 to 8.8 %)";
    assert!(good.stdout.ends_with(&format!("{words}\n")), "{good:#?}");

    // A pass among many runs is no pass to rely on, and a failure takes back the one that was.
    let next = regatta(&["run", "--message-format", "json"]);
    let counts = &next.finished()["counts"];
    assert_eq!(
        (counts["planned"].as_u64(), counts["cached"].as_u64()),
        (Some(2), Some(1))
    );

    let stranger = regatta(&["flake", "three"]);
    stranger.expect_code(4);
    stranger.expect_complaint(&["no suite of this run has a test called `three`"]);
    fleet.stop();
}
