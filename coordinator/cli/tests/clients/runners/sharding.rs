//! Runners that divide their tests as Bazel wants it: GoogleTest's, and scripts.

use super::{check, run, tests};
use crate::fleet::Fleet;
use crate::program::{Ended, write};
use crate::workstation::bookworm;

const PIPELINE: &str = r#"
[jobs.build]
inputs = ["tests.cc"]
run = ["g++", "tests.cc", "-o", "tests", "-lgtest", "-lgtest_main"]
outputs = ["tests"]

[jobs.google]
needs = ["build"]
timeout = "10s"
suite = { adapter = "bazel-sharding", shards = 5, run = ["./tests"] }

[jobs.script]
inputs = ["runner.sh"]
suite = { adapter = "bazel-sharding", shards = 2, run = ["sh", "runner.sh"], filters = ["shard"] }

[jobs.same]
inputs = ["same.sh"]
suite = { adapter = "bazel-sharding", shards = 2, run = ["sh", "same.sh"] }

[jobs.ignorant]
suite = { adapter = "bazel-sharding", shards = 2, run = "true" }

[jobs.alone]
suite = { adapter = "bazel-sharding", shards = 1, run = "true" }
"#;
// GoogleTest gives each shard every fifth test, of which its report speaks alone.
const TESTS_CC: &str = r#"
#include <gtest/gtest.h>
#include <cstdlib>
#include <unistd.h>
TEST(A, Holds) {}
TEST(A, Fails) { EXPECT_EQ(3, 1 + 1) << "the reason"; }
TEST(A, Skips) { GTEST_SKIP(); }
TEST(A, Hangs) { for (;;) pause(); }
TEST(A, Aborts) { std::abort(); }
TEST(A, HoldsToo) {}
"#;
const RUNNER: &str = r#"
touch "$TEST_SHARD_STATUS_FILE"
echo "this is $TEST_SHARD_INDEX of $TEST_TOTAL_SHARDS"
test "$TEST_SHARD_INDEX" = 0 && exit 0
echo '<testsuite><testcase classname="é" name="x"><failure/></testcase><testcase name="y"/></testsuite>' \
    > "$XML_OUTPUT_FILE"
exit 3
"#;

/// It says that it divides its tests, and does not.
const SAME: &str = r#"
touch "$TEST_SHARD_STATUS_FILE"
echo '<testsuite><testcase classname="c" name="x"/></testsuite>' > "$XML_OUTPUT_FILE"
"#;

#[track_caller]
fn expect_one_to_be_told_twice(ended: &Ended, other: &str) {
    let tests = tests(ended);
    let of_job = tests.iter().filter(|((job, _), _)| job == "same");
    let mut ends: Vec<_> = of_job.map(|(_, end)| end.clone()).collect();
    ends.sort_by_key(|(status, _)| status != "failed");
    let statuses: Vec<_> = ends.iter().map(|(status, _)| status.as_str()).collect();
    assert_eq!(statuses, ["failed", other], "{ended:#?}");
    assert!(ends[0].1.contains("`c.x` is reported twice"), "{ends:#?}");
}

#[test]
fn each_shard_is_a_test() {
    let fleet = Fleet::with_image(&bookworm());
    let project = tempfile::tempdir().expect("a directory");
    let files = [
        ("regatta.toml", PIPELINE),
        ("tests.cc", TESTS_CC),
        ("runner.sh", RUNNER),
        ("same.sh", SAME),
    ];
    write(project.path(), &files);
    let expected = |passed| {
        [
            ("shard 1 of 5", passed, ""),
            ("shard 2 of 5", "failed", "1 of its 1 tests failed: A.Fails"),
            ("shard 3 of 5", "skipped", "all 1 tests in it were skipped"),
            ("shard 4 of 5", "failed", ""),
            ("shard 5 of 5", "failed", ""),
        ]
    };
    let script = |passed| {
        [
            ("shard 1 of 2", passed, ""),
            ("shard 2 of 2", "failed", "1 of its 2 tests failed: é.x"),
        ]
    };
    let ended = run(&fleet, &project, &[]);
    ended
        .expect_code(100)
        .expect_complaint(&["the reason", "this is 1 of 2"]);
    check(&ended, "google", &expected("passed"));
    check(&ended, "script", &script("passed"));
    let ignorant = "did not touch TEST_SHARD_STATUS_FILE";
    let ignorant = ["shard 1 of 2", "shard 2 of 2"].map(|id| (id, "failed", ignorant));
    check(&ended, "ignorant", &ignorant);
    check(&ended, "alone", &[("shard 1 of 1", "passed", "")]);
    expect_one_to_be_told_twice(&ended, "passed");
    // One is known to have passed then, and so is what it reported.
    let again = run(&fleet, &project, &["same"]);
    expect_one_to_be_told_twice(&again, "cached");
    let again = run(&fleet, &project, &["google", "script", "alone"]);
    check(&again, "google", &expected("cached"));
    check(&again, "script", &script("cached"));
    check(&again, "alone", &[("shard 1 of 1", "cached", "")]);
    fleet.stop();
}
