//! `regatta rerun`: a run again, or what failed in it.

use super::fleet::Fleet;
use super::pipeline::PIPELINE;
use super::program::{Ended, write};

/// A test for each word, of which `fig` fails.
const SUITE: &str = r#"
if [ "$1" = list ]; then cat out/sorted; exit; fi
{
  echo '<testsuites><testsuite name="words">'
  while read -r id; do
    echo "<testcase name=\"$id\" classname=\"\" time=\"0.01\">"
    if [ "$id" = fig ]; then echo '<failure message="it is a fig"/>'; fi
    echo '</testcase>'
  done < "${2#@}"
  echo '</testsuite></testsuites>'
} > junit.xml
"#;

#[test]
fn what_failed_runs_again_with_the_files_that_it_had() {
    let fleet = Fleet::of(1);
    let project = tempfile::tempdir().expect("a directory");
    let pipeline = format!("[jobs.lint]\nrun = 'true'\n{PIPELINE}");
    let files = [
        ("regatta.toml", pipeline.as_str()),
        ("suite.sh", SUITE),
        ("words", "pear\napple\nfig\n"),
    ];
    write(project.path(), &files);
    let run = |arguments: &[&str]| {
        let mut command = fleet.command();
        command.current_dir(project.path());
        Ended::of(command.args(["--message-format", "json"]).args(arguments))
    };
    let id = |ended: &Ended| {
        let submitted = &ended.lines("run-submitted")[0];
        submitted["run_id"].as_str().expect("a text").to_owned()
    };
    let counts = |ended: &Ended| {
        let counts = &ended.finished()["counts"];
        ["planned", "failed", "cached"].map(|kind| counts[kind].as_u64().unwrap_or_default())
    };
    let first = run(&["run"]);
    first.expect_code(100);
    assert_eq!(counts(&first), [3, 1, 0]);

    // Whatever is here by now.
    write(project.path(), &[("words", ""), ("suite.sh", "exit 7")]);
    let again = run(&["rerun", "--failed", &id(&first)]);
    again.expect_code(100);
    assert_eq!(counts(&again), [1, 1, 0]);
    let jobs = again.lines("job-finished");
    let jobs: Vec<_> = jobs.iter().filter_map(|job| job["job"].as_str()).collect();
    assert_eq!(jobs, ["build", "check"], "lint had passed: {again:#?}");
    let whole = run(&["rerun", &id(&first)]);
    whole.expect_code(100);
    assert_eq!(counts(&whole), [3, 1, 2]);

    write(project.path(), &[("words", "pear\n"), ("suite.sh", SUITE)]);
    let good = run(&["run"]);
    good.expect_code(0);
    run(&["rerun", "--failed", &id(&good)])
        .expect_code(4)
        .expect_complaint(&["nothing of run", "failed"]);
    run(&["rerun", &"0".repeat(32)]).expect_complaint(&["no run"]);
    fleet.stop();
}
