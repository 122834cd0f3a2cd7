//! Agents and a coordinator that stand still for longer than their leases last, as a machine does that is suspended,
//! and then go on as if nothing had been.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::cut_off::{
    begin, expect_each_test_once, fenced, project, state, two_that_are_lost, waiting,
};
use super::fleet::{Fleet, processes_mentioning};
use super::program::{Running, wait_until};

/// How long the coordinator stands still: twice as long as agents may be silent.
const STANDSTILL: Duration = Duration::from_secs(30);
/// The slots of two agents.
const SLOTS: usize = 4;

/// Tests beyond the first ten say that they wait, and do so until they may go on.
fn that_wait(_: &Path) -> String {
    "echo >> waiting; await go".to_owned()
}

/// As many commands as there are slots are carried out at once: each waits for all.
#[track_caller]
fn expect_slots(fleet: &Fleet, slots: usize) {
    // Not below /tmp, of which each job has its own.
    let meeting = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let place = meeting.path().display();
    let begin = |slot: usize| {
        let wait = format!(
            "touch {place}/{slot}; until [ $(ls {place} | wc -l) -ge {slots} ]; do sleep 0.05; done"
        );
        let mut exec = fleet.command();
        Running::begin(exec.args(["exec", "--", "sh", "-c", &wait]))
    };
    let running: Vec<_> = (0..slots).map(begin).collect();
    for exec in running {
        exec.end().expect_code(0);
    }
}

fn are(fleet: &Fleet, agents: &[String], wanted: &str) -> bool {
    agents.iter().all(|it| state(fleet, it) == wanted)
}

#[test]
fn an_agent_that_is_paused_costs_its_leases_and_works_again_when_it_goes_on() {
    let mut fleet = Fleet::coordinator();
    let paused = fleet.add_agent(&[]);
    let project = project(two_that_are_lost);
    let directory = project.path();
    let mut run = begin(fleet.command(), directory);
    // Nobody else is there yet, so it is this agent that is at them.
    wait_until("two tests wait", || directory.join("lasting").exists());
    let other = fleet.add_agent(&[]);
    run.expect_words(&format!(r#""agent":"{other}""#));

    fleet.signal_agent(&paused, Signal::STOP);
    wait_until("its leases have expired", || {
        state(&fleet, &paused) == "lost"
    });
    run.expect_words(r#""type":"infrastructure-retry""#);
    std::fs::write(directory.join("fail"), "").expect("is written");
    wait_until("the result nobody waits for is there", || {
        directory.join("failed").exists()
    });
    let text = directory.display().to_string();
    assert_eq!(processes_mentioning(&text).len(), 1, "one still runs");

    fleet.signal_agent(&paused, Signal::CONT);
    wait_until("it is back", || state(&fleet, &paused) == "ready");
    wait_until("what it was at is stopped", || {
        processes_mentioning(&text).is_empty()
    });
    wait_until("what came of it is refused", || fenced(&fleet) >= 1.0);
    std::fs::write(directory.join("again"), "").expect("is written");
    let ended = run.end();
    expect_each_test_once(&fleet, directory, &ended);
    for retry in ended.lines("infrastructure-retry") {
        assert_eq!(retry["agent"], *paused, "{retry}");
        assert_eq!(retry["next_attempt"], 2, "{retry}");
    }
    expect_slots(&fleet, SLOTS);
    fleet.stop();
}

#[test]
fn agents_that_are_all_paused_take_up_the_run_when_they_go_on() {
    let mut fleet = Fleet::of(0);
    let agents = [(); 2].map(|()| fleet.add_agent(&[]));
    let project = project(that_wait);
    let directory = project.path();
    let mut run = begin(fleet.command(), directory);
    wait_until("every slot waits", || waiting(directory) == SLOTS);
    for agent in &agents {
        fleet.signal_agent(agent, Signal::STOP);
    }
    wait_until("all leases have expired", || are(&fleet, &agents, "lost"));
    run.expect_words_times(r#""type":"infrastructure-retry""#, SLOTS);
    // What they are at ends, for nobody.
    std::fs::write(directory.join("go"), "").expect("is written");
    for agent in &agents {
        fleet.signal_agent(agent, Signal::CONT);
    }
    let ended = run.end();
    assert!(are(&fleet, &agents, "ready"));
    expect_each_test_once(&fleet, directory, &ended);
    for retry in ended.lines("infrastructure-retry") {
        assert_eq!(retry["next_attempt"], 2, "{retry}");
    }
    expect_slots(&fleet, SLOTS);
    fleet.stop();
}

#[test]
fn a_coordinator_that_is_paused_goes_on_where_it_was() {
    let mut fleet = Fleet::of(0);
    let agents = [(); 2].map(|()| fleet.add_agent(&[]));
    let project = project(that_wait);
    let directory = project.path();
    let mut run = begin(fleet.command(), directory);
    wait_until("every slot waits", || waiting(directory) == SLOTS);
    run.expect_words(r#""type":"test""#);
    let paused = Instant::now();
    fleet.signal_coordinator(Signal::STOP);
    run.expect_words("coordinator is away");
    // What the agents are at ends, and nobody is there to hear of it.
    std::fs::write(directory.join("go"), "").expect("is written");
    // How long it stands still is the test's input; nothing is waited for.
    std::thread::sleep(STANDSTILL.saturating_sub(paused.elapsed()));
    fleet.signal_coordinator(Signal::CONT);
    let ended = run.end();
    expect_each_test_once(&fleet, directory, &ended);
    // Agents are not silent while nobody listens: what they did in the meantime counts.
    assert_eq!(ended.lines("infrastructure-retry").len(), 0, "{ended:#?}");
    assert!(are(&fleet, &agents, "ready"));
    expect_slots(&fleet, SLOTS);
    fleet.stop();
}
