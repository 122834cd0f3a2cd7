//! One command at a time.

use super::fleet::Fleet;
use super::program::{Ended, write};

#[test]
fn a_command_runs_in_a_container_and_its_ending_is_ours() {
    let fleet = Fleet::of(1);
    // Only a container has this file, and a machine of its own name.
    let script = "test -e /.dockerenv; echo $?; uname -n; echo complaint >&2; exit 3";
    let ended = Ended::of(fleet.command().args(["exec", "--", "sh", "-c", script]));
    ended.expect_code(3).expect_complaint(&["complaint"]);
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("a name");
    let lines: Vec<_> = ended.stdout.lines().collect();
    assert_eq!(lines[0], "0", "{ended:#?}");
    assert_ne!(lines[1], host.trim(), "{ended:#?}");
    fleet.stop();
}

#[test]
fn inputs_are_seen_and_outputs_come_back() {
    let fleet = Fleet::of(1);
    let project = tempfile::tempdir().expect("a directory");
    write(project.path(), &[("in/one", "1"), ("in/two", "2")]);
    let mut exec = fleet.command();
    exec.current_dir(project.path()).args([
        "exec",
        "--input",
        ".",
        "--output",
        "out",
        "--download",
        "got",
    ]);
    let ended = Ended::of(exec.args([
        "--",
        "sh",
        "-c",
        "mkdir out && cat in/* > out/all && rm in/one",
    ]));
    ended.expect_code(0);
    let all = std::fs::read_to_string(project.path().join("got/out/all")).expect("the output");
    assert_eq!(all, "12");
    assert!(project.path().join("in/one").exists());
    fleet.stop();
}

#[test]
fn a_command_may_rewrite_its_inputs() {
    let fleet = Fleet::of(1);
    let project = tempfile::tempdir().expect("a directory");
    write(project.path(), &[("in/one", "1\n")]);
    // The second finds the input in the agent's cache, as it was.
    for round in ["first", "second"] {
        let mut exec = fleet.command();
        exec.current_dir(project.path())
            .args(["exec", "--no-cache", "--input", ".", "--"]);
        let script = "echo more >> in/one && sed -i s/1/2/ in/one && cat in/one";
        let ended = Ended::of(exec.args(["sh", "-c", script]));
        ended.expect_code(0);
        assert_eq!(ended.stdout, "2\nmore\n", "{round}");
    }
    fleet.stop();
}

#[test]
fn an_output_of_terabytes_is_refused_and_the_log_is_not() {
    let mut fleet = Fleet::coordinator();
    fleet.add_agent(&["--max-output-size", "1GiB"]);
    let mut exec = fleet.command();
    exec.args(["exec", "--output", "out", "--", "sh", "-c"]);
    let ended = Ended::of(exec.arg("echo told; truncate -s 4T out"));
    ended
        .expect_code(100)
        .expect_complaint(&["`out`", "--max-output-size"]);
    assert_eq!(ended.stdout, "told\n", "{ended:#?}");
    fleet.stop();
}

#[test]
fn the_same_command_again_runs_nothing() {
    let fleet = Fleet::of(1);
    let run = || {
        let mut exec = fleet.command();
        let ended = Ended::of(exec.args([
            "--message-format",
            "json",
            "exec",
            "--",
            "cat",
            "/proc/uptime",
        ]));
        ended.expect_code(0);
        ended
    };
    let (first, second) = (run(), run());
    assert_eq!(first.finished()["leases"], 1, "{first:#?}");
    assert_eq!(second.finished()["leases"], 0, "{second:#?}");
    fleet.stop();
}

#[test]
fn jobs_have_no_network_no_capabilities_and_a_read_only_root() {
    let fleet = Fleet::of(1);
    let script =
        "! touch /etc/x 2>/dev/null; grep CapEff /proc/self/status; ls /sys/class/net; touch ok";
    let ended = Ended::of(fleet.command().args(["exec", "--", "sh", "-ec", script]));
    ended.expect_code(0);
    assert_eq!(ended.stdout, "CapEff:\t0000000000000000\nlo\n");
    fleet.stop();
}

#[test]
fn a_command_that_takes_too_long_ends_and_its_output_is_kept() {
    let fleet = Fleet::of(1);
    let mut exec = fleet.command();
    let ended = Ended::of(exec.args([
        "exec",
        "--timeout",
        "1s",
        "--",
        "sh",
        "-c",
        "echo before; sleep 100",
    ]));
    ended.expect_code(124);
    assert_eq!(ended.stdout, "before\n", "{ended:#?}");
    fleet.stop();
}

#[test]
fn nothing_is_left_in_docker_after_all_this() {
    let fleet = Fleet::of(1);
    let script = "sleep 1000 & setsid sleep 1000 &";
    Ended::of(fleet.command().args(["exec", "--", "sh", "-c", script])).expect_code(0);
    let before = fleet.containers().len();
    assert!(before > 0, "a slot stays warm");
    fleet.stop();
}
