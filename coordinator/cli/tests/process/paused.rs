//! Agents and a coordinator that stand still for longer than their leases last, as a machine does that is suspended,
//! and then go on as if nothing had been.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::cut_off::{begin, expect_each_test_once, lose_for_a_while, project, state, waiting};
use super::fleet::Fleet;
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

/// A run of which every slot of two agents waits for a test.
struct Waiting {
    fleet: Fleet,
    agents: [String; 2],
    project: tempfile::TempDir,
    run: Running,
}

impl Waiting {
    fn begin() -> Self {
        let mut fleet = Fleet::of(0);
        let agents = [(); 2].map(|()| fleet.add_agent(&[]));
        let project = project(that_wait);
        let run = begin(fleet.command(), project.path());
        wait_until("every slot waits", || waiting(project.path()) == SLOTS);
        Self {
            fleet,
            agents,
            project,
            run,
        }
    }
}

#[test]
fn an_agent_that_is_paused_costs_its_leases_and_works_again_when_it_goes_on() {
    let mut fleet = Fleet::coordinator();
    let paused = fleet.add_agent(&[]);
    let add_other = |fleet: &mut Fleet| fleet.add_agent(&[]);
    let pause = |fleet: &mut Fleet| fleet.signal_agent(&paused, Signal::STOP);
    let go_on = |fleet: &mut Fleet| fleet.signal_agent(&paused, Signal::CONT);
    lose_for_a_while(&mut fleet, &paused, add_other, [&pause, &go_on]);
    expect_slots(&fleet, SLOTS);
    fleet.stop();
}

#[test]
fn agents_that_are_all_paused_take_up_the_run_when_they_go_on() {
    let Waiting {
        mut fleet,
        agents,
        project,
        mut run,
    } = Waiting::begin();
    let directory = project.path();
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
    wait_until("all agents are back", || are(&fleet, &agents, "ready"));
    expect_each_test_once(&fleet, directory, &ended);
    for retry in ended.lines("infrastructure-retry") {
        assert_eq!(retry["next_attempt"], 2, "{retry}");
    }
    expect_slots(&fleet, SLOTS);
    fleet.stop();
}

#[test]
fn a_coordinator_that_is_paused_goes_on_where_it_was() {
    let Waiting {
        fleet,
        agents,
        project,
        mut run,
    } = Waiting::begin();
    let directory = project.path();
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
    wait_until("all agents are back", || are(&fleet, &agents, "ready"));
    expect_slots(&fleet, SLOTS);
    fleet.stop();
}
