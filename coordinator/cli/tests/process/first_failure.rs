//! What failed in the last run is told of first in the next, and then what is new.

use std::path::Path;

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

/// Forty tests of a twentieth of a second, of which one fails. It is no longer than the others, and in their middle.
const SUITE: &str = r#"
if [ "$1" = list ]; then seq 1 40 | sed 's/^/test-/'; exit; fi
{
  echo '<testsuites><testsuite name="check">'
  while read -r id; do
    sleep 0.05
    echo "<testcase name=\"$id\" classname=\"\" time=\"0.05\">"
    if [ "$id" = test-23 ]; then echo '<failure message="no"/>'; fi
    echo '</testcase>'
  done < "${2#@}"
  echo '</testsuite></testsuites>'
} > junit.xml
"#;

/// The same, none of which fails; their list is in a file that is no input.
fn listed_elsewhere(list: &Path) -> String {
    let suite = SUITE.replace(
        "seq 1 40 | sed 's/^/test-/'",
        &format!("cat {}", list.display()),
    );
    suite.replace("test-23", "no test")
}

#[test]
fn a_test_that_is_new_is_told_of_before_those_that_passed() {
    // Of two slots either may be the first to answer.
    let mut fleet = Fleet::coordinator();
    fleet.add_agent(&["--slots", "1"]);
    // Not below /tmp, of which each job has its own.
    let project = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let list = project.path().join("list");
    let suite = listed_elsewhere(&list);
    write(
        project.path(),
        &[("regatta.toml", PIPELINE), ("suite.sh", &suite)],
    );
    let run = |ids: &[u32]| {
        let ids = ids.iter().map(|id| format!("test-{id}\n"));
        std::fs::write(&list, ids.collect::<String>()).expect("is written");
        let mut command = fleet.command();
        command.args(["--message-format", "json", "run", "--no-cache"]);
        let ended = Ended::of(command.current_dir(project.path()));
        ended.expect_code(0);
        let told = ended.lines("test");
        told.iter().map(|it| it["test"].clone()).collect::<Vec<_>>()
    };
    let known: Vec<u32> = (1..=40).filter(|id| *id != 17).collect();
    assert_eq!(run(&known).len(), 39);
    let all: Vec<u32> = (1..=40).collect();
    let told = run(&all);
    assert_eq!(
        (told.len(), told[0].as_str()),
        (40, Some("test-17")),
        "{told:?}"
    );
    fleet.stop();
}

#[test]
fn a_test_that_failed_in_the_last_run_is_told_of_first() {
    // Of two slots either may be the first to answer.
    let mut fleet = Fleet::coordinator();
    fleet.add_agent(&["--slots", "1"]);
    let project = tempfile::tempdir().expect("a directory");
    write(
        project.path(),
        &[("regatta.toml", PIPELINE), ("suite.sh", SUITE)],
    );
    let run = || {
        let mut command = fleet.command();
        command.args(["--message-format", "json", "run", "--no-cache"]);
        Ended::of(command.current_dir(project.path()))
    };
    run().expect_code(100);
    let ended = run();
    ended.expect_code(100);
    let told: Vec<_> = ended
        .lines("test")
        .iter()
        .map(|it| it["test"].clone())
        .collect();
    assert_eq!(told.len(), 40, "{ended:#?}");
    assert_eq!(told[0], "test-23", "{told:?}");
    fleet.stop();
}
