//! A coordinator and an agent whose disks are full.

use std::time::{Duration, Instant};

use super::cut_off::{begin, expect_each_test_once, project, state};
use super::fleet::Fleet;
use super::program::{Ended, Running, wait_until, write};
use super::small_disk::SmallDisk;

/// Talks for as long as it takes until the ledger has failed for so long that it is told.
const BRIEF_TALKER: &str = "[jobs.talk]\n\
    run = 'end=$(($(date +%s) + 25)); while test $(date +%s) -lt $end; do echo and so on; sleep 0.01; done'\n";

/// What whoever watches a run is told while the ledger has no room.
const NOT_DURABLE: &str = "nothing more of the run can be stored";

#[test]
fn runs_of_a_coordinator_without_room_wait_say_so_and_go_on() {
    let mut disk = None;
    let mut fleet = Fleet::prepared(|state| {
        disk = Some(SmallDisk::mount(&state.join("coordinator")));
    });
    let disk = disk.expect("it was mounted");
    fleet.add_agent(&[]);
    let project = tempfile::tempdir().expect("a directory");
    write(project.path(), &[("regatta.toml", BRIEF_TALKER)]);
    let mut run = fleet.command();
    run.args(["--message-format", "json", "run"])
        .current_dir(project.path());
    let mut running = Running::begin(&mut run);
    running.expect_words(r#""type":"output""#);
    disk.fill();
    running.expect_words(NOT_DURABLE);
    let (status, page) = fleet.page("/readyz");
    assert_eq!(status, 503, "{page}");
    assert!(fleet.log_of("coordinator").contains("could not be stored"));
    let mut refused = Running::begin(fleet.command().args(["exec", "--", "true"]));
    refused.expect_words("it is submitted again");
    disk.make_room();
    let ended = running.end();
    let last = ended.expect_code(0).finished();
    assert_eq!(last["verdict"], "RELEASABLE", "{last}");
    ended.expect_complaint(&["disk is full"]);
    wait_until("it is ready again", || fleet.page("/readyz").0 == 200);
    let accepted = refused.end();
    accepted.expect_code(0).expect_complaint(&["full"]);
    let listed = Ended::of(fleet.command().args(["ps", "--all", "--format", "json"]));
    assert!(listed.stdout.contains("RELEASABLE"), "{listed:#?}");
    drop(disk);
    fleet.kill_coordinator();
    fleet.stop();
}

#[test]
fn a_coordinator_without_room_that_is_killed_has_shown_no_end_and_goes_on() {
    let mut disk = None;
    let mut fleet = Fleet::prepared(|state| {
        disk = Some(SmallDisk::mount(&state.join("coordinator")));
    });
    let disk = disk.expect("it was mounted");
    let address = fleet.url().trim_start_matches("grpc://").to_owned();
    fleet.add_agent(&[]);
    let project = tempfile::tempdir().expect("a directory");
    write(project.path(), &[("regatta.toml", BRIEF_TALKER)]);
    let mut run = fleet.command();
    run.args(["--message-format", "json", "run"])
        .current_dir(project.path());
    let mut running = Running::begin(&mut run);
    running.expect_words(r#""type":"output""#);
    disk.fill();
    running.expect_words(NOT_DURABLE);
    fleet.kill_coordinator();
    disk.make_room();
    fleet.start_coordinator(&address);
    running.expect_words(r#""type":"run-resumed""#);
    let ended = running.end();
    let last = ended.expect_code(0).finished();
    assert_eq!(last["verdict"], "RELEASABLE", "{last}");
    assert_eq!(ended.lines("run-finished").len(), 1, "{ended:#?}");
    drop(disk);
    fleet.kill_coordinator();
    fleet.stop();
}

/// Half of it must be free for the store to take anything: then the ledger has room when the store has none.
const STORE_WANTS_FREE: [&str; 2] = ["--cache-free", "24MiB"];
/// What of the 32 MiB is taken up so that the store has no room and the ledger has.
const MOST_OF_IT: usize = 22 << 20;
/// How long agents get no work that count as broken: what a full store costs once it has room is less.
const COOLING_OFF: Duration = Duration::from_secs(60);

/// A coordinator with a disk of its own, whose store can be without room while its ledger has some.
fn with_a_store_that_fills() -> (Fleet, SmallDisk) {
    let mut disk = None;
    let fleet = Fleet::prepared_told(&STORE_WANTS_FREE, |state| {
        disk = Some(SmallDisk::mount(&state.join("coordinator")));
    });
    (fleet, disk.expect("it was mounted"))
}

/// Fills the store, and waits until the coordinator has seen it.
#[track_caller]
fn fill_the_store(fleet: &Fleet, disk: &SmallDisk) {
    disk.take(MOST_OF_IT);
    let refuses = |page: (u16, String)| page.0 == 503 && page.1.contains("the store is full");
    wait_until("the store is full", || refuses(fleet.page("/readyz")));
}

#[test]
fn a_store_without_room_begins_nothing_loses_nothing_and_goes_on_once_it_has_some() {
    let (mut fleet, disk) = with_a_store_that_fills();
    let agents = [(); 2].map(|()| fleet.add_agent(&[]));
    let project = project(|_| "sleep 0.3; echo $last >&2".to_owned());
    let mut run = begin(fleet.command(), project.path());
    run.expect_words_times(r#""type":"test""#, 12);
    fill_the_store(&fleet, &disk);
    run.expect_words("the run waits: the store is full");
    let listed = Ended::of(fleet.command().arg("ps"));
    listed.expect_complaint(&["nothing new is begun: the store is full"]);
    let (_, metrics) = fleet.page("/metrics");
    assert!(metrics.contains("regatta_work_held 1"), "{metrics}");
    let had_room = Instant::now();
    disk.make_room();
    let ended = run.end();
    assert!(had_room.elapsed() < COOLING_OFF / 2, "{ended:#?}");
    expect_each_test_once(&fleet, project.path(), &ended);
    assert!(ended.lines("infrastructure-retry").is_empty(), "{ended:#?}");
    for agent in &agents {
        assert_eq!(state(&fleet, agent), "ready");
    }
    assert_eq!(fleet.page("/readyz").0, 200);
    drop(disk);
    fleet.kill_coordinator();
    fleet.stop();
}

#[test]
fn a_client_offers_its_files_again_to_a_store_without_room() {
    let (mut fleet, disk) = with_a_store_that_fills();
    fleet.add_agent(&[]);
    fill_the_store(&fleet, &disk);
    let inputs = tempfile::tempdir().expect("a directory");
    write(inputs.path(), &[("file", "what the store lacks")]);
    let mut exec = fleet.command();
    exec.args(["exec", "--input"]).arg(inputs.path());
    let mut exec = Running::begin(exec.args(["--", "cat", "file"]));
    exec.expect_words("they are offered again");
    disk.make_room();
    let ended = exec.end();
    ended.expect_code(0);
    assert_eq!(ended.stdout, "what the store lacks");
    let told = ended.stderr.matches("the store is full").count();
    assert_eq!(told, 1, "{ended:#?}");
    drop(disk);
    fleet.kill_coordinator();
    fleet.stop();
}

#[test]
fn an_agent_without_room_takes_nothing_new_and_comes_back() {
    let mut disk = None;
    let mut fleet = Fleet::coordinator();
    let options = ["--minimum-free", "8MiB", "--cache-quota", "4MiB"];
    let agent = fleet.add_prepared_agent(&options, |state| {
        disk = Some(SmallDisk::mount(state));
    });
    let disk = disk.expect("it was mounted");
    let state = |fleet: &Fleet| fleet.agent(&agent).expect("it is known")["state"].clone();
    Ended::of(fleet.command().args(["exec", "--", "true"])).expect_code(0);
    disk.fill();
    wait_until("it says why it takes nothing", || {
        let said = state(&fleet);
        said.as_str().is_some_and(|said| said.contains("disk full"))
    });
    disk.make_room();
    wait_until("it takes work again", || state(&fleet) == "ready");
    Ended::of(fleet.command().args(["exec", "--", "echo", "again"])).expect_code(0);
    drop(disk);
    fleet.stop();
}

/// Sleeps, writes a file and removes it, in each of 40 tests. One that cannot write fails.
const WRITERS: &str = r#"
if [ "$1" = list ]; then seq 40; exit; fi
code=0
cases=
while read -r id; do
  sleep 0.3
  outcome=
  head -c 200000 /dev/zero > scratch || { code=1; outcome='<failure message="no room"/>'; }
  rm -f scratch
  cases="$cases<testcase name=\"$id\" classname=\"\">$outcome</testcase>"
done < "${2#@}"
echo "<testsuites><testsuite name=\"all\" tests=\"1\">$cases</testsuite></testsuites>" > junit.xml
exit $code
"#;

#[test]
fn what_fails_while_an_agent_has_no_room_is_no_failed_test() {
    let mut disk = None;
    let mut fleet = Fleet::coordinator();
    let options = ["--minimum-free", "8MiB", "--cache-quota", "4MiB"];
    let agent = fleet.add_prepared_agent(&options, |state| {
        disk = Some(SmallDisk::mount(state));
    });
    let disk = disk.expect("it was mounted");
    let project = tempfile::tempdir().expect("a directory");
    let text = "[jobs.check]\ninputs = ['**']\n[jobs.check.suite]\ndiscover = ['sh', 'suite.sh', 'list']\n\
                run = ['sh', 'suite.sh', 'run']\njunit = 'junit.xml'\n";
    write(
        project.path(),
        &[("regatta.toml", text), ("suite.sh", WRITERS)],
    );
    let mut run = begin(fleet.command(), project.path());
    run.expect_words(r#""type":"suite-planned""#);
    wait_until("both slots have tests", || {
        let leases = fleet.agent(&agent).expect("it is known")["leases"].clone();
        leases.as_array().is_some_and(|leases| leases.len() == 2)
    });
    disk.fill();
    run.expect_words("--minimum-free");
    disk.make_room();
    let ended = run.end();
    let last = ended.expect_code(0).finished();
    assert_eq!(last["verdict"], "RELEASABLE", "{ended:#?}");
    assert_eq!(last["counts"]["passed"], 40, "{ended:#?}");
    assert!(
        !ended.lines("infrastructure-retry").is_empty(),
        "{ended:#?}"
    );
    drop(disk);
    fleet.stop();
}
