//! Late batches get a second lease, and each unit one answer.

use std::time::Duration;

use regatta_model::{AttemptNumber, TaskId, UnitIndex};

use super::fixture::{Fixture, agent, held, offer, report, submission};
use crate::{Effect, Event, ExpectedUnit, Grant, OutcomeKind, SchedulerConfig, Submission};

const SECOND: Duration = Duration::from_secs(1);

/// Units of a second each, late after two.
fn hasty(task: u64, units: usize) -> Submission {
    let unit = ExpectedUnit {
        late_after: Some(SECOND * 2),
        ..SECOND.into()
    };
    Submission {
        units: vec![unit; units],
        ..submission(task)
    }
}

fn granted(effects: &[Effect]) -> Vec<Grant> {
    let granted = effects.iter().filter_map(|effect| match effect {
        Effect::Granted(grant) => Some(grant.clone()),
        _ => None,
    });
    granted.collect()
}

/// Two agents with a slot each, of which the first is late with a batch and the second has begun it again.
fn late_batch(units: usize) -> (Fixture, Grant, Grant) {
    let mut fixture = Fixture::new(SchedulerConfig {
        heartbeat_interval: Duration::from_secs(3600),
        minimum_batch: Duration::from_secs(3600),
        ..SchedulerConfig::default()
    });
    fixture.connect("slow", offer(1));
    fixture.submit(hasty(1, units));
    let original = fixture.the_grant();
    fixture.report(report("slow", 2, vec![held(&original, &[], false)]));
    assert_eq!(original.units.len(), units);
    fixture.connect("idle", offer(1));
    assert_eq!(fixture.grants(), [], "it is not late yet");
    let late_after = SECOND * 2 * u32::try_from(units).expect("few");
    let early = fixture.pass(late_after - Duration::from_millis(1));
    assert_eq!(granted(&early), []);
    let effects = fixture.pass(Duration::from_millis(2));
    let [duplicate] = &granted(&effects)[..] else {
        panic!("{effects:?}");
    };
    assert_eq!(duplicate.agent, agent("idle"));
    assert_eq!(duplicate.duplicates, Some(original.lease));
    let unit_of = |(unit, attempt): &(UnitIndex, AttemptNumber)| (*unit, attempt.0 + 1);
    let expected: Vec<_> = original.units.iter().map(unit_of).collect();
    let found: Vec<_> = duplicate.units.iter().map(|it| (it.0, it.1.0)).collect();
    assert_eq!(found, expected, "the same units, as another attempt");
    (fixture, original, duplicate.clone())
}

fn answer(fixture: &mut Fixture, name: &str, grant: &Grant, finished: bool) {
    let kinds = vec![OutcomeKind::Answered; grant.units.len()];
    fixture.report(report(name, 9, vec![held(grant, &kinds, finished)]));
}

#[track_caller]
fn check_over(fixture: &mut Fixture) {
    assert_eq!(fixture.scheduler.leased_units, 0);
    assert_eq!(fixture.scheduler.queued_units, 0);
    assert!(fixture.scheduler.late.is_empty());
    let ends = fixture.pass(Duration::from_secs(60));
    assert_eq!(granted(&ends), []);
}

