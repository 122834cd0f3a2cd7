//! pytest's tests whose children come back from them, and modules that it loads twice.

use super::{check, run};
use crate::fleet::Fleet;
use crate::program::write;
use crate::workstation::bookworm;

const PIPELINE: &str = r#"
[jobs.check]
inputs = ["*.py"]
timeout = "30s"
suite = { adapter = "pytest", run = ["pytest", "--doctest-modules"] }
"#;
const FORKS: &str = r#"
import os
def forked(end):
    child = os.fork()
    if child == 0: return end()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == (end is fails)
def fails(): raise RuntimeError("the child's")
def test_a_child_returns(): forked(lambda: None)
def test_b_child_fails(): forked(fails)
def test_c_passes(): pass
"#;
const SKIPPED: &str = r#"
import pytest
pytest.importorskip("nobody_has_this")
def test_never(): pass
"#;

#[test]
fn children_of_tests_run_no_tests_and_modules_are_skipped_once() {
    let fleet = Fleet::with_one_slot(&bookworm());
    let project = tempfile::tempdir().expect("a directory");
    let files = [
        ("regatta.toml", PIPELINE),
        ("test_forks.py", FORKS),
        ("test_skipped.py", SKIPPED),
    ];
    write(project.path(), &files);
    let ended = run(&fleet, &project, &[]);
    ended.expect_code(0);
    let told = [
        ("test_forks.py::test_a_child_returns", "passed", ""),
        ("test_forks.py::test_b_child_fails", "passed", ""),
        ("test_forks.py::test_c_passes", "passed", ""),
        ("test_skipped.py", "skipped", "nobody_has_this"),
    ];
    check(&ended, "check", &told);
    fleet.stop();
}
