//! Batches that take much longer than they should, near the end of a suite.

use std::path::Path;

use rustix::process::Signal;

use super::fleet::Fleet;
use super::program::{Ended, Running, write};

const TESTS: usize = 40;

/// Forty tests of a tenth of a second each. Whoever is the first to run the last of them once the directory is
/// there takes ten minutes for it.
fn suite(directory: &Path) -> String {
    format!(
        r#"
if [ "$1" = list ]; then seq 1 {TESTS} | sed 's/^/test-/'; exit; fi
{{
  echo '<testsuites><testsuite name="slow" tests="1">'
  while read -r id; do
    if [ "$id" = test-{TESTS} ] && mkdir {directory}/stall 2>/dev/null; then sleep 600; fi
    sleep 0.1
    echo "<testcase name=\"$id\" classname=\"\" time=\"0.1\"/>"
  done < "${{2#@}}"
  echo '</testsuite></testsuites>'
}} > junit.xml
"#,
        directory = directory.display()
    )
}

const PIPELINE: &str = r#"
[jobs.slow]
inputs = ["suite.sh"]
timeout = "3s"
[jobs.slow.suite]
discover = ["sh", "suite.sh", "list"]
run = ["sh", "suite.sh", "run"]
junit = "junit.xml"
"#;

/// A fleet that knows how long the tests take, and their project. The directory is not there yet.
struct Known {
    fleet: Fleet,
    agents: [String; 2],
    project: tempfile::TempDir,
    directory: std::path::PathBuf,
}

fn known() -> Known {
    let mut fleet = Fleet::coordinator();
    let agents = [(); 2].map(|()| fleet.add_agent(&[]));
    // Not below /tmp, of which each job has its own.
    let project = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let directory = project.path().join("shared");
    let files = [("regatta.toml", PIPELINE), ("suite.sh", &suite(&directory))];
    write(project.path(), &files);
    let known = Known {
        fleet,
        agents,
        project,
        directory,
    };
    known.begin(&[]).end().expect_code(0);
    known
}

impl Known {
    fn begin(&self, options: &[&str]) -> Running {
        let mut run = self.fleet.command();
        run.args(["--message-format", "json", "run"]).args(options);
        Running::begin(run.current_dir(self.project.path()))
    }
}

/// The agents that began tests again, and those that were late with them.
fn begun_again(ended: &Ended) -> Vec<(String, String)> {
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let slow = ended.lines("test-slow").into_iter();
    let slow = slow.filter(|line| !line["duplicate_agent"].is_null());
    slow.map(|line| (text(&line["duplicate_agent"]), text(&line["agent"])))
        .collect()
}

#[track_caller]
fn expect_each_test_once(ended: &Ended) {
    ended.expect_code(0);
    let mut tests: Vec<_> = ended
        .lines("test")
        .iter()
        .map(|it| it["test"].to_string())
        .collect();
    tests.sort_unstable();
    tests.dedup();
    assert_eq!(tests.len(), TESTS, "{ended:#?}");
    assert_eq!(ended.lines("test").len(), TESTS, "{ended:#?}");
    let counts = &ended.finished()["counts"];
    assert_eq!(
        (&counts["planned"], &counts["passed"]),
        (&TESTS.into(), &TESTS.into())
    );
}

/// A test that passes in the end although somebody else is still at it may hang now and then.
#[track_caller]
fn expect_to_be_told_what_was_overtaken(ended: &Ended) {
    let warnings = ended.lines("warning");
    let warnings: Vec<_> = warnings
        .iter()
        .map(|it| it["message"].to_string())
        .collect();
    // Once for the batch that stalled; on a busy machine another may have been late, too.
    let is_told = |it: &String| it.contains("had been running for");
    assert!(warnings.iter().any(is_told), "{warnings:?}");
    let tests = ended.lines("test");
    let mut stalled = tests
        .iter()
        .filter(|it| it["test"] == format!("test-{TESTS}"));
    let message = stalled.next().expect("it is told")["message"].to_string();
    assert!(message.contains("it may hang now and then"), "{message}");
}

#[test]
fn a_batch_that_stalls_is_begun_again_elsewhere_unless_that_is_forbidden() {
    let known = known();
    std::fs::create_dir(&known.directory).expect("is made");
    let ended = known.begin(&["--no-cache"]).end();
    expect_each_test_once(&ended);
    let again = begun_again(&ended);
    assert!(!again.is_empty(), "{ended:#?}");
    assert!(again.iter().all(|(again, late)| again != late), "{again:?}");
    expect_to_be_told_what_was_overtaken(&ended);

    std::fs::remove_dir(known.directory.join("stall")).expect("somebody stalled");
    let ended = known.begin(&["--no-cache", "--no-duplicates"]).end();
    ended.expect_code(100);
    assert_eq!(begun_again(&ended), []);
    known.fleet.stop();
}

#[test]
fn an_agent_that_stops_costs_no_more_than_what_it_was_at() {
    let mut known = known();
    let mut run = known.begin(&["--no-cache"]);
    // A runner's answers come together: with the first, all of it may be over.
    run.expect_words(r#""type":"suite-planned""#);
    let [stopped, other] = known.agents.clone();
    known.fleet.signal_agent(&stopped, Signal::STOP);
    let ended = run.end();
    known.fleet.signal_agent(&stopped, Signal::CONT);
    expect_each_test_once(&ended);
    let again = begun_again(&ended);
    assert!(again.contains(&(other, stopped)), "{ended:#?}");
    // It ended before the agent was given up for lost.
    assert_eq!(ended.lines("infrastructure-retry"), [0; 0], "{ended:#?}");
    known.fleet.stop();
}
