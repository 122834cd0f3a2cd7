//! A runner that fails for itself, beside a test that fails at first.

use super::{check, run};
use crate::fleet::Fleet;
use crate::program::write;
use crate::workstation::bookworm;

const PIPELINE: &str = r#"
[jobs.own]
inputs = ["own/**"]
retry = 1
suite = { adapter = "pytest", run = ["pytest", "own"] }

[jobs.threshold]
inputs = ["threshold/**"]
retry = 1
suite = { adapter = "pytest", run = ["pytest", "threshold"] }

[jobs.test]
inputs = ["test/**"]
retry = 1
suite = { adapter = "pytest", run = ["pytest", "test"] }

[jobs.crash]
inputs = ["crash/**"]
retry = 1
suite = { adapter = "pytest", run = ["pytest", "crash"] }

[jobs.collection]
inputs = ["collection/**"]
retry = 1
suite = { adapter = "pytest", run = ["pytest", "collection"] }
"#;
/// One fails beside others, and passes when it runs alone: as it does when it is tried again.
const TESTS: &str = r#"
def test_flaky(request): assert len(request.session.items) == 1, "not alone"
def test_passes(): pass
"#;
/// As pytest's own plugins do it that find something wrong in the end.
const CONFTEST: &str = r#"
def pytest_sessionfinish(session):
    if len(session.items) > 1 and not session.config.option.collectonly: session.exitstatus = 3
"#;
/// As pytest-cov does it whose threshold is not reached.
const THRESHOLD: &str = r#"
import pytest
@pytest.hookimpl(hookwrapper=True)
def pytest_runtestloop(session):
    yield
    if not session.config.option.collectonly: session.testsfailed += 1
"#;
const CRASH: &str = r#"
import os
def test_passes(): pass
def test_z_crashes(request):
    if len(request.session.items) > 1: os._exit(7)
"#;
/// Whoever has a say at the end of each session gets one for each batch.
const OWN_END: &str = "def pytest_sessionfinish(): pass\n";
/// What cannot be loaded next to others is no test's failure.
const CANNOT_BE_LOADED: &str = r#"
import os, sys
if "run" in sys.argv and len(open(".regatta/tests").readlines()) > 1: raise RuntimeError("not beside others")
def test_other(): pass
"#;

#[test]
fn a_flaky_test_excuses_no_other_failure_of_pytest() {
    let fleet = Fleet::with_one_slot(&bookworm());
    let project = tempfile::tempdir().expect("a directory");
    let files = [
        ("regatta.toml", PIPELINE),
        ("own/test_own.py", TESTS),
        ("own/conftest.py", CONFTEST),
        ("threshold/test_good.py", "def test_passes(): pass\n"),
        ("threshold/conftest.py", THRESHOLD),
        ("test/test_test.py", TESTS),
        ("crash/test_crash.py", CRASH),
        ("collection/conftest.py", OWN_END),
        ("collection/test_flaky.py", TESTS),
        ("collection/test_other.py", CANNOT_BE_LOADED),
    ];
    write(project.path(), &files);

    let good = run(&fleet, &project, &["test"]);
    good.expect_code(0);
    let flaky = |job: &str| {
        [
            (format!("{job}/test_{job}.py::test_flaky"), "flaky"),
            (format!("{job}/test_{job}.py::test_passes"), "passed"),
        ]
    };
    let told = flaky("test");
    let told = told
        .each_ref()
        .map(|(id, status)| (id.as_str(), *status, ""));
    check(&good, "test", &told);

    let own = run(&fleet, &project, &["own"]);
    own.expect_code(100);
    let told = flaky("own");
    let told = told
        .each_ref()
        .map(|(id, status)| (id.as_str(), *status, ""));
    check(&own, "own", &told);
    let complaint = own.lines("suite-complained")[0]["message"].to_string();
    assert!(complaint.contains("exited with code 3"), "{own:#?}");

    let threshold = run(&fleet, &project, &["threshold"]);
    threshold.expect_code(100);
    let complaint = threshold.lines("suite-complained")[0]["message"].to_string();
    assert!(complaint.contains("every test passed"), "{threshold:#?}");

    let crash = run(&fleet, &project, &["crash"]);
    crash.expect_code(0);
    let told = [
        ("crash/test_crash.py::test_passes", "passed", ""),
        ("crash/test_crash.py::test_z_crashes", "flaky", ""),
    ];
    check(&crash, "crash", &told);

    // All of them pass when they are tried again, each by itself.
    let collection = run(&fleet, &project, &["collection"]);
    collection.expect_code(100);
    assert_eq!(
        collection.finished()["counts"]["flaky"],
        3,
        "{collection:#?}"
    );
    let complaint = collection.lines("suite-complained")[0]["message"].to_string();
    assert!(complaint.contains("not beside others"), "{collection:#?}");
    fleet.stop();
}
