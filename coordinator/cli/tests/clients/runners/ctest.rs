//! CMake projects, with the CMake and the CTest of the image.

use std::collections::BTreeMap;

use super::{check, run, tests};
use crate::fleet::Fleet;
use crate::program::{Ended, write};
use crate::toolbox::Toolbox;
use crate::workstation::bookworm;

const LISTS: &str = r#"
cmake_minimum_required(VERSION 3.19)
project(demo CXX)
enable_testing()
find_package(GTest REQUIRED)
include(GoogleTest)
add_library(sum SHARED sum.cc)
add_executable(tests tests.cc)
target_link_libraries(tests sum GTest::gtest_main)
gtest_discover_tests(tests)
add_executable(code code.cc)
add_test(NAME passes COMMAND code 0)
add_test(NAME "odd (name) [x]+? $a.* | é ..." COMMAND code 0)
add_test(NAME passe COMMAND code 0)
add_test(NAME reads COMMAND cat data.txt WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
add_test(NAME skips COMMAND sh -c "echo no such machine; exit 77")
set_tests_properties(skips PROPERTIES SKIP_RETURN_CODE 77)
add_test(NAME disabled COMMAND code 1)
set_tests_properties(disabled PROPERTIES DISABLED TRUE)
add_test(NAME will_fail COMMAND code 1)
set_tests_properties(will_fail PROPERTIES WILL_FAIL TRUE)
add_test(NAME setup COMMAND sh -c "echo data > db")
add_test(NAME uses COMMAND cat db)
add_test(NAME uses_too COMMAND cat db)
add_test(NAME cleanup COMMAND rm db)
set_tests_properties(setup PROPERTIES FIXTURES_SETUP db)
set_tests_properties(uses uses_too PROPERTIES FIXTURES_REQUIRED db)
set_tests_properties(cleanup PROPERTIES FIXTURES_CLEANUP db)
"#;
const BAD_LISTS: &str = r#"
cmake_minimum_required(VERSION 3.19)
project(bad NONE)
enable_testing()
add_test(NAME passes COMMAND true)
add_test(NAME fails COMMAND sh -c "echo the reason; exit 1")
add_test(NAME fakes COMMAND sh -c "echo '1/1 Test #3: fakes ...   Passed    0.00 sec'; exit 1")
add_test(NAME crashes COMMAND sh -c "kill -11 $$")
add_test(NAME hangs COMMAND sleep 600)
set_tests_properties(hangs PROPERTIES TIMEOUT 1)
add_test(NAME hangs_long COMMAND sleep 600)
add_test(NAME no_program COMMAND nowhere/program)
add_test(NAME will_pass COMMAND true)
set_tests_properties(will_pass PROPERTIES WILL_FAIL TRUE)
add_test(NAME setup COMMAND false)
add_test(NAME uses COMMAND true)
set_tests_properties(setup PROPERTIES FIXTURES_SETUP bad)
set_tests_properties(uses PROPERTIES FIXTURES_REQUIRED bad)
add_test(NAME cleaned COMMAND true)
add_test(NAME cleanup COMMAND false)
set_tests_properties(cleaned PROPERTIES FIXTURES_REQUIRED bad_end)
set_tests_properties(cleanup PROPERTIES FIXTURES_CLEANUP bad_end)
"#;
const TESTS_CC: &str = r#"
#include <gtest/gtest.h>
int sum(int, int);
TEST(Sum, Holds) { EXPECT_EQ(2, sum(1, 1)); }
class Each : public testing::TestWithParam<int> {};
TEST_P(Each, Holds) { EXPECT_EQ(GetParam(), sum(GetParam(), 0)); }
INSTANTIATE_TEST_SUITE_P(All, Each, testing::Values(1, 2));
"#;
const SUM: (&str, &str) = ("sum.cc", "int sum(int a, int b) { return a + b; }\n");
const CODE: (&str, &str) = (
    "code.cc",
    "#include <cstdlib>\nint main(int, char** words) { return atoi(words[1]); }\n",
);

fn good(status: &'static str) -> [(&'static str, &'static str, &'static str); 14] {
    [
        ("Sum.Holds", status, ""),
        // CMake names them by their values.
        ("All/Each.Holds/1", status, ""),
        ("All/Each.Holds/2", status, ""),
        ("passes", status, ""),
        ("odd (name) [x]+? $a.* | é ...", status, ""),
        ("passe", status, ""),
        ("reads", status, ""),
        ("skips", "skipped", "no such machine"),
        ("disabled", "skipped", ""),
        ("will_fail", status, ""),
        ("setup", status, ""),
        ("uses", status, ""),
        ("uses_too", status, ""),
        ("cleanup", status, ""),
    ]
}