#[test]
fn the_first_answer_counts_and_the_other_is_fenced() {
    for duplicate_wins in [true, false] {
        let (mut fixture, original, duplicate) = late_batch(3);
        let (winner, loser) = match duplicate_wins {
            true => (("idle", &duplicate), ("slow", &original)),
            false => (("slow", &original), ("idle", &duplicate)),
        };
        answer(&mut fixture, winner.0, winner.1, true);
        let answers = fixture.answers();
        let lease = winner.1.lease;
        let expected = winner.1.units.iter();
        let expected: Vec<_> = expected.map(|it| (TaskId(1), it.0, lease)).collect();
        assert_eq!(answers, expected);
        assert!(fixture.has(&Effect::TaskFinished(TaskId(1))));
        let attempts = fixture.step.effects.iter().filter_map(|it| match it {
            Effect::UnitAnswered { attempt, .. } => Some(attempt.0),
            _ => None,
        });
        let attempt = if duplicate_wins { 2 } else { 1 };
        assert!(attempts.into_iter().all(|found| found == attempt));
        let told = fixture.step.effects.iter().filter_map(|it| match it {
            Effect::Desire(desired) => Some(desired.leases.len()),
            _ => None,
        });
        assert!(told.into_iter().all(|leases| leases == 0), "both may stop");
        answer(&mut fixture, loser.0, loser.1, true);
        assert_eq!(fixture.answers(), []);
        let fenced = fixture.step.effects.iter();
        let fenced = fenced.filter(|it| matches!(it, Effect::Fenced { .. }));
        assert_eq!(fenced.count(), 3);
        check_over(&mut fixture);
    }
}

#[test]
fn what_one_loses_the_other_still_has() {
    let broken = OutcomeKind::Infrastructure("disk".to_owned());
    for lost_first in ["idle", "slow"] {
        let (mut fixture, original, duplicate) = late_batch(1);
        let (lost, other, left) = match lost_first {
            "idle" => (&duplicate, "slow", &original),
            _ => (&original, "idle", &duplicate),
        };
        fixture.report(report(
            lost_first,
            9,
            vec![held(lost, std::slice::from_ref(&broken), true)],
        ));
        let is_retry = |it: &Effect| matches!(it, Effect::UnitRetried { .. });
        assert!(!fixture.step.effects.iter().any(is_retry));
        assert_eq!(fixture.grants(), []);
        assert_eq!(fixture.scheduler.leased_units, 1);
        answer(&mut fixture, other, left, true);
        assert_eq!(fixture.answers(), [(TaskId(1), UnitIndex(0), left.lease)]);
        check_over(&mut fixture);
    }
}

#[test]
fn what_both_lose_is_tried_again_once() {
    let (mut fixture, original, duplicate) = late_batch(1);
    let broken = [OutcomeKind::Infrastructure("disk".to_owned())];
    fixture.report(report("idle", 9, vec![held(&duplicate, &broken, true)]));
    fixture.report(report("slow", 9, vec![held(&original, &broken, true)]));
    let is_retry = |it: &&Effect| matches!(it, Effect::UnitRetried { .. });
    assert_eq!(fixture.step.effects.iter().filter(is_retry).count(), 1);
    let again = fixture.the_grant();
    assert_eq!(again.units, [(UnitIndex(0), AttemptNumber(3))]);
    assert_eq!(again.duplicates, None);
}

#[test]
fn an_agent_that_falls_silent_loses_nothing_that_is_run_twice() {
    let (mut fixture, _, duplicate) = late_batch(2);
    fixture.give(Event::AgentDisconnected(agent("slow")));
    let mut sequence = 10;
    let mut effects = Vec::new();
    while !effects.contains(&Effect::AgentLost(agent("slow"))) {
        sequence += 1;
        let state = report("idle", sequence, vec![held(&duplicate, &[], false)]);
        fixture.report(state);
        effects.extend(fixture.pass(Duration::from_secs(3600)));
        assert!(sequence < 20, "{effects:?}");
    }
    let is_retry = |it: &Effect| matches!(it, Effect::UnitRetried { .. });
    assert!(!effects.iter().any(is_retry));
    fixture.report(report(
        "idle",
        sequence + 1,
        vec![held(
            &duplicate,
            &[OutcomeKind::Answered, OutcomeKind::Answered],
            true,
        )],
    ));
    assert_eq!(fixture.answers().len(), 2);
    check_over(&mut fixture);
}

