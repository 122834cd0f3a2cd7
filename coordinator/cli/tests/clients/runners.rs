//! Suites of other languages' test runners, each with the real runner in a container.

mod ctest;
mod ctest_fixtures;
mod forked;
mod gotest;
mod jest;
mod own_failures;
mod own_limits;
mod sharding;

use std::collections::BTreeMap;

use super::fleet::Fleet;
use super::program::{Ended, write};
use super::workstation::bookworm;

/// Runs the pipeline in a project.
fn run(fleet: &Fleet, project: &tempfile::TempDir, arguments: &[&str]) -> Ended {
    let mut run = fleet.command();
    run.current_dir(project.path());
    let run = run.args(["--message-format", "json", "run"]);
    Ended::of(run.args(arguments))
}

/// How each test ended, and what is said of it, by job and id.
fn tests(ended: &Ended) -> BTreeMap<(String, String), (String, String)> {
    let text =
        |line: &serde_json::Value, key: &str| line[key].as_str().unwrap_or_default().to_owned();
    let lines = ended.lines("test");
    let test = |line: &serde_json::Value| {
        let name = (text(line, "job"), text(line, "test"));
        (name, (text(line, "status"), text(line, "message")))
    };
    let tests: BTreeMap<_, _> = lines.iter().map(test).collect();
    assert_eq!(tests.len(), lines.len(), "a test is told twice: {ended:#?}");
    tests
}

#[track_caller]
fn check(ended: &Ended, job: &str, expected: &[(&str, &str, &str)]) {
    let mut tests = tests(ended);
    tests.retain(|(of, _), _| of == job);
    for (id, status, message) in expected {
        let found = tests.remove(&(job.to_owned(), (*id).to_owned()));
        let found = found.unwrap_or_else(|| panic!("no {id} in {ended:#?}"));
        assert_eq!(&found.0, status, "{id}: {ended:#?}");
        assert!(found.1.contains(message), "{id}: {}", found.1);
    }
    assert!(tests.is_empty(), "unexpected: {tests:#?}");
}

/// The tests that failed because their time was over, as it is said.
fn timed_out(ended: &Ended) -> Vec<String> {
    let mut tests = ended.lines("test");
    tests.retain(|test| test["failure_class"] == "timeout");
    let name = |test: &serde_json::Value| test["test"].as_str().expect("a text").to_owned();
    tests.iter().map(name).collect()
}

const PYTEST: &str = r#"
[jobs.good]
inputs = ["**"]
[jobs.good.suite]
adapter = "pytest"
run = ["python3", "-m", "pytest", "good"]

[jobs.bad]
inputs = ["bad/**", "pytest.ini"]
timeout = "20s"
[jobs.bad.suite]
adapter = "pytest"
run = ["pytest", "bad"]

[jobs.compiled]
inputs = ["compiled/**"]
suite = { adapter = "pytest", run = ["pytest", "compiled"] }

[jobs.again]
inputs = ["again/**"]
[jobs.again.suite]
adapter = "pytest"
run = ["pytest", "--reruns", "1", "again"]
"#;
const GOOD: &str = r#"
import pytest, unittest
print("no id")
@pytest.mark.skip(reason="not <here> & now")
def test_skipped(): pass
@pytest.mark.xfail(reason="known")
def test_expected(): assert 0
@pytest.mark.parametrize("x", ["a b", "é::x/y", "[]", "\x01", "x" * 10000])
def test_parametrised(x): pass
def test_reads_a_file():
    with open("data/ü") as file: assert file.read() == "here"
class TestUnit(unittest.TestCase):
    def test_method(self): self.assertEqual(1, 1)
"#;
/// Whether the tests that are about to be loaded are compiled already: listing them has done it. Whoever has a say at
/// the end of each session gets one, and a process, for each batch, and never two at a time.
const CONFTEST: &str = r#"
import glob, os, pytest, socket
compiled = glob.glob(os.path.join(os.path.dirname(__file__), "__pycache__", "test_compiled.*pytest*.pyc"))
@pytest.fixture
def found(): return compiled
def pytest_sessionstart(session): session.listener = socket.create_server(("127.0.0.1", 4711))
def pytest_sessionfinish(session): session.listener.close()
"#;
/// One skipped test to pytest, which knows of none in it.
const SKIPPED_MODULE: &str = r#"
import pytest
pytest.skip("not this file", allow_module_level=True)
def test_never_known(): pass
"#;
/// pytest-rerunfailures runs what failed again.
const AGAIN: &str = r#"
times = []
def test_flaky():
    times.append(1)
    assert len(times) > 1, "not yet"
def test_fails(): assert not "ever"
def test_passes(): pass
"#;
const BAD: &str = r#"
import multiprocessing, os, time, pytest
def test_before(): pass
def test_fails():
    print("what it printed")
    assert 1 == 2, "the reason"
