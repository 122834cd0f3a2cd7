//! Tests that fail, take too long, or pass at the second attempt.

use std::time::{SystemTime, UNIX_EPOCH};

use super::super::counters::Counters;
use super::super::fleet::Fleet;
use super::{Bazel, Release};

/// Bazel's exit code when a test failed.
const TESTS_FAILED: i32 = 3;
/// From when the flaky test's second attempt may pass; the first begins well before.
const FLAKY_SECONDS: u64 = 10;

fn failed_tests_keep_their_output(release: Release) {
    let fleet = Fleet::with_image(&release.image());
    let bazel = Bazel::executing_at(release, fleet.url().trim_start_matches("grpc://"));
    let failing = bazel.test(&["//tests:failing"]);
    failing.expect_code(TESTS_FAILED);
    assert!(
        failing.stdout.contains("this is why it fails"),
        "{failing:#?}"
    );

    let endless = bazel.test(&["//tests:endless", "--test_timeout=2"]);
    endless.expect_code(TESTS_FAILED);
    assert!(endless.stdout.contains("TIMEOUT"), "{endless:#?}");
    let log = bazel.station.read("bazel-testlogs/tests/endless/test.log");
    assert!(log.contains("this is what it said before"), "{log}");

    // What failed is not cached: it runs once more.
    let before = Counters::of(&fleet);
    bazel.test(&["//tests:failing"]).expect_code(TESTS_FAILED);
    assert!(Counters::of(&fleet).since(before).leases > 0);
    expect_flaky(&bazel);
    drop(bazel);
    fleet.stop();
}

#[track_caller]
fn expect_flaky(bazel: &Bazel) {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock");
    let deadline = now.as_secs() + FLAKY_SECONDS;
    let file = bazel.station.workspace().join("tests/deadline.txt");
    std::fs::write(file, format!("{deadline}\n")).expect("the deadline is written");
    let flaky = bazel.test(&["//tests:flaky", "--flaky_test_attempts=2"]);
    flaky.expect_code(0);
    assert!(
        flaky.stdout.contains("FLAKY, failed in 1 out of 2"),
        "{flaky:#?}"
    );
}

#[test]
fn bazel_4_shows_why_tests_failed() {
    failed_tests_keep_their_output(Release::Four);
}

#[test]
fn bazel_7_shows_why_tests_failed() {
    failed_tests_keep_their_output(Release::Seven);
}
