//! A suite of fifty thousand tests.

use std::process::Command;
use std::time::Instant;

use super::fleet::Fleet;
use super::program::{Ended, regatta, write};

const SHORT: u64 = 49_900;
/// Tests whose ids have ten thousand characters and more.
const LONG: u64 = 100;
const TESTS: u64 = SHORT + LONG;
/// The most that the coordinator, or the agent, may have resident at any time.
const MOST_RESIDENT_BYTES: u64 = 768 << 20;
/// The most that the client may have for itself.
const MOST_CLIENT_KIB: u64 = 512 << 10;

const PIPELINE: &str = r#"
[jobs.large]
inputs = ["suite.sh"]
[jobs.large.suite]
discover = ["sh", "suite.sh", "list"]
run = ["sh", "suite.sh", "run"]
junit = "junit.xml"
"#;

fn suite() -> String {
    format!(
        r#"
if [ "$1" = list ]; then
  seq 1 {SHORT} | sed 's|.*|dir/tëst_&.py::test[&-日本 é]|'
  long=$(head -c 10000 /dev/zero | tr '\0' x)
  seq 1 {LONG} | sed "s|^|$long|"
  exit
fi
{{
  echo '<testsuites><testsuite name="large">'
  sed 's|.*|<testcase name="&" classname="" time="0.001"/>|' "${{2#@}}"
  echo '</testsuite></testsuites>'
}} > junit.xml
"#
    )
}

/// `regatta` for a fleet, with no more memory than it may have.
fn bounded_client(fleet: &Fleet) -> Command {
    let mut command = Command::new("sh");
    let script = format!("ulimit -d {MOST_CLIENT_KIB} && exec \"$@\"");
    command.args(["-c", &script, "sh"]);
    command.arg(regatta().get_program());
    for (name, value) in regatta().get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.args(["--coordinator", fleet.url()]);
    command
}

#[test]
fn fifty_thousand_tests_are_run_and_then_known() {
    let fleet = Fleet::of(1);
    let project = tempfile::tempdir().expect("a directory");
    let files = [("regatta.toml", PIPELINE), ("suite.sh", &suite())];
    write(project.path(), &files);
    let run = || {
        let mut command = bounded_client(&fleet);
        command.args(["--message-format", "json", "run", "--junit", "report.xml"]);
        let begun = Instant::now();
        let ended = Ended::of(command.current_dir(project.path()));
        let took = begun.elapsed();
        let last = ended.stdout.lines().last().unwrap_or_default().to_owned();
        assert_eq!(ended.code, Some(0), "{last}\n{}", ended.stderr);
        let last: serde_json::Value = serde_json::from_str(&last).expect("JSON");
        let tests = ended.stdout.matches("\"type\":\"test\"").count();
        (last, tests, took)
    };
    for counted in ["passed", "cached"] {
        let (finished, tests, took) = run();
        let counts = &finished["counts"];
        let counts = (counts["planned"].as_u64(), counts[counted].as_u64());
        assert_eq!(counts, (Some(TESTS), Some(TESTS)), "{finished}");
        assert_eq!(u64::try_from(tests), Ok(TESTS), "each is told once");
        println!("{counted} after {took:?}");
    }
    let report = std::fs::read_to_string(project.path().join("report.xml")).expect("JUnit");
    assert_eq!(report.matches("<testcase ").count() as u64, TESTS);
    let resident = fleet.peak_memory_bytes();
    println!("at most {} MiB resident", resident >> 20);
    assert!(resident < MOST_RESIDENT_BYTES, "{} MiB", resident >> 20);
    fleet.stop();
}
