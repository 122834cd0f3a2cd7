//! Agents, clients and a coordinator whose packets are lost, and come through again later.

use std::path::Path;
use std::process::Command;

use super::fleet::{Fleet, processes_mentioning};
use super::network::{Network, Place};
use super::program::{Ended, Running, regatta, wait_until, write};

const TESTS: usize = 60;
const JUNIT: &str = "report.xml";
/// So many tests end before anything waits.
const PROMPT: usize = 10;

const PIPELINE: &str = r#"
[jobs.many]
inputs = ["suite.sh"]
[jobs.many.suite]
adapter = "libtest"
run = ["sh", "suite.sh"]
"#;

/// Sixty tests, each of which says in a file that it begins. What is in `stall` is for those after the first
/// ten, and may end them.
fn suite(directory: &Path, stall: &str) -> String {
    format!(
        r#"
for last; do :; done
case "$*" in
*--list*--ignored*|*--ignored*--list*) exit ;;
*--list*) seq 1 {TESTS} | sed 's/.*/test-&: test/'; exit ;;
esac
cd {directory}
await() {{ until [ -e "$1" ]; do sleep 0.05; done; }}
echo "$last" >> begun
if [ $(wc -l < begun) -gt {PROMPT} ]; then
  {stall}
else
  sleep 0.1
fi
echo; echo "running 1 test"; echo
echo "test result: ok. 1 passed; 0 failed; 0 ignored"
"#,
        directory = directory.display()
    )
}

/// Of the tests that begin for the first time, one fails once it may, and one never ends. Who begins for the
/// second time waits.
pub(crate) fn two_that_are_lost(directory: &Path) -> String {
    format!(
        r#"
  if [ $(grep -cx "$last" begun) -gt 1 ]; then await again
  elif mkdir late; then await fail; echo > failed; exit 101
  elif mkdir lasting; then sh -c 'sleep 600; : {}'
  fi
"#,
        directory.display()
    )
}

/// A project whose tests meet in a directory.
pub(crate) fn project(stall: impl FnOnce(&Path) -> String) -> tempfile::TempDir {
    // Not below /tmp, of which each job has its own.
    let project = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let suite = suite(project.path(), &stall(project.path()));
    write(
        project.path(),
        &[("regatta.toml", PIPELINE), ("suite.sh", &suite)],
    );
    project
}

/// Begins a run that is watched from where `regatta` is.
pub(crate) fn begin(mut regatta: Command, project: &Path) -> Running {
    regatta
        .args(["--message-format", "json", "run", "--no-duplicates"])
        .args(["--junit", JUNIT])
        .current_dir(project);
    Running::begin(&mut regatta)
}

/// How many tests have said that they wait.
pub(crate) fn waiting(project: &Path) -> usize {
    let waiting = std::fs::read_to_string(project.join("waiting"));
    waiting.unwrap_or_default().lines().count()
}

/// How the coordinator calls the state of an agent.
pub(crate) fn state(fleet: &Fleet, agent: &str) -> String {
    let agent = fleet.agent(agent).expect("it is known");
    agent["state"].as_str().expect("is text").to_owned()
}

/// What the fleet's ledger says of its only run.
pub(crate) fn listed(fleet: &Fleet) -> serde_json::Value {
    let listed = Ended::of(fleet.command().args(["ps", "--all", "--format", "json"]));
    serde_json::from_str(&listed.expect_code(0).stdout).expect("one run")
}

/// How many outcomes came too late to count.
fn fenced(fleet: &Fleet) -> f64 {
    let (_, page) = fleet.page("/metrics");
    let lines = page
        .lines()
        .filter_map(|line| line.strip_prefix("regatta_outcomes_fenced_total "));
    lines.filter_map(|value| value.parse::<f64>().ok()).sum()
}

/// Everybody who counts has counted each test once, as passed: the client's events and its report, the run's
/// record, and what was learnt of the tests.
#[track_caller]
pub(crate) fn expect_each_test_once(fleet: &Fleet, project: &Path, ended: &Ended) {
    ended.expect_code(0);
    let finished = ended.finished();
    assert_eq!(finished["verdict"], "RELEASABLE", "{ended:#?}");
    for part in ["planned", "passed"] {
        assert_eq!(finished["counts"][part], TESTS, "{ended:#?}");
    }
    let mut tests: Vec<_> = ended
        .lines("test")
        .iter()
        .map(|it| it["test"].to_string())
        .collect();
    assert_eq!(tests.len(), TESTS, "{ended:#?}");
    tests.sort_unstable();
    tests.dedup();
    assert_eq!(tests.len(), TESTS, "{ended:#?}");
    let report = std::fs::read_to_string(project.join(JUNIT)).expect("JUnit");
    assert_eq!(report.matches("<testcase ").count(), TESTS, "{report}");
    assert!(!report.contains("<failure"), "{report}");
    let record = listed(fleet);
    assert_eq!(record["state"], "RELEASABLE");
    assert_eq!(record["counts"], finished["counts"]);
    let history = Ended::of(fleet.command().args(["history", "--format", "json"]));
    let history: serde_json::Value =
        serde_json::from_str(&history.expect_code(0).stdout).expect("JSON");
    let known = history["tests"].as_array().expect("tests");
    assert_eq!(known.len(), TESTS, "{history}");
    let is_once = |test: &serde_json::Value| test["runs"] == 1 && test["failures"] == 0;
    assert!(known.iter().all(is_once), "{history}");
}