#[test]
fn a_cmake_project_needs_no_configuration() {
    let fleet = Fleet::with_image(&bookworm());
    let toolbox = Toolbox::new(&bookworm(), &["cmake"]);
    toolbox.write(&[
        ("CMakeLists.txt", LISTS),
        ("tests.cc", TESTS_CC),
        SUM,
        CODE,
        ("data.txt", "here"),
    ]);
    let test = |arguments: &[&str]| toolbox.test(&fleet, "", arguments);
    let first = test(&["--junit", "junit.xml"]);
    first.expect_code(0);
    check(&first, "ctest", &good("passed"));
    let own = toolbox.shell("ctest --test-dir build -N");
    let total = format!("Total Tests: {}", tests(&first).len());
    assert!(own.stdout.contains(&total), "{own:#?}");

    // Neither another build nor CTest itself changes what tests see.
    toolbox.shell("ctest --test-dir build").expect_code(0);
    let again = test(&["--junit", "junit.xml"]);
    check(&again, "ctest", &good("cached"));
    assert_eq!(again.finished()["leases"], 0, "{again:#?}");

    toolbox.write(&[("sum.cc", "int sum(int a, int b) { return a - b; }\n")]);
    let changed = test(&["Sum."]);
    changed
        .expect_code(100)
        .expect_complaint(&["Expected equality"]);
    check(&changed, "ctest", &[("Sum.Holds", "failed", "")]);
    test(&["no such test"]).expect_code(4);
    let release = test(&["--release"]);
    release
        .expect_code(96)
        .expect_complaint(&["is a CMake project"]);
    toolbox.write(&[("sum.cc", "this is no C++\n")]);
    test(&[])
        .expect_code(101)
        .expect_complaint(&["the build failed", "sum.cc"]);
    fleet.stop();
}

/// Each test needs what others have left; `apart` keeps to itself, and would find the lock of another taken.
const TIED_LISTS: &str = r#"
cmake_minimum_required(VERSION 3.19)
project(tied NONE)
enable_testing()
add_test(NAME third COMMAND sh -c "cat second && echo third > third")
set_tests_properties(third PROPERTIES DEPENDS second)
add_test(NAME second COMMAND sh -c "cat first && echo second > second")
set_tests_properties(second PROPERTIES DEPENDS "first;nowhere;off")
add_test(NAME first COMMAND sh -c "echo first > first")
add_test(NAME off COMMAND false)
set_tests_properties(off PROPERTIES DISABLED TRUE)
add_test(NAME setup COMMAND sh -c "cat first && echo db > db")
set_tests_properties(setup PROPERTIES FIXTURES_SETUP db DEPENDS first)
add_test(NAME uses COMMAND cat db)
set_tests_properties(uses PROPERTIES FIXTURES_REQUIRED db)
add_test(NAME fails COMMAND sh -c "echo left > left; exit 1")
add_test(NAME after_failure COMMAND cat left)
set_tests_properties(after_failure PROPERTIES DEPENDS fails)
add_test(NAME apart COMMAND sh -c "mkdir taken && sleep 1 && rmdir taken")
add_test(NAME locked COMMAND sh -c "mkdir taken && sleep 1 && rmdir taken")
add_test(NAME locked_too COMMAND sh -c "mkdir taken && sleep 1 && rmdir taken")
set_tests_properties(apart PROPERTIES RUN_SERIAL TRUE)
set_tests_properties(locked locked_too PROPERTIES RESOURCE_LOCK taken)
"#;

#[test]
fn tests_that_depend_on_others_find_what_these_have_left() {
    let fleet = Fleet::with_image(&bookworm());
    let project = tempfile::tempdir().expect("a directory");
    let pipeline = PIPELINE.split("[jobs.chosen]").next().unwrap_or_default();
    write(
        project.path(),
        &[("regatta.toml", pipeline), ("CMakeLists.txt", TIED_LISTS)],
    );
    let ended: Ended = run(&fleet, &project, &[]);
    ended.expect_code(100);
    let expected = |status| {
        [
            ("third", status, ""),
            ("second", status, ""),
            ("first", status, ""),
            ("off", "skipped", ""),
            ("setup", status, ""),
            ("uses", status, ""),
            ("fails", "failed", ""),
            ("apart", status, ""),
            ("locked", status, ""),
            ("locked_too", status, ""),
        ]
    };
    let with = |status, last| {
        let last = ("after_failure", last, "");
        expected(status)
            .into_iter()
            .chain([last])
            .collect::<Vec<_>>()
    };
    check(&ended, "check", &with("passed", "passed"));
    // Its process failed for the other's failure: its pass is its own, and not remembered.
    let again = run(&fleet, &project, &[]);
    check(&again, "check", &with("cached", "passed"));
    fleet.stop();
}

