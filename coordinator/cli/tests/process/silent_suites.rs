//! Suites that end well and say nothing, or something of tests that they did not run.

use super::fleet::Fleet;
use super::program::{Ended, write};
use super::repository::{commit, git};

const PIPELINE: &str = r#"
[jobs.full]
inputs = ["suite.sh"]
[jobs.full.suite]
discover = ["sh", "suite.sh", "list"]
run = ["sh", "suite.sh", "run"]
junit = "junit.xml"

[jobs.empty]
inputs = ["suite.sh"]
[jobs.empty.suite]
discover = ["sh", "suite.sh", "list"]
run = ["sh", "suite.sh", "run"]
junit = "junit.xml"
filters = ["misspelt"]

[policy]
required = ["full", "empty"]
"#;
/// Whatever it is asked to run, it reports another test, whose name ends in the same.
const SUITE: &str = r#"
if [ "$1" = list ]; then printf 'x\nB::x\n'; exit; fi
echo '<testsuite><testcase classname="B" name="x"/></testsuite>' > junit.xml
"#;
const HONEST: &str = r#"
if [ "$1" = list ]; then printf 'x\n'; exit; fi
echo '<testsuite><testcase name="x"/></testsuite>' > junit.xml
"#;

#[test]
fn what_did_not_run_does_not_pass() {
    let fleet = Fleet::of(1);
    let project = tempfile::tempdir().expect("a directory");
    git(project.path(), &["init", "--quiet"]);
    write(
        project.path(),
        &[("regatta.toml", PIPELINE), ("suite.sh", HONEST)],
    );
    commit(project.path());
    let regatta = |arguments: &[&str]| {
        let mut command = fleet.command();
        Ended::of(command.current_dir(project.path()).args(arguments))
    };
    let silent = "`empty`, which the policy requires, has no answer: it has no tests";
    let ended = regatta(&["run"]);
    ended.expect_code(98);
    assert!(
        ended.stdout.contains(silent) || ended.stderr.contains(silent),
        "{ended:#?}"
    );
    regatta(&["verdict"]).expect_code(2);
    regatta(&["run", "empty"]).expect_code(4);

    write(project.path(), &[("suite.sh", SUITE)]);
    // However its tests are divided: alone, and both at once.
    for _ in 0..2 {
        let lying = regatta(&["run", "--no-cache", "full"]);
        lying.expect_code(100);
        let said = format!("{}{}", lying.stdout, lying.stderr);
        assert!(said.contains("the runner did not report `x`"), "{lying:#?}");
        // It is of other files than those of the commit, and says so though it has failed.
        assert!(
            said.contains("of these files, which are not those of commit"),
            "{lying:#?}"
        );
    }
    fleet.stop();
}
