//! What sets up and cleans up CTest's fixtures: tests like all others, which run with those that require them besides.

use super::ctest::by_ctest_itself;
use super::{check, run, tests};
use crate::fleet::Fleet;
use crate::program::{Ended, write};
use crate::workstation::bookworm;

const PIPELINE: &str = r#"
[jobs.build]
inputs = ["CMakeLists.txt"]
run = "cmake -S . -B build"
outputs = ["build"]

[jobs.check]
needs = ["build"]
timeout = "5s"
suite = { adapter = "ctest" }

[jobs.fast]
needs = ["build"]
suite = { adapter = "ctest", run = ["ctest", "--test-dir", "build", "-L", "fast"] }
"#;
const LISTS: &str = r#"
cmake_minimum_required(VERSION 3.19)
project(fixtures NONE)
enable_testing()
add_test(NAME good_setup COMMAND sh -c "echo data > db")
add_test(NAME reads COMMAND cat db)
add_test(NAME reads_too COMMAND cat db)
add_test(NAME fails COMMAND grep nothing db)
add_test(NAME good_cleanup COMMAND rm db)
set_tests_properties(good_setup PROPERTIES FIXTURES_SETUP db)
set_tests_properties(reads reads_too fails PROPERTIES FIXTURES_REQUIRED db)
set_tests_properties(good_cleanup PROPERTIES FIXTURES_CLEANUP db)
set_tests_properties(reads PROPERTIES LABELS fast)
add_test(NAME nested_setup COMMAND cat db)
add_test(NAME uses_nested COMMAND true)
set_tests_properties(nested_setup PROPERTIES FIXTURES_SETUP nested FIXTURES_REQUIRED db)
set_tests_properties(uses_nested PROPERTIES FIXTURES_REQUIRED nested)
add_test(NAME bad_setup COMMAND false)
add_test(NAME without_it COMMAND true)
add_test(NAME cleans_all_the_same COMMAND true)
set_tests_properties(bad_setup PROPERTIES FIXTURES_SETUP bad)
set_tests_properties(without_it PROPERTIES FIXTURES_REQUIRED bad)
set_tests_properties(cleans_all_the_same PROPERTIES FIXTURES_CLEANUP bad)
add_test(NAME cleaned COMMAND true)
add_test(NAME bad_cleanup COMMAND false)
set_tests_properties(cleaned PROPERTIES FIXTURES_REQUIRED end)
set_tests_properties(bad_cleanup PROPERTIES FIXTURES_CLEANUP end)
add_test(NAME leaves COMMAND sh -c "echo left > left")
add_test(NAME removes COMMAND rm left)
set_tests_properties(leaves PROPERTIES FIXTURES_REQUIRED lone)
set_tests_properties(removes PROPERTIES FIXTURES_CLEANUP lone)
"#;
/// Only what a test leaves keeps the cleanup from what it has to do.
const FILLED_LISTS: &str = r#"
cmake_minimum_required(VERSION 3.19)
project(filled NONE)
enable_testing()
add_test(NAME makes COMMAND mkdir made)
add_test(NAME fills COMMAND touch made/left)
add_test(NAME removes COMMAND rmdir made)
set_tests_properties(makes PROPERTIES FIXTURES_SETUP made)
set_tests_properties(fills PROPERTIES FIXTURES_REQUIRED made)
set_tests_properties(removes PROPERTIES FIXTURES_CLEANUP made)
"#;

/// The pipeline's project, whose tests are these.
fn project(lists: &str) -> tempfile::TempDir {
    let project = tempfile::tempdir().expect("a directory");
    let files = [("regatta.toml", PIPELINE), ("CMakeLists.txt", lists)];
    write(project.path(), &files);
    project
}

#[test]
fn fixtures_are_counted_as_ctest_counts_them() {
    let own = by_ctest_itself(LISTS);
    let fleet = Fleet::with_image(&bookworm());
    let project = project(LISTS);
    let ended: Ended = run(&fleet, &project, &["check"]);
    ended.expect_code(100);
    let message = |test: &str| match test {
        "without_it" => "`bad_setup`, which runs with it for a fixture: Failed",
        _ => "",
    };
    let expected = own.iter();
    let expected: Vec<_> = expected
        .map(|(test, status)| (test.as_str(), *status, message(test)))
        .collect();
    check(&ended, "check", &expected);
    let failed = own.values().filter(|status| **status == "failed").count();
    let counts = &ended.finished()["counts"];
    assert_eq!(counts["planned"], own.len(), "{counts}");
    assert_eq!((failed, &counts["failed"]), (4, &4.into()), "{own:#?}");
    // They are cached as all others are; what ran beside a failure is not.
    let again = run(&fleet, &project, &["check"]);
    let again = tests(&again);
    for test in ["good_setup", "good_cleanup", "nested_setup", "removes"] {
        let (status, _) = &again[&("check".to_owned(), test.to_owned())];
        assert_eq!(status, "cached", "{test}");
    }

    // ctest brings them though they do not have the label.
    let chosen = run(&fleet, &project, &["fast"]);
    chosen.expect_code(0);
    let chosen_ones = ["good_setup", "reads", "good_cleanup"];
    check(&chosen, "fast", &chosen_ones.map(|it| (it, "passed", "")));
    fleet.stop();
}

#[test]
fn what_cannot_clean_up_after_a_test_fails_the_suite() {
    assert_eq!(by_ctest_itself(FILLED_LISTS)["removes"], "failed");
    let fleet = Fleet::with_image(&bookworm());
    let project = project(FILLED_LISTS);
    // A pass of a test that could not be cleaned up after is not remembered: else nobody would complain again.
    for (known, fills) in [("passed", "passed"), ("cached", "passed")] {
        let ended = run(&fleet, &project, &["check"]);
        ended
            .expect_code(100)
            .expect_complaint(&["`removes` failed where it runs with a test for a fixture"]);
        let expected = [
            ("makes", known, ""),
            ("fills", fills, ""),
            ("removes", known, ""),
        ];
        check(&ended, "check", &expected);
    }
    fleet.stop();
}
