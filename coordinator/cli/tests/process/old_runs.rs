//! A coordinator that keeps runs for some seconds.

use std::path::Path;

use serde_json::Value;

use super::fleet::Fleet;
use super::program::{Ended, wait_until, write};

const PIPELINE: &str = "[jobs.make]\nrun = 'echo made; exit 3'\n";

fn regatta(fleet: &Fleet, project: &Path, arguments: &[&str]) -> Ended {
    let mut command = fleet.command();
    Ended::of(command.current_dir(project).args(arguments))
}

/// Runs the pipeline, which fails. The run's id.
fn run(fleet: &Fleet, project: &Path) -> String {
    let ended = regatta(fleet, project, &["--message-format", "json", "run"]);
    ended.expect_code(101);
    let submitted = &ended.lines("run-submitted")[0];
    submitted["run_id"].as_str().expect("a text").to_owned()
}

fn counted(fleet: &Fleet, project: &Path) -> u64 {
    let history = regatta(fleet, project, &["history", "--format", "json"]);
    history.expect_code(0);
    let history: Value = serde_json::from_str(&history.stdout).expect("is JSON");
    history["runs"]["ended"].as_u64().expect("a number")
}

#[test]
fn a_run_that_is_kept_no_longer_is_said_to_be_so() {
    let mut fleet = Fleet::told(&["--keep-runs", "2s"]);
    let project = tempfile::tempdir().expect("a directory");
    write(project.path(), &[("regatta.toml", PIPELINE)]);
    let gone = run(&fleet, project.path());
    wait_until("the run is let go", || counted(&fleet, project.path()) == 0);
    // The next start goes on with what is left, and takes nothing up.
    fleet.kill_coordinator();
    // It knows the name for as long as it keeps runs.
    fleet.tell(&["--keep-runs", "1h"]);
    let address = fleet.url().replacen("grpc://", "", 1);
    fleet.start_coordinator(&address);
    let listed = regatta(&fleet, project.path(), &["ps", "--all"]);
    assert!(!listed.stdout.contains(&gone), "{listed:?}");
    let questions: [&[&str]; 4] = [
        &["logs", &gone],
        &["rerun", &gone],
        &["rerun", "--failed", &gone],
        &["cancel", &gone],
    ];
    for question in questions {
        let ended = regatta(&fleet, project.path(), question);
        assert_ne!(ended.code, Some(0), "{ended:?}");
        ended.expect_complaint(&[&gone, "no longer kept", "--keep-runs"]);
    }
    let verdict = regatta(&fleet, project.path(), &["verdict", "--run", &gone]);
    verdict.expect_code(2);
    let said = format!("{}{}", verdict.stdout, verdict.stderr);
    assert!(said.contains("no longer kept"), "{verdict:?}");
    fleet.stop();
}
