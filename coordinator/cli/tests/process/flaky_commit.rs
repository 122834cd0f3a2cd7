//! A commit of which a test failed in one run, and passed in the next with nothing changed.

use std::path::Path;

use super::fleet::Fleet;
use super::program::{Ended, write};
use super::repository::{commit, git};

const PIPELINE: &str = r#"
[jobs.check]
inputs = ["suite.sh"]
[jobs.check.suite]
discover = ["sh", "suite.sh", "list"]
run = ["sh", "suite.sh", "run"]
junit = "junit.xml"

[policy]
max_flaky = 0
"#;

/// One test fails when it runs first.
fn suite(directory: &Path) -> String {
    format!(
        r#"
if [ "$1" = list ]; then printf 'good\nshaky\n'; exit; fi
code=0
{{
  echo '<testsuites><testsuite name="check">'
  while read -r id; do
    echo "<testcase name=\"$id\" time=\"0.01\">"
    if [ "$id" = shaky ] && mkdir {directory}/failed 2> /dev/null; then
      echo '<failure message="it is the first time"/>'
      code=1
    fi
    echo '</testcase>'
  done < "${{2#@}}"
  echo '</testsuite></testsuites>'
}} > junit.xml
exit $code
"#,
        directory = directory.display()
    )
}

#[test]
fn running_a_commit_again_makes_no_flaky_test_of_it_good() {
    let fleet = Fleet::of(1);
    // Not below /tmp, of which each job has its own.
    let shared = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let project = tempfile::tempdir().expect("a directory");
    git(project.path(), &["init", "--quiet"]);
    let files = [
        ("regatta.toml", PIPELINE),
        ("suite.sh", &suite(shared.path())),
    ];
    write(project.path(), &files);
    commit(project.path());
    let regatta = |arguments: &[&str]| {
        let mut command = fleet.command();
        Ended::of(command.current_dir(project.path()).args(arguments))
    };
    regatta(&["run"]).expect_code(100);
    regatta(&["run"]).expect_code(0);
    let verdict = regatta(&["verdict"]);
    verdict.expect_code(1);
    for words in [
        "NOT_RELEASABLE",
        "tests that are flaky: 1, and the policy allows 0 (max_flaky)",
        "check shaky (failed in run ",
        ", with nothing changed)",
    ] {
        assert!(verdict.stdout.contains(words), "{words}: {verdict:#?}");
    }
    fleet.stop();
}
