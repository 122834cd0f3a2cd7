//! One command at a time.

use super::fleet::Fleet;
use super::program::{Ended, write};

#[test]
fn a_command_runs_in_a_container_and_its_ending_is_ours() {
    let fleet = Fleet::of(1);
    let script = "cat /etc/debian_version; echo complaint >&2; id -u; exit 3";
    let ended = Ended::of(fleet.command().args(["exec", "--", "sh", "-c", script]));
    ended.expect_code(3).expect_complaint(&["complaint"]);
    assert!(ended.stdout.starts_with("12."), "{ended:#?}");
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
