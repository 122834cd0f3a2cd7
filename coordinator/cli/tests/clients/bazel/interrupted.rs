//! What happens in the middle of a build.

use super::super::calls::CallLog;
use super::super::counters::Counters;
use super::super::fleet::Fleet;
use super::super::program::wait_until;
use super::super::sleepers::sleeps;
use super::{Bazel, Release};

/// Bazel's exit code after Ctrl-C.
const INTERRUPTED: i32 = 8;

/// `ENDLESS_SECONDS` is what the test knows its own action by.
fn ctrl_c_ends_the_build_and_its_actions(release: Release, seconds: &str) {
    let fleet = Fleet::with_image(&release.image());
    let calls = CallLog::of(fleet.url());
    let bazel = Bazel::executing_at(release, calls.address());
    let chosen = format!("--action_env=ENDLESS_SECONDS={seconds}");
    let build = bazel.begin(&["//interrupted:endless", &chosen]);
    wait_until("the endless action runs", || sleeps(seconds));
    bazel.interrupt();
    build.end().expect_code(INTERRUPTED);
    bazel.build(&["//outputs:upper"]).expect_code(0);
    calls.expect(&format!("{}-interrupted", release.name()));
    // Bazel tells nobody: the coordinator gives whoever may come back half a minute.
    wait_until("the endless action is gone", || !sleeps(seconds));
    drop(bazel);
    fleet.stop();
}

#[test]
fn ctrl_c_in_bazel_4_ends_its_actions() {
    ctrl_c_ends_the_build_and_its_actions(Release::Four, "900004");
}

#[test]
fn ctrl_c_in_bazel_7_ends_its_actions() {
    ctrl_c_ends_the_build_and_its_actions(Release::Seven, "900007");
}

fn a_restarted_coordinator_is_a_pause(release: Release) {
    let mut fleet = Fleet::with_image(&release.image());
    let address = fleet.url().trim_start_matches("grpc://").to_owned();
    let bazel = Bazel::executing_at(release, &address);
    let build = bazel.begin(&["//interrupted:slow"]);
    wait_until("two actions are done", || Counters::of(&fleet).leases > 2);
    fleet.kill_coordinator();
    fleet.start_coordinator(&address);
    build.end().expect_code(0);
    assert_eq!(bazel.station.read("bazel-bin/interrupted/slow7.txt"), "7\n");
    drop(bazel);
    fleet.stop();
}

#[test]
fn bazel_4_goes_on_after_a_restart_of_the_coordinator() {
    a_restarted_coordinator_is_a_pause(Release::Four);
}

#[test]
fn bazel_7_goes_on_after_a_restart_of_the_coordinator() {
    a_restarted_coordinator_is_a_pause(Release::Seven);
}
