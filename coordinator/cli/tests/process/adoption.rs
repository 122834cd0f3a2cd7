//! Work that outlives its coordinator.

use std::path::Path;

use super::fleet::Fleet;
use super::program::{Running, wait_until, write};

/// Tests that each run on their own, tests that one runner runs together, and a build. Each says in a file that it
/// begins, and ends when there is another.
pub(crate) fn suite(directory: &Path) -> String {
    format!(
        r#"
begin() {{ echo "$1" >> {directory}/begun; until [ -e {directory}/end ]; do sleep 0.05; done; }}
case "$1" in
build) begin build; exit ;;
list) printf 'x\ny\nz\n'; exit ;;
together)
    {{
      echo '<testsuites><testsuite name="together" tests="3">'
      while read -r id; do
        begin "$id" >&2
        echo "<testcase name=\"$id\" classname=\"\" time=\"1\"/>"
      done < "${{2#@}}"
      echo '</testsuite></testsuites>'
    }} > junit.xml
    exit ;;
esac
for last; do :; done
case "$*" in
*--list*--ignored*|*--ignored*--list*) exit ;;
*--list*) printf 'a: test\nb: test\n'; exit ;;
esac
begin "$last"
echo; echo "running 1 test"; echo
echo "test result: ok. 1 passed; 0 failed; 0 ignored"
"#,
        directory = directory.display()
    )
}

pub(crate) const PIPELINE: &str = r#"
[jobs.build]
inputs = ["suite.sh"]
run = ["sh", "suite.sh", "build"]

[jobs.each]
inputs = ["suite.sh"]
[jobs.each.suite]
adapter = "libtest"
run = ["sh", "suite.sh"]

[jobs.together]
inputs = ["suite.sh"]
[jobs.together.suite]
discover = ["sh", "suite.sh", "list"]
run = ["sh", "suite.sh", "together"]
junit = "junit.xml"
"#;

/// What has begun, each time it did.
pub(crate) fn begun(directory: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(directory.join("begun")).unwrap_or_default();
    let mut names: Vec<String> = text.lines().map(str::to_owned).collect();
    names.sort();
    names
}

/// Whether everything is under way: of tests that nobody has measured, each of six slots has one.
pub(crate) fn is_busy(directory: &Path) -> bool {
    let begun = begun(directory);
    let all = ["a", "b", "build", "x", "y", "z"];
    all.iter().all(|it| begun.iter().any(|begun| begun == it))
}

#[test]
fn what_agents_do_goes_on_when_their_coordinator_is_killed() {
    let mut fleet = Fleet::coordinator();
    // As many slots as there is to do: one that is free may begin for a moment what another agent is at.
    let agents = [(); 2].map(|()| fleet.add_agent(&["--slots", "3", "--cpus", "3"]));
    let address = fleet.url().trim_start_matches("grpc://").to_owned();
    // Not below /tmp, of which each job has its own.
    let project = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let directory = project.path();
    let files = [("regatta.toml", PIPELINE), ("suite.sh", &suite(directory))];
    write(directory, &files);
    let mut run = fleet.command();
    run.args(["--message-format", "json", "run"])
        .current_dir(directory);
    let running = Running::begin(&mut run);
    wait_until("everything is under way", || is_busy(directory));
    for _ in 0..3 {
        fleet.kill_coordinator();
        fleet.start_coordinator(&address);
        let is_back = |agent: &String| fleet.agent(agent).is_some_and(|it| it["state"] != "lost");
        wait_until("the agents are back", || agents.iter().all(is_back));
    }
    std::fs::write(directory.join("end"), "").expect("is written");
    let ended = running.end();
    ended.expect_code(0);
    let counts = &ended.finished()["counts"];
    assert_eq!(counts["planned"], 5, "{counts}");
    assert_eq!(counts["passed"], 5, "{counts}");
    assert_eq!(begun(directory), ["a", "b", "build", "x", "y", "z"]);
    fleet.stop();
}