def test_ends_the_process(): os._exit(0)
def test_closes_its_output():
    os.close(1)
    os.close(2)
def test_hangs(): time.sleep(600)
@pytest.fixture
def broken(): raise RuntimeError("no setup")
def test_without_setup(broken): pass
def test_leaves_a_daemon():
    if os.fork() == 0:
        os.setsid()
        time.sleep(600)
def test_spawns():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(abs, [-1]) == [1]
def test_writes_a_lot():
    for _ in range(200): os.write(1, b"x" * 1000000)
def test_after(): pass
"#;

#[test]
fn pytest_suites_run_as_pytest_would() {
    let fleet = Fleet::with_image(&bookworm());
    let project = tempfile::tempdir().expect("a directory");
    let files = [
        ("regatta.toml", PYTEST),
        // What its own users want, and shards do not.
        ("pytest.ini", "[pytest]\naddopts = -x -v\n"),
        ("compiled/conftest.py", CONFTEST),
        (
            "compiled/test_compiled.py",
            "def test_is_compiled(found): assert found\n",
        ),
        ("good/test_good.py", GOOD),
        ("good/sub/test_more.py", "def test_one(): pass\n"),
        ("good/test_module.py", SKIPPED_MODULE),
        ("bad/test_bad.py", BAD),
        ("again/test_again.py", AGAIN),
        ("data/ü", "here"),
    ];
    write(project.path(), &files);
    let ended = run(&fleet, &project, &["good", "--junit", "junit.xml"]);
    ended.expect_code(0);
    let long = format!(
        "good/test_good.py::test_parametrised[{}]",
        "x".repeat(10_000)
    );
    let good = |status| {
        [
            (
                "good/test_good.py::test_skipped",
                "skipped",
                "not <here> & now",
            ),
            ("good/test_good.py::test_expected", "skipped", "known"),
            ("good/test_good.py::test_parametrised[a b]", status, ""),
            (
                "good/test_good.py::test_parametrised[\\xe9::x/y]",
                status,
                "",
            ),
            ("good/test_good.py::test_parametrised[[]]", status, ""),
            ("good/test_good.py::test_parametrised[\\x01]", status, ""),
            (long.as_str(), status, ""),
            ("good/test_good.py::test_reads_a_file", status, ""),
            ("good/test_good.py::TestUnit::test_method", status, ""),
            ("good/sub/test_more.py::test_one", status, ""),
            ("good/test_module.py", "skipped", "not this file"),
        ]
    };
    check(&ended, "good", &good("passed"));
    let again = run(&fleet, &project, &["good", "--junit", "junit.xml"]);
    check(&again, "good", &good("cached"));
    assert_eq!(again.finished()["leases"], 0, "{again:#?}");
    bad_tests_of_pytest_fail_alone(&fleet, &project);
    run(&fleet, &project, &["compiled"]).expect_code(0);
    let again = run(&fleet, &project, &["again"]);
    again.expect_code(100);
    let flaky = "its runner ran it again";
    check(
        &again,
        "again",
        &[
            ("again/test_again.py::test_flaky", "flaky", flaky),
            ("again/test_again.py::test_fails", "failed", "ever"),
            ("again/test_again.py::test_passes", "passed", ""),
        ],
    );
    fleet.stop();
}

fn bad_tests_of_pytest_fail_alone(fleet: &Fleet, project: &tempfile::TempDir) {
    let ended = run(fleet, project, &["bad"]);
    ended.expect_code(100);
    let bad = |name: &str| format!("bad/test_bad.py::test_{name}");
    let bad: Vec<_> = [
        ("before", "passed", ""),
        ("fails", "failed", "the reason"),
        (
            "ends_the_process",
            "failed",
            "the runner ended while this test ran",
        ),
        ("closes_its_output", "passed", ""),
        ("hangs", "failed", "20 s were over"),
        ("without_setup", "failed", "setup: RuntimeError: no setup"),
        ("leaves_a_daemon", "passed", ""),
        ("spawns", "passed", ""),
        ("writes_a_lot", "passed", ""),
        ("after", "passed", ""),
    ]
    .map(|(name, status, message)| (bad(name), status, message))
    .into();
    let bad: Vec<_> = bad
        .iter()
        .map(|(id, status, message)| (id.as_str(), *status, *message))
        .collect();
    check(&ended, "bad", &bad);
    assert_eq!(timed_out(&ended), ["bad/test_bad.py::test_hangs"]);
}

#[test]
fn an_image_without_pytest_says_so() {
    let fleet = Fleet::of(1);
    let project = tempfile::tempdir().expect("a directory");
    let pipeline = "[jobs.a]\nsuite = { adapter = 'pytest' }\n";
    write(project.path(), &[("regatta.toml", pipeline)]);
    let ended = run(&fleet, &project, &[]);
    ended
        .expect_code(100)
        .expect_complaint(&["tests could not be listed", "python3"]);
    fleet.stop();
}

