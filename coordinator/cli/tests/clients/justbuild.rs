//! justbuild in its compatible mode, with plain SHA-256.

use super::calls::CallLog;
use super::counters::Counters;
use super::fleet::Fleet;
use super::program::Ended;
use super::workstation::{Workstation, unstable};

fn justbuild(station: &Workstation, address: &str, arguments: &[&str]) -> Ended {
    let mut just = station.command(&[]);
    just.args(["justbuild", arguments[0], "--compatible", "-r", address]);
    just.args(["--local-build-root", "/w/just"]);
    Ended::of(just.args(&arguments[1..]))
}

#[test]
fn justbuild_builds_once() {
    let fleet = Fleet::with_image(&unstable());
    let station = Workstation::new(&unstable(), "justbuild");
    for (name, leases) in [("justbuild-cold", 2), ("justbuild-warm", 0)] {
        let calls = CallLog::of(fleet.url());
        let before = Counters::of(&fleet);
        let install = ["install", "-o", "installed"];
        justbuild(&station, calls.address(), &install).expect_code(0);
        assert_eq!(Counters::of(&fleet).since(before).leases, leases);
        assert_eq!(station.read("installed/made/greeting.txt"), "HELLO\n");
        assert_eq!(station.read("installed/made/tree/leaf"), "leaf\n");
        assert_eq!(station.shell("installed/hello").stdout, "hello 3\n");
        station
            .shell("rm --recursive installed /w/just")
            .expect_code(0);
        calls.expect(name);
    }
    drop(station);
    fleet.stop();
}

#[test]
fn justbuild_shows_why_an_action_failed() {
    let fleet = Fleet::with_image(&unstable());
    let station = Workstation::new(&unstable(), "justbuild");
    let address = fleet.url().trim_start_matches("grpc://");
    let ended = justbuild(&station, address, &["build", "failing"]);
    ended
        .expect_code(1)
        .expect_complaint(&["this is why it fails"]);
    drop(station);
    fleet.stop();
}
