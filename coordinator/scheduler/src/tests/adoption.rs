//! What agents hold from before a restart goes on.

use std::time::Duration;

use regatta_model::{Digest, FencingToken, LeaseId, SlotIndex, TaskId, UnitIndex};

use super::fixture::{Fixture, agent, offer, report, submission};
use crate::{
    AgentState, Claim, Effect, Event, ExpectedUnit, HeldLease, OutcomeKind, SchedulerConfig,
    Submission, UnitOutcome,
};

const WINDOW: Duration = Duration::from_secs(30);

/// A scheduler that is not the first, and grants from 100 on.
fn restarted() -> Fixture {
    Fixture::new(SchedulerConfig {
        first_token: FencingToken(100),
        adoption_window: WINDOW,
        ..SchedulerConfig::default()
    })
}

fn key(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

/// A task of one unit for each name.
fn named(task: u64, names: &[&str]) -> Submission {
    let unit = |name: &&str| ExpectedUnit {
        key: Some(key(name)),
        ..Duration::from_secs(1).into()
    };
    Submission {
        units: names.iter().map(unit).collect(),
        ..submission(task)
    }
}

/// A lease of the time before, whose units are called 10, 11, ... at the agent.
fn before(number: u64, names: &[&str]) -> HeldLease {
    let units = (10..).map(UnitIndex).zip(names);
    HeldLease {
        lease: LeaseId(number),
        token: FencingToken(number),
        slot: None,
        outcomes: Vec::new(),
        finished: false,
        claim: Some(Claim {
            tenant: submission(1).tenant,
            resources: submission(1).resources,
            units: units.map(|(unit, name)| (unit, Some(key(name)))).collect(),
            together: false,
            acknowledged: 0,
        }),
    }
}

/// The same with outcomes of the first units.
fn ended(number: u64, names: &[&str], outcomes: u32, finished: bool) -> HeldLease {
    let outcome = |index| UnitOutcome {
        unit: UnitIndex(10 + index),
        index,
        slot: SlotIndex(0),
        kind: OutcomeKind::Answered,
    };
    HeldLease {
        outcomes: (0..outcomes).map(outcome).collect(),
        finished,
        ..before(number, names)
    }
}

fn together(held: HeldLease) -> HeldLease {
    let claim = held.claim.map(|claim| Claim {
        together: true,
        ..claim
    });
    HeldLease { claim, ..held }
}

fn joining(name: &str, slots: u32, leases: Vec<HeldLease>) -> Event {
    Event::AgentReported(AgentState {
        offer: Some(offer(slots)),
        observed_version: 0,
        ..report(name, 1, leases)
    })
}

fn desired_leases(fixture: &Fixture) -> Vec<LeaseId> {
    let desired = fixture.desired().leases;
    desired.iter().map(|lease| lease.lease).collect()
}

#[test]
fn what_is_submitted_again_is_taken_up_whichever_comes_first() {
    for agent_is_first in [true, false] {
        let mut fixture = restarted();
        let join = joining("a", 1, vec![before(7, &["x", "y"])]);
        let submit = Event::Submit(named(1, &["y", "z", "x"]));
        if agent_is_first {
            fixture.give(join);
            assert_eq!(desired_leases(&fixture), [LeaseId(7)], "it goes on");
            fixture.give(submit);
        } else {
            fixture.give(submit);
            fixture.give(join);
        }
        let grant = fixture.the_grant();
        assert_eq!((grant.lease, grant.token), (LeaseId(7), FencingToken(7)));
        let units: Vec<_> = grant.units.iter().map(|(unit, _)| *unit).collect();
        assert_eq!(units, [UnitIndex(2), UnitIndex(0)]);
        assert_eq!(grant.adopted, Some(vec![UnitIndex(10), UnitIndex(11)]));
        let known = fixture.desired().leases;
        assert!(known.iter().all(|lease| lease.known_to_agent), "{known:?}");
        let later = report("a", 2, vec![ended(7, &["x", "y"], 2, true)]);
        fixture.report(later);
        let answers = [
            (TaskId(1), UnitIndex(2), LeaseId(7)),
            (TaskId(1), UnitIndex(0), LeaseId(7)),
        ];
        assert_eq!(fixture.answers(), answers);
        let rest = fixture.the_grant();
        assert_eq!(rest.units[0].0, UnitIndex(1), "what nobody had is begun");
        assert!(rest.token >= FencingToken(100));
    }
}

#[test]
fn outcomes_that_come_with_the_claim_count_at_once() {
    let mut fixture = restarted();
    fixture.submit(named(1, &["x", "y"]));
    fixture.give(joining("a", 1, vec![ended(7, &["x", "y"], 2, true)]));
    assert_eq!(fixture.answers().len(), 2);
    assert!(fixture.has(&Effect::TaskFinished(TaskId(1))));
}

#[test]
fn what_is_taken_up_and_answered_for_at_once_occupies_nothing_once_it_is_gone() {
    let mut fixture = restarted();
    fixture.submit(named(1, &["x"]));
    // Its outcome is there, and its slot is not free yet.
    fixture.give(joining("a", 1, vec![ended(7, &["x"], 1, false)]));
    assert_eq!(fixture.answers().len(), 1);
    fixture.submit(named(2, &["y"]));
    fixture.report(report("a", 2, Vec::new()));
    assert_eq!(fixture.the_grant().task, TaskId(2));
}

#[test]
fn what_was_taken_before_is_not_expected_again() {
    let mut fixture = restarted();
    fixture.submit(named(1, &["y"]));
    let mut held = ended(7, &["x", "y"], 2, true);
    held.outcomes.remove(0);
    held.claim.as_mut().unwrap().acknowledged = 1;
    fixture.give(joining("a", 1, vec![held]));
    assert_eq!(
        fixture.answers(),
        [(TaskId(1), UnitIndex(0), LeaseId(7))],
        "{:?}",
        fixture.step
    );
}

#[test]
fn an_outcome_that_nobody_waits_for_counts_for_nothing() {
    let mut fixture = restarted();
    fixture.submit(named(1, &["y"]));
    fixture.give(joining("a", 1, vec![ended(7, &["x", "y"], 1, false)]));
    assert_eq!(fixture.answers(), []);
    let fenced = Effect::Fenced {
        lease: LeaseId(7),
        agent: agent("a"),
    };
    assert!(fixture.has(&fenced), "{:?}", fixture.step);
    let later = report("a", 2, vec![ended(7, &["x", "y"], 2, true)]);
    fixture.report(later);
    assert_eq!(fixture.answers(), [(TaskId(1), UnitIndex(0), LeaseId(7))]);
}

#[test]
fn the_older_lease_is_preferred() {
    let mut fixture = restarted();
    fixture.submit(named(1, &["x"]));
    fixture.connect("b", offer(1));
    let anew = fixture.the_grant();
    fixture.give(joining("a", 1, vec![before(7, &["x"])]));
    assert_eq!(fixture.the_grant().lease, LeaseId(7));
    let withdrawn = fixture.step.effects.iter().any(|effect| match effect {
        Effect::Desire(desired) => desired.agent == agent("b") && desired.leases.is_empty(),
        _ => false,
    });
    assert!(withdrawn, "{:?}", fixture.step);
    let late = super::fixture::held(&anew, &[OutcomeKind::Answered], true);
    fixture.report(report("b", 2, vec![late]));
    assert_eq!(fixture.answers(), []);
    fixture.report(report("a", 2, vec![ended(7, &["x"], 1, true)]));
    assert_eq!(fixture.answers().len(), 1);
}

#[test]
fn of_two_that_hold_a_unit_one_has_it() {
    let mut fixture = restarted();
    fixture.give(joining("a", 1, vec![before(7, &["x"])]));
    fixture.give(joining("b", 1, vec![before(8, &["x"])]));
    fixture.submit(named(1, &["x"]));
    assert_eq!(fixture.the_grant().lease, LeaseId(7));
    fixture.report(report("b", 2, vec![ended(8, &["x"], 1, true)]));
    assert_eq!(fixture.answers(), []);
    fixture.report(report("a", 2, vec![ended(7, &["x"], 1, true)]));
    assert_eq!(fixture.answers().len(), 1);
}

#[test]
fn one_execution_of_several_units_answers_all_of_them_or_none() {
    let mut fixture = restarted();
    fixture.submit(named(1, &["x"]));
    fixture.give(joining("a", 1, vec![together(before(7, &["x", "y"]))]));
    assert_eq!(fixture.grants(), [], "its slot is taken, and not by this");
    fixture.submit(named(2, &["y", "x"]));
    assert_eq!(fixture.the_grant().lease, LeaseId(7));
}

#[test]
fn what_nobody_asks_for_is_let_go_of_in_time() {
    let mut fixture = restarted();
    fixture.give(joining("a", 1, vec![before(7, &["x"])]));
    fixture.submit(named(1, &["z"]));
    assert_eq!(fixture.grants(), [], "the slot is in use");
    fixture.now = fixture.now + Duration::from_secs(10);
    fixture.report(report("a", 2, vec![before(7, &["x"])]));
    fixture.now = fixture.now + Duration::from_secs(10);
    fixture.report(report("a", 3, vec![before(7, &["x"])]));
    let effects = fixture.pass(Duration::from_secs(11));
    let told = effects.iter().any(|effect| match effect {
        Effect::Desire(desired) => desired.leases.is_empty(),
        _ => false,
    });
    assert!(told, "{effects:?}");
    fixture.report(report("a", 4, Vec::new()));
    assert_eq!(fixture.the_grant().units.len(), 1, "the slot is free");
    fixture.submit(named(2, &["x"]));
    fixture.report(report("a", 5, vec![before(7, &["x"])]));
    assert_eq!(fixture.grants(), [], "a claim that comes later is void");
}

#[test]
fn a_lost_agent_has_no_claims() {
    let mut fixture = restarted();
    fixture.give(joining("a", 1, vec![before(7, &["x"])]));
    fixture.pass(Duration::from_secs(20));
    fixture.submit(named(1, &["x"]));
    fixture.connect("b", offer(1));
    let grant = fixture.the_grant();
    assert_eq!((grant.agent, grant.adopted), (agent("b"), None));
}

#[test]
fn nobody_claims_what_this_scheduler_granted_or_another_holds() {
    let mut fixture = restarted();
    fixture.submit(named(1, &["x"]));
    fixture.submit(named(2, &["y"]));
    fixture.connect("b", offer(1));
    let grant = fixture.the_grant();
    let forged = before(grant.lease.0, &["x"]);
    fixture.give(joining("a", 2, vec![forged, before(100_000, &["y"])]));
    assert_eq!(fixture.grants(), [], "it runs who knows what");
    fixture.report(report("a", 2, Vec::new()));
    assert_eq!(fixture.the_grant().adopted, None);
}

#[test]
fn the_first_scheduler_adopts_nothing() {
    let mut fixture = Fixture::new(SchedulerConfig::default());
    fixture.submit(named(1, &["x"]));
    fixture.give(joining("a", 1, vec![before(7, &["x"])]));
    assert_eq!(fixture.grants(), []);
}
