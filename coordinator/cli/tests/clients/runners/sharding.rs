//! Runners that divide their tests as Bazel wants it: GoogleTest's, and scripts.

use super::{check, run};
use crate::fleet::Fleet;
use crate::program::write;
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

#[test]
fn each_shard_is_a_test() {
    let fleet = Fleet::with_image(&bookworm());
    let project = tempfile::tempdir().expect("a directory");
    let files = [
        ("regatta.toml", PIPELINE),
        ("tests.cc", TESTS_CC),
        ("runner.sh", RUNNER),
    ];
    write(project.path(), &files);
    let expected = |passed| {
        [
            ("shard 1 of 5", passed, ""),
            ("shard 2 of 5", "failed", "1 of its 1 tests failed: A.Fails"),
            ("shard 3 of 5", passed, ""),
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
    let again = run(&fleet, &project, &["google", "script", "alone"]);
    check(&again, "google", &expected("cached"));
    check(&again, "script", &script("cached"));
    check(&again, "alone", &[("shard 1 of 1", "cached", "")]);
    fleet.stop();
}
