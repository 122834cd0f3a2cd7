//! What a job says of its surroundings is what its commands meet.

use std::path::Path;

use serde_json::Value;

use super::fleet::Fleet;
use super::program::{Ended, image, write};

/// Runs a configuration; how each job ended, and what it printed.
fn run(fleet: &Fleet, project: &Path, text: &str) -> Ended {
    write(project, &[("regatta.toml", text)]);
    let mut run = fleet.command();
    Ended::of(
        run.current_dir(project)
            .args(["--message-format", "json", "run"]),
    )
}

#[track_caller]
fn job(ended: &Ended, name: &str) -> Value {
    let jobs = ended.lines("job-finished");
    let job = jobs.into_iter().find(|line| line["job"] == name);
    job.unwrap_or_else(|| panic!("no {name} in {ended:#?}"))
}

#[test]
fn a_job_has_what_it_asked_for_and_nothing_else() {
    let fleet = Fleet::of(1);
    let project = tempfile::tempdir().expect("a directory");
    let text = r#"
[defaults]
env = { COMMON = "common", OWN = "hidden" }
[jobs.env]
env = { OWN = "own" }
run = 'test "$COMMON $OWN" = "common own" && test -z "${REGATTA_COORDINATOR:-}${USER:-}"'
[jobs.image]
image = "IMAGE"
run = 'test -e /etc/debian_version'
[jobs.offline]
run = 'test "$(ls /sys/class/net)" = lo'
[jobs.online]
network = true
run = 'test "$(ls /sys/class/net)" != lo'
[jobs.narrow]
resources = { cpu = 0.5, memory = "128MiB" }
run = 'cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>&1 | grep -qx 134217728'
"#;
    let text = text.replace("IMAGE", &image());
    let ended = run(&fleet, project.path(), &text);
    for name in ["env", "image", "offline", "online", "narrow"] {
        assert_eq!(job(&ended, name)["status"], "passed", "{ended:#?}");
    }
    ended.expect_code(0);
    fleet.stop();
}

#[test]
fn a_job_that_takes_too_long_or_too_much_says_so() {
    let fleet = Fleet::of(1);
    let project = tempfile::tempdir().expect("a directory");
    let text = r#"
[jobs.slow]
timeout = "1s"
run = 'sleep 60'
[jobs.greedy]
resources = { memory = "64MiB" }
run = 'head -c 512M /dev/zero | tail'
"#;
    let ended = run(&fleet, project.path(), text);
    ended.expect_code(101);
    assert_eq!(job(&ended, "slow")["failure_class"], "timeout");
    assert_eq!(job(&ended, "greedy")["failure_class"], "oom", "{ended:#?}");
    fleet.stop();
}

#[test]
fn a_fresh_job_meets_nothing_that_others_left() {
    let fleet = Fleet::of(1);
    let project = tempfile::tempdir().expect("a directory");
    let text = r#"
[jobs.first]
run = 'echo left > /tmp/left; echo left > left'
[jobs.again]
needs = ["first"]
run = 'test ! -e left && test ! -e /tmp/left'
[jobs.fresh]
isolation = "fresh"
needs = ["first"]
run = 'test ! -e left && test ! -e /tmp/left'
"#;
    let ended = run(&fleet, project.path(), text);
    ended.expect_code(0);
    fleet.stop();
}
