//! The buildbox tools: trexe, casupload, casdownload.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use super::calls::CallLog;
use super::counters::Counters;
use super::fleet::Fleet;
use super::program::{Ended, wait_until};
use super::sleepers::sleeps;
use super::workstation::{Workstation, unstable};

/// A tree with all that a tree may hold.
const MAKE_TREE: &str = "\
mkdir -p tree/deep/er tree/empty
echo one > tree/one
: > tree/deep/nothing
printf '#!/bin/sh\\n' > tree/deep/er/program
chmod +x tree/deep/er/program
ln -s deep/er/program tree/link
ln -s nowhere tree/dangling
echo text > tree/grüße-文件
head -c 5000000 /dev/urandom > tree/large
";

#[test]
fn casupload_and_casdownload_carry_a_tree_there_and_back() {
    let fleet = Fleet::with_image(&unstable());
    let station = Workstation::new(&unstable(), "cpp");
    station.shell(MAKE_TREE).expect_code(0);
    let calls = CallLog::of(fleet.url());
    let upload = format!(
        "casupload --remote=http://{} --directory-format=both --output-digest-file=root \
         --output-tree-digest-file=whole tree",
        calls.address()
    );
    station.shell(&upload).expect_code(0);
    calls.expect("casupload");
    let calls = CallLog::of(fleet.url());
    for (option, digest, place) in [
        ("--root-digest", "root", "from-root"),
        ("--tree-digest", "whole", "from-tree"),
    ] {
        let download = format!(
            "casdownload --remote=http://{} {option}=$(cat {digest}) --destination-dir={place}",
            calls.address()
        );
        station.shell(&download).expect_code(0);
        let compare = format!("diff --recursive --no-dereference tree {place}");
        station.shell(&compare).expect_code(0);
        let program = station.workspace().join(place).join("deep/er/program");
        let mode = std::fs::metadata(program)
            .expect("it is there")
            .permissions();
        assert_eq!(mode.mode() & 0o111, 0o111, "{place}");
    }
    calls.expect("casdownload");
    drop(station);
    fleet.stop();
}

/// Runs a shell script remotely with `in.txt` as its input and `out.txt` as its output.
fn trexe(station: &Workstation, address: &str, options: &[&str], script: &str) -> Ended {
    let remote = format!("--remote=http://{address}");
    let mut trexe = station.command(&[]);
    trexe.args(["trexe", &remote, "--input-path=sum.h:in.txt"]);
    trexe.args(["--output-path=out.txt", "--d=out"]);
    trexe.args(options).args(["--", "/bin/sh", "-c", script]);
    Ended::of(&mut trexe)
}

#[test]
fn trexe_runs_a_command_once() {
    let fleet = Fleet::with_image(&unstable());
    let station = Workstation::new(&unstable(), "cpp");
    for (name, leases) in [("trexe-cold", 1), ("trexe-warm", 0)] {
        let calls = CallLog::of(fleet.url());
        let before = Counters::of(&fleet);
        let script = "cat in.txt in.txt > out.txt; echo said; echo complained >&2";
        let ended = trexe(&station, calls.address(), &[], script);
        ended.expect_code(0);
        assert!(ended.stdout.contains("said"), "{ended:#?}");
        assert!(ended.stderr.contains("complained"), "{ended:#?}");
        let input = station.read("sum.h");
        assert_eq!(station.read("out/out.txt"), input.repeat(2));
        assert_eq!(Counters::of(&fleet).since(before).leases, leases);
        station.shell("rm --recursive out").expect_code(0);
        calls.expect(name);
    }
    drop(station);
    fleet.stop();
}

#[test]
fn trexe_passes_on_how_a_command_failed() {
    let fleet = Fleet::with_image(&unstable());
    let station = Workstation::new(&unstable(), "cpp");
    let address = fleet.url().trim_start_matches("grpc://");
    let ended = trexe(&station, address, &[], "echo complained >&2; exit 7");
    ended.expect_code(7).expect_complaint(&["complained"]);
    drop(station);
    fleet.stop();
}

/// With `--no-wait` it hangs up at once, and asks for the operation later.
#[test]
fn trexe_comes_back_for_what_it_did_not_wait_for() {
    let fleet = Fleet::with_image(&unstable());
    let station = Workstation::new(&unstable(), "cpp");
    let calls = CallLog::of(fleet.url());
    let address = calls.address();
    let begun = trexe(
        &station,
        address,
        &["--no-wait"],
        "sleep 3; echo done > out.txt",
    );
    begun.expect_code(0);
    let operation = format!("--operation={}", begun.stdout.trim());
    wait_until("the operation is done", || {
        let mut look = station.command(&[]);
        look.args(["trexe", &format!("--remote=http://{address}"), "--d=out"]);
        Ended::of(look.args([&operation, "--wait"])).code == Some(0)
    });
    assert_eq!(station.read("out/out.txt"), "done\n");
    calls.expect("trexe-later");
    drop(station);
    fleet.stop();
}

#[test]
fn trexe_cancels_what_it_began() {
    let fleet = Fleet::with_image(&unstable());
    let station = Workstation::new(&unstable(), "cpp");
    let calls = CallLog::of(fleet.url());
    let address = calls.address();
    let begun = trexe(&station, address, &["--no-wait"], "exec sleep 900001");
    begun.expect_code(0);
    wait_until("the action runs", || sleeps("900001"));
    let cancelled = Instant::now();
    let mut cancel = station.command(&[]);
    cancel.args(["trexe", &format!("--remote=http://{address}"), "--cancel"]);
    cancel.arg(format!("--operation={}", begun.stdout.trim()));
    Ended::of(&mut cancel).expect_code(0);
    wait_until("the action is gone", || !sleeps("900001"));
    // Well before the half minute after which it would have been given up anyway.
    assert!(cancelled.elapsed() < Duration::from_secs(15));
    calls.expect("trexe-cancel");
    drop(station);
    fleet.stop();
}
