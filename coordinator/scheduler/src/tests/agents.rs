//! What agents report, and what they hold.

use std::time::Duration;

use regatta_model::{FencingToken, TaskId};

use super::fixture::{Fixture, agent, held, offer, report, submission, suite, unknown_lease};
use crate::{AgentState, Effect, Event, HeldLease, OutcomeKind, SchedulerConfig, Submission};

#[test]
fn tokens_are_reserved_before_they_are_granted_and_continue_after_a_restart() {
    let mut fixture = Fixture::new(SchedulerConfig {
        first_token: FencingToken(4097),
        ..SchedulerConfig::default()
    });
    fixture.connect("a", offer(2));
    fixture.submit(submission(1));
    assert_eq!(fixture.the_grant().token, FencingToken(4097));
    assert_eq!(
        fixture.step.commit,
        [crate::Record::TokensReserved(FencingToken(8192))]
    );
    fixture.submit(submission(2));
    assert_eq!(fixture.step.commit, []);
}

#[test]
fn a_silent_agent_loses_its_leases_and_is_fenced_when_it_comes_back() {
    let mut fixture = Fixture::default();
    fixture.connect("a", offer(1));
    fixture.submit(submission(1));
    let grant = fixture.the_grant();
    fixture.connect("b", offer(1));
    fixture.give(Event::AgentDisconnected(agent("a")));
    for sequence in [2, 3] {
        assert_eq!(fixture.pass(Duration::from_secs(7)), []);
        fixture.report(report("b", sequence, Vec::new()));
    }
    let effects = fixture.pass(Duration::from_secs(2));
    assert!(
        effects.contains(&Effect::AgentLost(agent("a"))),
        "{effects:?}"
    );
    let retried = effects
        .iter()
        .any(|effect| matches!(effect, Effect::UnitRetried { .. }));
    let granted = effects.iter().find_map(|effect| match effect {
        Effect::Granted(grant) => Some(grant.clone()),
        _ => None,
    });
    assert!(retried && granted.is_some_and(|second| second.token > grant.token));
    let late = vec![held(&grant, &[OutcomeKind::Answered], false)];
    fixture.report(AgentState {
        offer: Some(offer(1)),
        ..report("a", 1, late)
    });
    let fenced = Effect::Fenced {
        lease: grant.lease,
        agent: agent("a"),
    };
    assert!(fixture.has(&fenced) && fixture.answers().is_empty());
    assert_eq!(fixture.desired().leases, []);
}

#[test]
fn a_reconnect_within_the_time_keeps_the_work() {
    let mut fixture = Fixture::default();
    fixture.connect("a", offer(1));
    fixture.submit(submission(1));
    let grant = fixture.the_grant();
    assert!(!fixture.desired().leases[0].known_to_agent);
    fixture.report(report("a", 2, vec![held(&grant, &[], false)]));
    fixture.give(Event::AgentDisconnected(agent("a")));
    assert_eq!(fixture.pass(Duration::from_secs(14)), []);
    let first = report("a", 1, vec![held(&grant, &[], false)]);
    fixture.report(AgentState {
        offer: Some(offer(1)),
        ..first
    });
    assert_eq!(fixture.desired().leases[0].lease, grant.lease);
    assert!(fixture.desired().leases[0].known_to_agent);
    fixture.report(report(
        "a",
        2,
        vec![held(&grant, &[OutcomeKind::Answered], true)],
    ));
    assert_eq!(fixture.answers().len(), 1);
}

#[test]
fn a_restarted_agent_has_lost_what_it_held_but_not_what_it_never_saw() {
    let mut fixture = Fixture::default();
    fixture.connect("a", offer(2));
    fixture.submit(submission(1));
    let first = fixture.the_grant();
    fixture.report(AgentState {
        observed_version: 2,
        ..report("a", 2, vec![held(&first, &[], false)])
    });
    fixture.submit(submission(2));
    let unseen = fixture.the_grant();
    fixture.connect("a", offer(2));
    let kept = fixture.desired().leases;
    assert!(
        kept.iter()
            .any(|lease| lease.lease == unseen.lease && !lease.known_to_agent)
    );
    assert!(!kept.iter().any(|lease| lease.lease == first.lease));
}