const GOOGLETEST: &str = r#"
[jobs.build]
inputs = ["tests.cc"]
run = ["g++", "tests.cc", "-o", "tests", "-lgtest", "-lgtest_main"]
outputs = ["tests"]

[jobs.check]
needs = ["build"]
timeout = "10s"
[jobs.check.suite]
adapter = "googletest"
run = ["./tests"]
"#;
const TESTS_CC: &str = r#"
#include <gtest/gtest.h>
#include <cstdlib>
#include <unistd.h>
TEST(Sum, Holds) { EXPECT_EQ(2, 1 + 1); }
TEST(Sum, DISABLED_Later) { FAIL(); }
TEST(Sum, Fails) { EXPECT_EQ(3, 1 + 1) << "the reason"; }
TEST(Sum, SkipsItself) { GTEST_SKIP() << "not here"; }
TEST(Process, Aborts) { std::abort(); }
TEST(Process, ExitsEarly) { std::_Exit(0); }
TEST(Process, Hangs) { for (;;) pause(); }
class Each : public testing::TestWithParam<const char*> {};
TEST_P(Each, HasText) { EXPECT_TRUE(GetParam()[0]); }
INSTANTIATE_TEST_SUITE_P(All, Each, testing::Values("a  # b", "c"));
template <typename T> class Typed : public testing::Test {};
TYPED_TEST_SUITE(Typed, testing::Types<int>);
TYPED_TEST(Typed, IsZero) { EXPECT_EQ(TypeParam(), 0); }
"#;

#[test]
fn googletest_programs_run_a_process_for_each_test() {
    let fleet = Fleet::with_image(&bookworm());
    let project = tempfile::tempdir().expect("a directory");
    write(
        project.path(),
        &[("regatta.toml", GOOGLETEST), ("tests.cc", TESTS_CC)],
    );
    let expected = |passed| {
        [
            ("Sum.Holds", passed, ""),
            ("Sum.DISABLED_Later", "skipped", ""),
            ("Sum.Fails", "failed", ""),
            ("Sum.SkipsItself", "skipped", "not here"),
            ("Process.Aborts", "failed", ""),
            (
                "Process.ExitsEarly",
                "failed",
                "did not say that it ran a test",
            ),
            ("Process.Hangs", "failed", ""),
            ("All/Each.HasText/0", passed, ""),
            ("All/Each.HasText/1", passed, ""),
            ("Typed/0.IsZero", passed, ""),
        ]
    };
    let ended = run(&fleet, &project, &[]);
    ended.expect_code(100).expect_complaint(&["the reason"]);
    check(&ended, "check", &expected("passed"));
    let again = run(&fleet, &project, &[]);
    check(&again, "check", &expected("cached"));
    fleet.stop();
}

#[test]
fn a_python_project_needs_no_configuration() {
    let fleet = Fleet::with_image(&bookworm());
    let project = tempfile::tempdir().expect("a directory");
    let module = "def double(x): return 2 * x\n";
    let test = "from pack import double\ndef test_double(): assert double(2) == 4\n";
    let files = [
        ("pyproject.toml", "[project]\nname = 'pack'\n"),
        ("src/pack/__init__.py", module),
        ("tests/test_pack.py", test),
        (
            "tests/__pycache__/test_pack.cpython-311.pyc",
            "of another time",
        ),
        // What this machine has installed is of no use in a container.
        ("env/pyvenv.cfg", ""),
        ("env/test_env.py", "def test_env(): assert 0"),
    ];
    write(project.path(), &files);
    let interpreter = project.path().join("env/python3");
    std::os::unix::fs::symlink("/usr/bin/python3", interpreter).expect("linked");
    let test = |arguments: &[&str]| {
        let mut test = fleet.command();
        test.current_dir(project.path().join("tests"));
        let test = test.args(["--message-format", "json", "test"]);
        Ended::of(test.args(arguments))
    };
    let first = test(&["--junit", "junit.xml"]);
    first.expect_code(0);
    check(
        &first,
        "pytest",
        &[("tests/test_pack.py::test_double", "passed", "")],
    );
    assert!(project.path().join("tests/junit.xml").is_file());
    write(
        project.path(),
        &[("tests/__pycache__/test_pack.cpython-311.pyc", "newer")],
    );
    let again = test(&["--junit", "junit.xml"]);
    check(
        &again,
        "pytest",
        &[("tests/test_pack.py::test_double", "cached", "")],
    );
    write(
        project.path(),
        &[("src/pack/__init__.py", "def double(x): return x\n")],
    );
    let changed = test(&[]);
    changed
        .expect_code(100)
        .expect_complaint(&["assert 2 == 4"]);
    let built = test(&["--release"]);
    built
        .expect_code(96)
        .expect_complaint(&["is a pytest project"]);
    let none = test(&["no_such_test"]);
    none.expect_code(4);
    fleet.stop();
}
