//! What machines lose.

use std::time::Duration;

use regatta_model::TaskId;

use super::fixture::{Fixture, agent, failed, held, offer, report, submission};
use crate::{Effect, OutcomeKind, SchedulerConfig, UnitError};

fn infra() -> OutcomeKind {
    OutcomeKind::Infrastructure("broken".to_owned())
}

#[test]
fn a_lost_unit_prefers_another_agent_and_is_given_up_after_its_attempts() {
    let mut fixture = Fixture::default();
    fixture.connect("a", offer(1));
    fixture.submit(submission(1));
    let first = fixture.the_grant();
    fixture.connect("b", offer(1));
    fixture.submit(submission(2));
    let busy = fixture.the_grant();
    fixture.report(report("a", 2, vec![held(&first, &[infra()], true)]));
    assert_eq!(
        fixture.grants(),
        [],
        "the agent that lost it waits for the other"
    );
    fixture.report(report(
        "b",
        2,
        vec![held(&busy, &[OutcomeKind::Answered], true)],
    ));
    let second = fixture.the_grant();
    assert_eq!((second.agent.clone(), second.units[0].1.0), (agent("b"), 2));
    fixture.report(report(
        "b",
        3,
        vec![held(&second, &[OutcomeKind::Cancelled], true)],
    ));
    let third = fixture.the_grant();
    assert_eq!((third.agent.clone(), third.units[0].1.0), (agent("a"), 3));
    fixture.report(report("a", 3, vec![held(&third, &[], true)]));
    let last_reason = "the agent ended it without an outcome".to_owned();
    let error = UnitError::AttemptsExhausted {
        attempts: 3,
        last_reason,
    };
    assert!(fixture.has(&failed(1, error)), "{:?}", fixture.step);
    assert!(fixture.has(&Effect::TaskFinished(TaskId(1))));
}

#[test]
fn what_one_agent_lacks_is_tried_on_another_and_is_an_answer_when_none_is_left() {
    let lacking = || OutcomeKind::Unsuitable("no such image here".to_owned());
    let answered = |fixture: &Fixture| {
        let mut effects = fixture.step.effects.iter();
        effects.any(|effect| matches!(effect, Effect::UnitAnswered { .. }))
    };
    let mut fixture = Fixture::default();
    fixture.connect("a", offer(1));
    fixture.submit(submission(1));
    let alone = fixture.the_grant();
    fixture.report(report("a", 2, vec![held(&alone, &[lacking()], true)]));
    assert!(answered(&fixture), "{:?}", fixture.step);

    fixture.connect("b", offer(1));
    fixture.submit(submission(2));
    let first = fixture.the_grant();
    let (one, other) = if first.agent == agent("a") {
        (("a", 3), ("b", 2))
    } else {
        (("b", 2), ("a", 3))
    };
    fixture.report(report(one.0, one.1, vec![held(&first, &[lacking()], true)]));
    assert!(!answered(&fixture), "{:?}", fixture.step);
    let second = fixture.the_grant();
    assert_eq!(second.agent, agent(other.0));
    fixture.report(report(
        other.0,
        other.1,
        vec![held(&second, &[OutcomeKind::Answered], true)],
    ));
    assert!(answered(&fixture), "{:?}", fixture.step);
}

#[test]
fn what_cannot_be_reached_is_lost_and_pauses_nobody() {
    let mut fixture = Fixture::new(SchedulerConfig {
        max_consecutive_losses: 1,
        ..SchedulerConfig::default()
    });
    fixture.connect("a", offer(1));
    fixture.submit(submission(1));
    let last_reason = "no registry".to_owned();
    for sequence in 2..=4 {
        let grant = fixture.the_grant();
        let unreachable = OutcomeKind::Unreachable(last_reason.clone());
        fixture.report(report(
            "a",
            sequence,
            vec![held(&grant, &[unreachable], true)],
        ));
    }
    let error = UnitError::AttemptsExhausted {
        attempts: 3,
        last_reason,
    };
    assert!(fixture.has(&failed(1, error)), "{:?}", fixture.step);
    fixture.submit(submission(2));
    fixture.the_grant();
}

#[test]
fn an_agent_that_loses_too_much_in_a_row_gets_a_pause() {
    let mut fixture = Fixture::new(SchedulerConfig {
        max_consecutive_losses: 2,
        ..SchedulerConfig::default()
    });
    fixture.connect("a", offer(1));
    fixture.submit(submission(1));
    let first = fixture.the_grant();
    fixture.report(report("a", 2, vec![held(&first, &[infra()], true)]));
    let second = fixture.the_grant();
    fixture.report(report("a", 3, vec![held(&second, &[infra()], true)]));
    assert_eq!(fixture.grants(), []);
    for sequence in 4..9 {
        fixture.pass(Duration::from_secs(10));
        fixture.report(report("a", sequence, Vec::new()));
        assert_eq!(fixture.grants(), []);
    }
    let effects = fixture.pass(Duration::from_secs(10));
    assert!(
        effects
            .iter()
            .any(|effect| matches!(effect, Effect::Granted(_))),
        "{effects:?}"
    );
}
