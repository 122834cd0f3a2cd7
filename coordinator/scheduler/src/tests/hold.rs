//! Times in which nothing new is begun.

use std::time::Duration;

use regatta_model::{TaskId, UnitIndex};

use super::fixture::{Fixture, held, offer, report, submission, suite};
use crate::{Effect, Event, OutcomeKind, SchedulerConfig, UnitError};

const FULL: &str = "the store is full";
const LIMIT: Duration = Duration::from_secs(100);

fn fixture() -> Fixture {
    Fixture::new(SchedulerConfig {
        hold_limit: LIMIT,
        no_agent_grace: LIMIT * 10,
        ..SchedulerConfig::default()
    })
}

fn hold() -> Event {
    Event::Hold(Some(FULL.to_owned()))
}

#[test]
fn what_is_leased_goes_on_and_what_waits_is_begun_once_that_is_over() {
    let mut fixture = fixture();
    fixture.connect("a", offer(1));
    fixture.submit(submission(1));
    let begun = fixture.the_grant();
    fixture.submit(submission(2));
    fixture.give(hold());
    assert_eq!(fixture.scheduler.held(), Some(FULL));
    let answered = held(&begun, &[OutcomeKind::Answered], true);
    fixture.report(report("a", 2, vec![answered]));
    assert_eq!(fixture.answers().len(), 1);
    assert_eq!(fixture.grants(), []);
    fixture.connect("b", offer(1));
    assert_eq!(fixture.grants(), []);
    fixture.give(Event::Hold(None));
    assert_eq!(fixture.the_grant().task, TaskId(2));
    assert_eq!(fixture.scheduler.snapshot().held, None);
}

#[test]
fn what_waits_for_too_long_while_nothing_is_begun_is_given_up_and_no_sooner() {
    let mut fixture = fixture();
    fixture.submit(suite(1, 3));
    // That it has waited before does not count.
    fixture.pass(LIMIT);
    fixture.give(hold());
    let is_failed = |effect: &Effect| matches!(effect, Effect::UnitFailed { .. });
    let early = fixture.pass(LIMIT - Duration::from_secs(1));
    assert!(!early.iter().any(is_failed), "{early:?}");
    fixture.submit(submission(2));
    let late = fixture.pass(LIMIT / 10 + Duration::from_secs(1));
    let error = UnitError::Held {
        waited: LIMIT,
        reason: FULL.to_owned(),
    };
    let failed: Vec<_> = late.iter().filter(|it| is_failed(it)).cloned().collect();
    let expected = (0..3).map(|unit| Effect::UnitFailed {
        task: TaskId(1),
        unit: UnitIndex(unit),
        error: error.clone(),
    });
    assert_eq!(failed, expected.collect::<Vec<_>>());
    // What came later has as long.
    let early = fixture.pass(LIMIT - LIMIT / 10 - Duration::from_secs(2));
    assert!(!early.iter().any(is_failed), "{early:?}");
    fixture.give(Event::Hold(None));
    fixture.connect("a", offer(1));
    assert_eq!(fixture.the_grant().task, TaskId(2));
}

#[test]
fn what_could_not_be_begun_waits_again_and_nobody_is_blamed() {
    let mut fixture = Fixture::new(SchedulerConfig {
        max_attempts: 1,
        max_consecutive_losses: 1,
        ..SchedulerConfig::default()
    });
    fixture.connect("a", offer(1));
    fixture.submit(suite(1, 2));
    let grant = fixture.the_grant();
    fixture.give(hold());
    fixture.give(Event::ReturnLease(grant.lease));
    for (unit, _) in &grant.units {
        let (task, unit) = (TaskId(1), *unit);
        assert!(fixture.has(&Effect::UnitReturned { task, unit }));
    }
    assert_eq!(fixture.desired().leases, []);
    assert_eq!(fixture.scheduler.snapshot().leased_units, 0);
    // The agent says that it does not have it.
    fixture.report(report("a", 2, Vec::new()));
    fixture.give(Event::Hold(None));
    assert_eq!(
        fixture.the_grant().units,
        grant.units,
        "as the first attempt"
    );
}

#[test]
fn what_an_agent_has_is_not_given_back() {
    let mut fixture = fixture();
    fixture.connect("a", offer(1));
    fixture.submit(submission(1));
    let grant = fixture.the_grant();
    fixture.report(report("a", 2, vec![held(&grant, &[], false)]));
    fixture.give(hold());
    fixture.give(Event::ReturnLease(grant.lease));
    assert_eq!(fixture.scheduler.snapshot().leased_units, 1);
}
