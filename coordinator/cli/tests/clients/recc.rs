//! recc: compiles and links, one call of the compiler at a time.

use super::calls::CallLog;
use super::counters::Counters;
use super::fleet::Fleet;
use super::program::Ended;
use super::workstation::{Workstation, unstable};

const COMPILE_AND_LINK: &str = "\
recc /usr/bin/g++ -c sum.cc -o sum.o
recc /usr/bin/g++ -c hello.cc -o hello.o
recc /usr/bin/g++ hello.o sum.o -o hello
./hello
rm hello *.o
";

/// Compiles and links from nothing, and says what the coordinator did for it.
fn make(fleet: &Fleet, station: &Workstation, name: &str) -> Counters {
    let calls = CallLog::of(fleet.url());
    let server = format!("http://{}", calls.address());
    let before = Counters::of(fleet);
    let mut recc = station.command(&[("RECC_SERVER", &server), ("RECC_LINK", "1")]);
    let ended = Ended::of(recc.args(["sh", "-ec", COMPILE_AND_LINK]));
    ended.expect_code(0);
    assert_eq!(ended.stdout, "hello 3\n", "{ended:#?}");
    calls.expect(name);
    Counters::of(fleet).since(before)
}

#[test]
fn recc_compiles_and_links_once() {
    let fleet = Fleet::with_image(&unstable());
    let station = Workstation::new(&unstable(), "cpp");
    let cold = make(&fleet, &station, "recc-cold");
    assert_eq!((cold.leases, cold.hits), (3, 0));
    let warm = make(&fleet, &station, "recc-warm");
    assert_eq!((warm.leases, warm.hits), (0, 3));
    drop(station);
    fleet.stop();
}

#[test]
fn recc_passes_on_what_the_compiler_complained_of() {
    let fleet = Fleet::with_image(&unstable());
    let station = Workstation::new(&unstable(), "cpp");
    let server = fleet.url().replacen("grpc://", "http://", 1);
    let source = station.workspace().join("bad.cc");
    std::fs::write(source, "int main() { return undeclared; }\n").expect("a file");
    let mut recc = station.command(&[("RECC_SERVER", &server)]);
    let ended = Ended::of(recc.args(["recc", "/usr/bin/g++", "-c", "bad.cc", "-o", "bad.o"]));
    ended.expect_code(1).expect_complaint(&["undeclared"]);
    drop(station);
    fleet.stop();
}
