//! A coordinator whose cache is smaller than what is built.

use std::path::Path;

use serde_json::Value;

use super::fleet::Fleet;
use super::program::{Ended, regatta, wait_until, write};

/// Makes a MiB of which each number's is another, and looks at it in a second job.
const PIPELINE: &str = r#"
[jobs.make]
inputs = ["number"]
run = "mkdir out && yes $(cat number) | head -c 1048576 > out/data"
outputs = ["out"]

[jobs.check]
needs = ["make"]
inputs = ["number"]
run = "test $(wc -c < out/data) = 1048576 && test $(head -n 1 out/data) = $(cat number)"
"#;
const LIMIT_BYTES: u64 = 4 << 20;

fn run(fleet: &Fleet, project: &Path, number: u32) {
    write(project, &[("number", &format!("{number}\n"))]);
    let ended = Ended::of(fleet.command().arg("run").current_dir(project));
    ended.expect_code(0);
}

/// What `regatta cas` says of the fleet's store, in JSON.
fn cas(fleet: &Fleet, command: &[&str]) -> Value {
    let mut regatta = regatta();
    regatta.arg("cas").args(command).arg("--json");
    let ended = Ended::of(
        regatta
            .arg("--state-dir")
            .arg(fleet.state().join("coordinator")),
    );
    ended.expect_code(0);
    serde_json::from_str(&ended.stdout).expect("JSON")
}

/// The sum of a metric's values.
fn metric(fleet: &Fleet, name: &str) -> f64 {
    let (_, page) = fleet.page("/metrics");
    let lines = page.lines().filter(|line| line.starts_with(name));
    let values = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
    values.sum()
}

#[test]
fn builds_end_well_under_a_tiny_cache_whose_limit_is_held() {
    let options = ["--cache-size", "4MiB", "--cache-keep", "4s"];
    let mut fleet = Fleet::told(&options);
    let project = tempfile::tempdir().expect("a directory");
    write(project.path(), &[("regatta.toml", PIPELINE)]);
    for number in 0..10 {
        run(&fleet, project.path(), number);
    }
    wait_until("something was let go", || {
        metric(&fleet, "regatta_evicted_total") > 0.0
    });
    // What is gone is made again, what is there is served: nothing that is served names what is gone.
    for number in 0..10 {
        run(&fleet, project.path(), number);
        let report = cas(&fleet, &["verify"]);
        assert_eq!(report["good"], true, "{report}");
    }
    let all = |fleet: &Fleet| cas(fleet, &["usage"])["all"].clone();
    let bytes = |fleet: &Fleet| all(fleet)["bytes"].as_u64().expect("a number");
    wait_until("the limit is held", || bytes(&fleet) <= LIMIT_BYTES);
    // Uses outlive the coordinator: nothing is used, so nothing of this changes.
    let before = all(&fleet);
    assert!(
        before["results"]
            .as_u64()
            .is_some_and(|results| results > 0),
        "{before}"
    );
    let address = fleet.url().trim_start_matches("grpc://").to_owned();
    fleet.kill_coordinator();
    fleet.start_coordinator(&address);
    wait_until("the store was listed", || {
        metric(&fleet, "regatta_stored_objects") > 0.0
    });
    assert_eq!(all(&fleet), before);
    run(&fleet, project.path(), 9);
    let repaired = {
        fleet.kill_coordinator();
        cas(&fleet, &["verify", "--repair"])
    };
    assert_eq!(repaired["faults"], serde_json::json!([]), "{repaired}");
    fleet.start_coordinator(&address);
    fleet.stop();
}