#[test]
fn a_batch_is_duplicated_once_whatever_becomes_of_it() {
    let (mut fixture, original, duplicate) = late_batch(1);
    fixture.connect("third", offer(1));
    let effects = fixture.pass(Duration::from_secs(600));
    assert_eq!(granted(&effects), []);
    let broken = [OutcomeKind::Infrastructure("disk".to_owned())];
    fixture.report(report("idle", 9, vec![held(&duplicate, &broken, true)]));
    let effects = fixture.pass(Duration::from_secs(600));
    assert_eq!((fixture.grants(), granted(&effects)), (vec![], vec![]));
    answer(&mut fixture, "slow", &original, true);
    assert_eq!(fixture.answers().len(), 1);
    check_over(&mut fixture);
}

#[test]
fn each_answers_what_the_other_has_not_yet() {
    let (mut fixture, original, duplicate) = late_batch(3);
    let first = [OutcomeKind::Answered];
    fixture.report(report("slow", 3, vec![held(&original, &first, false)]));
    assert_eq!(
        fixture.answers(),
        [(TaskId(1), UnitIndex(0), original.lease)]
    );
    answer(&mut fixture, "idle", &duplicate, true);
    let rest = [1, 2].map(|unit| (TaskId(1), UnitIndex(unit), duplicate.lease));
    assert_eq!(fixture.answers(), rest);
    check_over(&mut fixture);
}

#[test]
fn units_that_end_one_by_one_move_what_is_late() {
    let mut fixture = Fixture::new(SchedulerConfig {
        heartbeat_interval: Duration::from_secs(3600),
        minimum_batch: Duration::from_secs(3600),
        ..SchedulerConfig::default()
    });
    fixture.connect("slow", offer(1));
    fixture.submit(hasty(1, 8));
    let original = fixture.the_grant();
    fixture.connect("idle", offer(1));
    // Slower than expected, but each in time: sixteen seconds are long over.
    for answered in 1..=7 {
        let effects = fixture.pass(Duration::from_millis(1990));
        assert_eq!(granted(&effects), [], "after {answered}");
        let one = vec![OutcomeKind::Answered; answered];
        let sequence = 2 + u64::try_from(answered).expect("few");
        fixture.report(report("slow", sequence, vec![held(&original, &one, false)]));
        assert_eq!(fixture.grants(), []);
    }
    let effects = fixture.pass(SECOND * 2);
    let [duplicate] = &granted(&effects)[..] else {
        panic!("{effects:?}");
    };
    assert_eq!(duplicate.units, [(UnitIndex(7), AttemptNumber(2))]);
}

/// No second lease of a task, on a slow agent with a slot left, whatever else there is to do.
#[track_caller]
fn check_left_alone(submission: Submission, others: Vec<Submission>, idle: Option<u32>) {
    let mut fixture = Fixture::new(SchedulerConfig {
        heartbeat_interval: Duration::from_secs(3600),
        reserve_after: Duration::from_secs(3600),
        ..SchedulerConfig::default()
    });
    fixture.connect("slow", offer(2));
    fixture.submit(submission);
    let original = fixture.the_grant();
    fixture.report(report("slow", 2, vec![held(&original, &[], false)]));
    if let Some(slots) = idle {
        fixture.connect("idle", offer(slots));
    }
    for other in others {
        fixture.submit(other);
    }
    let effects = fixture.pass(Duration::from_secs(120));
    assert_eq!(granted(&effects), []);
}

#[test]
fn nothing_is_run_twice_that_must_not_be_or_where_it_would_take_a_place() {
    check_left_alone(submission(1), Vec::new(), Some(1));
    // The agent that is late has a slot left, and is no other.
    check_left_alone(hasty(1, 1), Vec::new(), None);
    // Work that needs all of the idle agent waits for the rest of it.
    let of_cpus = |task, cpu_milli| Submission {
        resources: regatta_model::Resources {
            cpu_milli,
            memory_bytes: 1,
        },
        ..submission(task)
    };
    let others = vec![of_cpus(2, 1000), of_cpus(3, 1000), of_cpus(4, 3000)];
    check_left_alone(hasty(1, 1), others, Some(3));
}