#[test]
fn a_reported_lease_with_another_token_is_fenced_and_blocks_new_work() {
    let mut fixture = Fixture::default();
    fixture.connect("a", offer(2));
    fixture.submit(submission(1));
    let grant = fixture.the_grant();
    let forged = HeldLease {
        token: FencingToken(99),
        ..held(&grant, &[OutcomeKind::Answered], true)
    };
    fixture.report(AgentState {
        observed_version: 0,
        ..report("a", 2, vec![forged])
    });
    assert!(fixture.has(&Effect::Fenced {
        lease: grant.lease,
        agent: agent("a")
    }));
    assert!(fixture.answers().is_empty());
    let leases = vec![held(&grant, &[], false), unknown_lease(77)];
    fixture.report(AgentState {
        observed_version: 0,
        ..report("a", 3, leases)
    });
    fixture.submit(submission(2));
    assert_eq!(fixture.grants(), []);
    let only_its_own = vec![held(&grant, &[], false)];
    fixture.report(AgentState {
        observed_version: 0,
        ..report("a", 4, only_its_own)
    });
    assert_eq!(fixture.the_grant().task, TaskId(2));
}

#[test]
fn each_outcome_counts_once_however_often_it_is_reported() {
    let mut fixture = Fixture::default();
    fixture.connect("a", offer(1));
    fixture.submit(Submission {
        batch_overhead: Duration::from_secs(1),
        ..suite(1, 3)
    });
    let grant = fixture.the_grant();
    assert_eq!(grant.units.len(), 3);
    let answered = OutcomeKind::Answered;
    let one = held(&grant, std::slice::from_ref(&answered), false);
    fixture.report(report("a", 2, vec![one.clone()]));
    assert_eq!(fixture.answers().len(), 1);
    assert_eq!(fixture.desired().leases[0].acknowledged_outcomes, 1);
    fixture.report(report("a", 3, vec![one]));
    assert_eq!(
        (fixture.answers().len(), fixture.step.effects.len()),
        (0, 0)
    );
    let all = [answered.clone(), answered.clone(), answered];
    fixture.report(report("a", 4, vec![held(&grant, &all, true)]));
    assert_eq!(fixture.answers().len(), 2);
    assert!(fixture.has(&Effect::TaskFinished(TaskId(1))));
    assert_eq!(fixture.desired().leases, []);
}

#[test]
fn what_an_absent_agent_missed_it_is_told_when_it_reports_again() {
    let mut fixture = Fixture::default();
    fixture.connect("a", offer(1));
    fixture.submit(submission(1));
    let grant = fixture.the_grant();
    fixture.report(report("a", 2, vec![held(&grant, &[], false)]));
    fixture.give(Event::DrainAgent(agent("a"), true));
    fixture.give(Event::AgentDisconnected(agent("a")));
    fixture.give(Event::DrainAgent(agent("a"), false));
    fixture.report(report("a", 3, vec![held(&grant, &[], false)]));
    assert!(!fixture.desired().drain);
}

#[test]
fn an_outcome_without_those_before_it_loses_the_lease() {
    let mut fixture = Fixture::default();
    fixture.connect("a", offer(1));
    fixture.submit(Submission {
        batch_overhead: Duration::from_secs(1),
        ..suite(1, 3)
    });
    let grant = fixture.the_grant();
    let mut gap = held(
        &grant,
        &[OutcomeKind::Answered, OutcomeKind::Answered],
        false,
    );
    gap.outcomes.remove(0);
    fixture.report(report("a", 2, vec![gap]));
    let reasons: Vec<&str> = (fixture.step.effects.iter())
        .filter_map(|effect| match effect {
            Effect::UnitRetried { reason, .. } => Some(reason.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(reasons.len(), 3, "{:?}", fixture.step);
    assert!(
        reasons[0].contains("outcome 1") && reasons[0].contains("only 0"),
        "{reasons:?}"
    );
    assert_eq!(fixture.desired().leases, []);
    assert!(fixture.answers().is_empty());
}

#[test]
fn versions_keep_growing_when_the_agent_knows_an_older_coordinator() {
    let mut fixture = Fixture::default();
    let first = report("a", 1, Vec::new());
    let observed_version = 500;
    fixture.report(AgentState {
        offer: Some(offer(1)),
        observed_version,
        ..first
    });
    assert_eq!(fixture.desired().version, 501);
    fixture.submit(submission(1));
    let grant = fixture.the_grant();
    fixture.report(AgentState {
        observed_version: 501,
        ..report("a", 2, Vec::new())
    });
    assert_eq!(
        fixture.step.effects,
        [],
        "it cannot have seen {grant:?} yet"
    );
}
