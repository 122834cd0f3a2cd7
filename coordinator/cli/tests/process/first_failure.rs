//! What failed in the last run is told of first in the next, and then what is new or in a file that changed.

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

const PIPELINE_OF_FILES: &str = r#"
[jobs.check]
inputs = ["suite.sh", "tests"]
[jobs.check.suite]
discover = ["sh", "suite.sh", "list"]
run = ["sh", "suite.sh", "run"]
junit = "junit.xml"
"#;

/// Two tests of a twentieth of a second in each file.
const SUITE_OF_FILES: &str = r#"
if [ "$1" = list ]; then for file in tests/*; do echo "$file::one"; echo "$file::two"; done; exit; fi
{
  echo '<testsuites><testsuite name="check">'
  while read -r id; do
    sleep 0.05
    echo "<testcase name=\"$id\" classname=\"\" time=\"0.05\"/>"
  done < "${2#@}"
  echo '</testsuite></testsuites>'
} > junit.xml
"#;

#[test]
fn the_tests_of_a_file_that_changed_are_told_of_first() {
    // Of two slots either may be the first to answer.
    let mut fleet = Fleet::coordinator();
    fleet.add_agent(&["--slots", "1"]);
    let project = tempfile::tempdir().expect("a directory");
    let files = (1..=20).map(|number| format!("tests/file-{number}"));
    let files: Vec<_> = files.collect();
    let mut written: Vec<_> = files.iter().map(|file| (file.as_str(), "")).collect();
    written.push(("regatta.toml", PIPELINE_OF_FILES));
    written.push(("suite.sh", SUITE_OF_FILES));
    write(project.path(), &written);
    let run = || {
        let mut command = fleet.command();
        command.args(["--message-format", "json", "run"]);
        let ended = Ended::of(command.current_dir(project.path()));
        ended.expect_code(0);
        let told = ended.lines("test");
        let told = told.iter().filter_map(|it| it["test"].as_str());
        told.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(run().len(), 40);
    // There are names that begin so.
    write(project.path(), &[("tests/file-2", "changed")]);
    let told = run();
    assert_eq!(told.len(), 40, "{told:?}");
    let mut first = [told[0].as_str(), told[1].as_str()];
    first.sort_unstable();
    let of_changed = ["tests/file-2::one", "tests/file-2::two"];
    assert_eq!(first, of_changed, "{told:?}");
    fleet.stop();
}
