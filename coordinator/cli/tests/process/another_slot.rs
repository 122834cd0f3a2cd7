//! What failed is tried again in another slot than that in which it failed.

use std::path::Path;
use std::time::{Duration, Instant};

use super::fleet::Fleet;
use super::program::Ended;
use super::shared_project::SharedProject;

/// Few, for all are tried again one after the other, within the time for which other slots are waited for.
const TESTS: usize = 4;

/// Each test fails in the slot in which it runs first, whichever that is: slots have mount namespaces of their own. With
/// `once` it fails only when it runs first.
fn suite(directory: &Path) -> String {
    format!(
        r#"
if [ "$1" = list ]; then seq 1 {TESTS} | sed 's/^/test-/'; exit; fi
slot=$(readlink /proc/self/ns/mnt)
{{
  echo '<testsuites><testsuite name="check">'
  while read -r id; do
    echo "<testcase name=\"$id\" classname=\"\" time=\"0.01\">"
    first={directory}/$id
    if [ ! -e "$first" ]; then
      echo "$slot" > "$first"
      echo '<failure message="it is the first time"/>'
    elif [ "$1" != once ] && [ "$(cat "$first")" = "$slot" ]; then
      echo '<failure message="this is where it failed"/>'
    fi
    echo '</testcase>'
  done < "${{2#@}}"
  echo '</testsuite></testsuites>'
}} > junit.xml
! grep -q '<failure' junit.xml
"#,
        directory = directory.display()
    )
}

fn pipeline(how: &str) -> String {
    format!(
        r#"
[jobs.check]
inputs = ["suite.sh"]
retry = 1
[jobs.check.suite]
discover = ["sh", "suite.sh", "list"]
run = ["sh", "suite.sh", "{how}"]
junit = "junit.xml"
"#
    )
}

/// Runs the suite; each test is to be flaky.
fn run(fleet: &Fleet, how: &str) -> Ended {
    let project = SharedProject::new(&pipeline(how), suite);
    let ended = project.told(fleet, &["run"]);
    ended.expect_code(0);
    assert_eq!(ended.finished()["counts"]["flaky"], TESTS, "{ended:#?}");
    ended
}

/// Where each test was tried first, and where then; agents and slots.
fn places(ended: &Ended) -> Vec<[(String, u64); 2]> {
    let place = |line: &serde_json::Value| {
        let agent = line["agent"].as_str().expect("an agent").to_owned();
        (agent, line["slot"].as_u64().expect("a slot"))
    };
    let retried = ended.lines("test-retried");
    let tests = ended.lines("test");
    let places = tests.iter().map(|test| {
        let mut first = retried.iter().filter(|line| line["test"] == test["test"]);
        let first = first.next().expect("it was tried again");
        [place(first), place(test)]
    });
    places.collect()
}

#[test]
fn a_failed_test_is_tried_again_in_another_slot_of_its_agent() {
    let fleet = Fleet::of(1);
    let ended = run(&fleet, "twice");
    let places = places(&ended);
    assert_eq!(places.len(), TESTS, "{ended:#?}");
    for [first, second] in places {
        assert_eq!(first.0, second.0);
        assert_ne!(first.1, second.1, "{ended:#?}");
    }
    fleet.stop();
}

#[test]
fn a_failed_test_is_tried_again_on_another_agent() {
    let mut fleet = Fleet::coordinator();
    for _ in 0..2 {
        fleet.add_agent(&["--slots", "1"]);
    }
    let ended = run(&fleet, "twice");
    for [first, second] in places(&ended) {
        assert_ne!(first.0, second.0, "{ended:#?}");
    }
    fleet.stop();
}

#[test]
fn a_fleet_of_one_slot_tries_again_at_once() {
    let mut fleet = Fleet::coordinator();
    fleet.add_agent(&["--slots", "1"]);
    let begun = Instant::now();
    let ended = run(&fleet, "once");
    // As long as another slot would have been waited for.
    let waited = Duration::from_secs(30);
    assert!(begun.elapsed() < waited, "{:?}", begun.elapsed());
    for [first, second] in places(&ended) {
        assert_eq!(first, second, "there is no other");
    }
    fleet.stop();
}
