//! A coordinator and an agent whose disks are full.

use super::fleet::Fleet;
use super::program::{Ended, Running, wait_until, write};
use super::small_disk::SmallDisk;

/// Talks for as long as it takes until the ledger has failed for so long that it is told.
const BRIEF_TALKER: &str = "[jobs.talk]\n\
    run = 'end=$(($(date +%s) + 25)); while test $(date +%s) -lt $end; do echo and so on; sleep 0.01; done'\n";

/// What whoever watches a run is told while the ledger has no room.
const NOT_DURABLE: &str = "nothing more of the run can be stored";

#[test]
fn runs_of_a_coordinator_without_room_wait_say_so_and_go_on() {
    let mut disk = None;
    let mut fleet = Fleet::prepared(|state| {
        disk = Some(SmallDisk::mount(&state.join("coordinator")));
    });
    let disk = disk.expect("it was mounted");
    fleet.add_agent(&[]);
    let project = tempfile::tempdir().expect("a directory");
    write(project.path(), &[("regatta.toml", BRIEF_TALKER)]);
    let mut run = fleet.command();
    run.args(["--message-format", "json", "run"])
        .current_dir(project.path());
    let mut running = Running::begin(&mut run);
    running.expect_words(r#""type":"output""#);
    disk.fill();
    running.expect_words(NOT_DURABLE);
    let (status, page) = fleet.page("/readyz");
    assert_eq!(status, 503, "{page}");
    assert!(fleet.log_of("coordinator").contains("could not be stored"));
    let mut refused = Running::begin(fleet.command().args(["exec", "--", "true"]));
    refused.expect_words("it is submitted again");
    disk.make_room();
    let ended = running.end();
    let last = ended.expect_code(0).finished();
    assert_eq!(last["verdict"], "RELEASABLE", "{last}");
    ended.expect_complaint(&["disk is full"]);
    wait_until("it is ready again", || fleet.page("/readyz").0 == 200);
    let accepted = refused.end();
    accepted.expect_code(0).expect_complaint(&["full"]);
    let listed = Ended::of(fleet.command().args(["ps", "--all", "--format", "json"]));
    assert!(listed.stdout.contains("RELEASABLE"), "{listed:#?}");
    drop(disk);
    fleet.kill_coordinator();
    fleet.stop();
}

#[test]
fn a_coordinator_without_room_that_is_killed_has_shown_no_end_and_goes_on() {
    let mut disk = None;
    let mut fleet = Fleet::prepared(|state| {
        disk = Some(SmallDisk::mount(&state.join("coordinator")));
    });
    let disk = disk.expect("it was mounted");
    let address = fleet.url().trim_start_matches("grpc://").to_owned();
    fleet.add_agent(&[]);
    let project = tempfile::tempdir().expect("a directory");
    write(project.path(), &[("regatta.toml", BRIEF_TALKER)]);
    let mut run = fleet.command();
    run.args(["--message-format", "json", "run"])
        .current_dir(project.path());
    let mut running = Running::begin(&mut run);
    running.expect_words(r#""type":"output""#);
    disk.fill();
    running.expect_words(NOT_DURABLE);
    fleet.kill_coordinator();
    disk.make_room();
    fleet.start_coordinator(&address);
    running.expect_words(r#""type":"run-resumed""#);
    let ended = running.end();
    let last = ended.expect_code(0).finished();
    assert_eq!(last["verdict"], "RELEASABLE", "{last}");
    assert_eq!(ended.lines("run-finished").len(), 1, "{ended:#?}");
    drop(disk);
    fleet.kill_coordinator();
    fleet.stop();
}

#[test]
fn an_agent_without_room_takes_nothing_new_and_comes_back() {
    let mut disk = None;
    let mut fleet = Fleet::coordinator();
    let options = ["--minimum-free", "8MiB", "--cache-quota", "4MiB"];
    let agent = fleet.add_prepared_agent(&options, |state| {
        disk = Some(SmallDisk::mount(state));
    });
    let disk = disk.expect("it was mounted");
    let state = |fleet: &Fleet| fleet.agent(&agent).expect("it is known")["state"].clone();
    Ended::of(fleet.command().args(["exec", "--", "true"])).expect_code(0);
    disk.fill();
    wait_until("it says why it takes nothing", || {
        let said = state(&fleet);
        said.as_str().is_some_and(|said| said.contains("disk full"))
    });
    disk.make_room();
    wait_until("it takes work again", || state(&fleet) == "ready");
    Ended::of(fleet.command().args(["exec", "--", "echo", "again"])).expect_code(0);
    drop(disk);
    fleet.stop();
}