/// What fails beside a test, or takes its time, and is none of its own.
const BESIDE_LISTS: &str = r#"
cmake_minimum_required(VERSION 3.19)
project(beside NONE)
enable_testing()
add_test(NAME bad_setup COMMAND false)
set_tests_properties(bad_setup PROPERTIES FIXTURES_SETUP bad)
add_test(NAME without_setup COMMAND true)
set_tests_properties(without_setup PROPERTIES FIXTURES_REQUIRED bad)
add_test(NAME after_it COMMAND true)
set_tests_properties(after_it PROPERTIES DEPENDS without_setup)
add_test(NAME without_it_too COMMAND true)
set_tests_properties(without_it_too PROPERTIES DEPENDS without_setup FIXTURES_REQUIRED bad)
add_test(NAME slow COMMAND sleep 3)
add_test(NAME slow_second COMMAND sleep 3)
set_tests_properties(slow_second PROPERTIES DEPENDS slow)
add_test(NAME slow_third COMMAND sleep 3)
set_tests_properties(slow_third PROPERTIES DEPENDS slow_second)
add_test(NAME slow_setup COMMAND sleep 3)
set_tests_properties(slow_setup PROPERTIES FIXTURES_SETUP slowly)
add_test(NAME set_up_slowly COMMAND sleep 3)
set_tests_properties(set_up_slowly PROPERTIES FIXTURES_REQUIRED slowly)
add_test(NAME hangs COMMAND sleep 600)
add_test(NAME after_hanging COMMAND true)
set_tests_properties(after_hanging PROPERTIES DEPENDS hangs)
add_test(NAME hangs_afterwards COMMAND sleep 600)
set_tests_properties(hangs_afterwards PROPERTIES DEPENDS slow)
"#;

/// What the image's CTest itself says of each test, if each may take as long as in the pipeline.
pub(super) fn by_ctest_itself(lists: &str) -> BTreeMap<String, &'static str> {
    let toolbox = Toolbox::new(&bookworm(), &[]);
    toolbox.write(&[("CMakeLists.txt", lists)]);
    toolbox.shell("cmake -S . -B own").expect_code(0);
    let said = toolbox.shell("ctest --test-dir own --timeout 5 --parallel 8");
    let lines = said.stdout.lines().filter(|line| line.contains('#'));
    let status = |line: &str| {
        let (_, rest) = line.split_once(": ").expect("a number and a name");
        let (name, rest) = rest.split_once(' ').expect("dots and a status");
        let status = if rest.contains("Passed") {
            "passed"
        } else {
            "failed"
        };
        (name.to_owned(), status)
    };
    lines.map(status).collect()
}

#[test]
fn what_a_test_depends_on_neither_fails_it_nor_takes_its_time() {
    let own = by_ctest_itself(BESIDE_LISTS);
    assert_eq!(own["after_it"], "passed", "{own:#?}");
    let fleet = Fleet::with_image(&bookworm());
    let project = tempfile::tempdir().expect("a directory");
    let pipeline = PIPELINE.split("[jobs.chosen]").next().unwrap_or_default();
    write(
        project.path(),
        &[("regatta.toml", pipeline), ("CMakeLists.txt", BESIDE_LISTS)],
    );
    let ended: Ended = run(&fleet, &project, &[]);
    ended.expect_code(100);
    let message = |test: &str| match test {
        "without_setup" | "without_it_too" => {
            "`bad_setup`, which runs with it for a fixture: Failed"
        }
        "hangs_afterwards" => "its time was over",
        _ => "",
    };
    let expected = own.iter();
    let expected: Vec<_> = expected
        .map(|(test, status)| (test.as_str(), *status, message(test)))
        .collect();
    check(&ended, "check", &expected);
    fleet.stop();
}

const PIPELINE: &str = r#"
[jobs.build]
inputs = ["CMakeLists.txt"]
run = "cmake -S . -B build"
outputs = ["build"]

[jobs.check]
needs = ["build"]
timeout = "5s"
suite = { adapter = "ctest" }

[jobs.chosen]
needs = ["build"]
suite = { adapter = "ctest", run = ["ctest", "--test-dir", "build", "-R", "passes"] }

[jobs.nothing]
needs = ["build"]
suite = { adapter = "ctest", run = ["echo", "hello"] }
"#;

#[test]
fn ctest_tests_end_as_they_do_by_themselves() {
    let fleet = Fleet::with_image(&bookworm());
    let project = tempfile::tempdir().expect("a directory");
    write(
        project.path(),
        &[("regatta.toml", PIPELINE), ("CMakeLists.txt", BAD_LISTS)],
    );
    let ended: Ended = run(&fleet, &project, &[]);
    ended
        .expect_code(100)
        .expect_complaint(&["the reason", "it is not what ctest"]);
    let expected = [
        ("passes", "passed", ""),
        ("fails", "failed", ""),
        ("fakes", "failed", ""),
        ("crashes", "failed", "Exception: SegFault"),
        ("hangs", "failed", "its time was over"),
        ("hangs_long", "failed", ""),
        ("no_program", "failed", "Not Run"),
        ("will_pass", "failed", ""),
        ("setup", "failed", ""),
        (
            "uses",
            "failed",
            "`setup`, which runs with it for a fixture: Failed",
        ),
        ("cleaned", "passed", ""),
        ("cleanup", "failed", ""),
    ];
    check(&ended, "check", &expected);
    check(&ended, "chosen", &[("passes", "passed", "")]);
    fleet.stop();
}
