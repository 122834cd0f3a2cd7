//! Siso, which sends no environment at all.

use super::calls::CallLog;
use super::counters::Counters;
use super::fleet::Fleet;
use super::program::Ended;
use super::workstation::{Workstation, unstable};

const FORGET: &str = "find out -mindepth 1 ! -name build.ninja -delete";

#[test]
fn siso_builds_once() {
    let fleet = Fleet::with_image(&unstable());
    let station = Workstation::new(&unstable(), "siso");
    for (name, leases) in [("siso-cold", 4), ("siso-warm", 0)] {
        let calls = CallLog::of(fleet.url());
        let before = Counters::of(&fleet);
        let mut siso = station.command(&[]);
        siso.args(["siso", "ninja", "-C", "out", "-reapi_insecure"]);
        siso.args(["-reapi_address", calls.address(), "-reapi_instance", ""]);
        let ended = Ended::of(siso.arg("-strict_remote"));
        ended.expect_code(0);
        assert_eq!(
            Counters::of(&fleet).since(before).leases,
            leases,
            "{ended:#?}"
        );
        assert_eq!(station.read("out/upper.txt"), "HELLO\n");
        assert_eq!(station.shell("out/hello").stdout, "hello 3\n");
        station.shell(FORGET).expect_code(0);
        calls.expect(name);
    }
    drop(station);
    fleet.stop();
}
