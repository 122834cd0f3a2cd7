//! A runner that ends a test whose time is over for it.

use super::{check, run, timed_out};
use crate::fleet::Fleet;
use crate::program::write;
use crate::workstation::bookworm;

const PIPELINE: &str = r#"
[jobs.signal]
inputs = ["signal/**"]
suite = { adapter = "pytest", run = ["pytest", "--timeout", "1", "signal"] }

[jobs.thread]
inputs = ["thread/**"]
suite = { adapter = "pytest", run = ["pytest", "--timeout", "1", "--timeout-method", "thread", "thread"] }
"#;
const TESTS: &str = r#"
import time
def test_before(): pass
def test_hangs(): time.sleep(600)
def test_after(): time.sleep(0.1)
"#;

#[test]
fn what_pytest_timeout_ends_is_out_of_time_however_it_ends_it() {
    let fleet = Fleet::with_image(&bookworm());
    let project = tempfile::tempdir().expect("a directory");
    let files = [
        ("regatta.toml", PIPELINE),
        ("signal/test_signal.py", TESTS),
        ("thread/test_thread.py", TESTS),
    ];
    write(project.path(), &files);
    for (job, message) in [
        ("signal", "Timeout >1"),
        ("thread", "the 1 s that pytest-timeout"),
    ] {
        let ended = run(&fleet, &project, &[job]);
        ended.expect_code(100);
        let test = |name: &str| format!("{job}/test_{job}.py::test_{name}");
        let (before, hangs, after) = (test("before"), test("hangs"), test("after"));
        let told = [
            (before.as_str(), "passed", ""),
            (&hangs, "failed", message),
            (&after, "passed", ""),
        ];
        check(&ended, job, &told);
        assert_eq!(timed_out(&ended), [hangs.as_str()]);
    }
    fleet.stop();
}
