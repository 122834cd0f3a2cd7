//! What failed in the last run is told of first in the next.

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

#[test]
fn a_test_that_failed_in_the_last_run_is_told_of_first() {
    let fleet = Fleet::of(1);
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