/// An agent is lost for longer than its leases last, and comes back: what it was at runs elsewhere, and counts once.
/// Returns the agent that took over.
#[track_caller]
pub(crate) fn lose_for_a_while(
    fleet: &mut Fleet,
    lost: &str,
    add_other: impl FnOnce(&mut Fleet) -> String,
    [lose, regain]: [&dyn Fn(&mut Fleet); 2],
) -> String {
    let project = project(two_that_are_lost);
    let directory = project.path();
    let mut run = begin(fleet.command(), directory);
    // Nobody else is there yet, so it is this agent that is at them.
    wait_until("two tests wait", || directory.join("lasting").exists());
    let other = add_other(fleet);
    run.expect_words(&format!(r#""agent":"{other}""#));

    lose(fleet);
    wait_until("its leases have expired", || state(fleet, lost) == "lost");
    run.expect_words(r#""type":"infrastructure-retry""#);
    std::fs::write(directory.join("fail"), "").expect("is written");
    wait_until("the result nobody waits for is there", || {
        directory.join("failed").exists()
    });
    let text = directory.display().to_string();
    assert_eq!(processes_mentioning(&text).len(), 1, "one still runs");

    regain(fleet);
    wait_until("it is back", || state(fleet, lost) == "ready");
    wait_until("what it was at is stopped", || {
        processes_mentioning(&text).is_empty()
    });
    wait_until("what came of it is refused", || fenced(fleet) >= 1.0);
    std::fs::write(directory.join("again"), "").expect("is written");
    let ended = run.end();
    expect_each_test_once(fleet, directory, &ended);
    for retry in ended.lines("infrastructure-retry") {
        assert_eq!(retry["agent"], *lost, "{retry}");
        assert_eq!(retry["next_attempt"], 2, "{retry}");
    }
    other
}

#[test]
fn an_agent_that_is_cut_off_costs_its_leases_and_works_again_later() {
    Network::with(|network| {
        let [first, second] = [Place(1), Place(2)];
        let mut fleet = Fleet::coordinator();
        let lost = fleet.add_agent_at(&network.url(fleet.url(), first), &[]);
        let add_other = |fleet: &mut Fleet| {
            let url = network.url(fleet.url(), second);
            fleet.add_agent_at(&url, &[])
        };
        let lose = |_: &mut Fleet| network.cut_off(&[first]);
        let regain = |_: &mut Fleet| network.join(&[first]);
        let other = lose_for_a_while(&mut fleet, &lost, add_other, [&lose, &regain]);

        Ended::of(fleet.command().args(["drain", &other])).expect_code(0);
        Ended::of(fleet.command().args(["exec", "--", "true"])).expect_code(0);
        fleet.stop();
    });
}

#[test]
fn a_coordinator_that_is_cut_off_from_everybody_goes_on_where_it_was() {
    Network::with(|network| {
        let places = [Place(1), Place(2)];
        let far = Place(3);
        let mut fleet = Fleet::coordinator();
        let agents = places.map(|place| fleet.add_agent_at(&network.url(fleet.url(), place), &[]));
        let project = project(|_| "echo >> waiting; await go".to_owned());
        let directory = project.path();
        let mut client = regatta();
        client.args(["--coordinator", &network.url(fleet.url(), far)]);
        let mut run = begin(client, directory);
        wait_until("every slot waits", || waiting(directory) == 4);
        run.expect_words(r#""type":"test""#);

        network.cut_off(&[places[0], places[1], far]);
        let are = |wanted: &str| agents.iter().all(|it| state(&fleet, it) == wanted);
        wait_until("all leases have expired", || are("lost"));
        run.expect_words("coordinator is away");
        // What the agents are at ends, and what they hold besides goes on, for nobody.
        std::fs::write(directory.join("go"), "").expect("is written");
        network.join(&places);
        wait_until("the agents are back", || are("ready"));
        wait_until("the run has ended", || {
            listed(&fleet)["state"] == "RELEASABLE"
        });
        network.join(&[far]);
        expect_each_test_once(&fleet, directory, &run.end());
        fleet.stop();
    });
}
