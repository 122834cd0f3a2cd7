//! What is bounded: what may wait, how often an agent is blamed, how long anything is counted on.

use std::time::Duration;

use regatta_model::{Platform, Resources, TaskId};

use super::fixture::{
    Fixture, agent, held, merged, offer, report, submission, suite, unknown_lease,
};
use crate::{AdmissionError, AgentState, Effect, Event, OutcomeKind, SchedulerConfig, Submission};

fn refusal(fixture: &Fixture) -> Option<AdmissionError> {
    fixture.step.effects.iter().find_map(|effect| match effect {
        Effect::Refused { error, .. } => Some(error.clone()),
        _ => None,
    })
}

fn of_tenant(tenant: &str, submission: Submission) -> Submission {
    Submission {
        tenant: tenant.parse().unwrap(),
        ..submission
    }
}

#[test]
fn a_tenant_fills_its_own_part_of_the_queue_alone() {
    let mut fixture = Fixture::new(SchedulerConfig {
        queue_limit_units: 10,
        ..SchedulerConfig::default()
    });
    fixture.submit(of_tenant("greedy", suite(1, 3)));
    fixture.submit(of_tenant("greedy", suite(2, 3)));
    let full = AdmissionError::TenantQueueFull {
        queued: 3,
        limit: 5,
        retry_after: Duration::from_secs(5),
    };
    assert_eq!(refusal(&fixture), Some(full));
    fixture.submit(of_tenant("other", suite(3, 5)));
    assert_eq!(refusal(&fixture), None);
    fixture.submit(of_tenant("greedy", suite(4, 2)));
    assert_eq!(refusal(&fixture), None);
    fixture.submit(of_tenant("third", suite(5, 1)));
    assert!(matches!(
        refusal(&fixture),
        Some(AdmissionError::QueueFull { queued: 10, .. })
    ));
}

#[test]
fn merged_submitters_count_towards_their_tenant_until_they_are_gone() {
    let mut fixture = Fixture::new(SchedulerConfig {
        queue_limit_units: 4,
        ..SchedulerConfig::default()
    });
    fixture.submit(merged(1, "run", 1));
    fixture.submit(merged(2, "run", 1));
    fixture.submit(merged(3, "run", 1));
    assert!(matches!(
        refusal(&fixture),
        Some(AdmissionError::TenantQueueFull { queued: 2, .. })
    ));
    fixture.give(Event::CancelTask(TaskId(2)));
    fixture.submit(merged(4, "run", 1));
    assert_eq!(refusal(&fixture), None);
}

#[test]
fn so_many_different_requirements_may_be_under_way_and_no_more() {
    let mut fixture = Fixture::new(SchedulerConfig {
        requirement_limit: 3,
        ..SchedulerConfig::default()
    });
    let sized = |task, cpu_milli| Submission {
        resources: Resources {
            cpu_milli,
            memory_bytes: 1,
        },
        ..submission(task)
    };
    for task in 0..3 {
        fixture.submit(sized(task, task));
        assert_eq!(refusal(&fixture), None);
    }
    let full = AdmissionError::TooManyRequirements {
        limit: 3,
        retry_after: Duration::from_secs(5),
    };
    fixture.submit(of_tenant("other", sized(3, 3)));
    assert_eq!(refusal(&fixture), Some(full.clone()));
    fixture.submit(sized(4, 1));
    assert_eq!(refusal(&fixture), None);
    fixture.submit(Submission {
        priority: 7,
        ..sized(5, 1)
    });
    assert_eq!(refusal(&fixture), Some(full));
    fixture.give(Event::CancelTask(TaskId(0)));
    fixture.submit(sized(6, 3));
    assert_eq!(refusal(&fixture), None);
}

#[test]
fn an_agent_that_loses_all_it_held_at_once_is_blamed_once() {
    let mut fixture = Fixture::new(SchedulerConfig::default());
    fixture.connect("a", offer(8));
    for task in 0..8 {
        fixture.submit(submission(task));
    }
    let grants = 8;
    let restarted = AgentState {
        offer: Some(offer(8)),
        observed_version: 1_000_000,
        ..report("a", 1, Vec::new())
    };
    fixture.report(restarted);
    assert_eq!(
        fixture.scheduler.snapshot().agents[0].cooling_off_until,
        None
    );
    assert_eq!(fixture.grants().len(), grants, "it gets them all again");
}

#[test]
fn an_idle_agent_takes_what_waits_behind_more_than_it_has_to_avoid() {
    let mut fixture = Fixture::new(SchedulerConfig::default());
    fixture.connect("a", offer(12));
    for task in 0..12 {
        fixture.submit(submission(task));
    }
    // There is another agent, so that what is lost waits for it, but it has no room.
    fixture.connect("b", offer(1));
    fixture.submit(submission(100));
    assert_eq!(fixture.the_grant().agent, agent("b"));
    fixture.report(AgentState {
        observed_version: 1_000_000,
        ..report("a", 2, Vec::new())
    });
    assert_eq!(fixture.grants(), [], "all of it waits for the other agent");
    fixture.submit(submission(200));
    let grant = fixture.the_grant();
    assert_eq!((grant.task, grant.agent), (TaskId(200), agent("a")));
    // The same when the agent asks rather than the task.
    fixture.give(Event::DrainAgent(agent("a"), true));
    fixture.submit(submission(201));
    assert_eq!(fixture.grants(), []);
    fixture.give(Event::DrainAgent(agent("a"), false));
    assert_eq!(fixture.the_grant().task, TaskId(201));
}

#[test]
fn a_lease_that_is_never_let_go_is_not_counted_on_for_ever() {
    let mut fixture = Fixture::new(SchedulerConfig::default());
    fixture.connect("a", offer(1));
    fixture.submit(submission(1));
    let grant = fixture.the_grant();
    fixture.give(Event::CancelTask(TaskId(1)));
    fixture.submit(submission(2));
    let mut failures = Vec::new();
    for sequence in 2..60 {
        fixture.report(report("a", sequence, vec![held(&grant, &[], false)]));
        failures.append(&mut fixture.step.effects);
        failures.append(&mut fixture.pass(Duration::from_secs(5)));
        if sequence < 20 {
            assert!(
                !failures
                    .iter()
                    .any(|it| matches!(it, Effect::UnitFailed { .. }))
            );
        }
    }
    let reason = failures.iter().find_map(|effect| match effect {
        Effect::UnitFailed { task, error, .. } if *task == TaskId(2) => Some(error.to_string()),
        _ => None,
    });
    let expected = "no agent can run it: the nearest, a, lacks readiness: it has not let go of work \
                    that it was told to stop";
    assert_eq!(reason.as_deref(), Some(expected));
    // Once it lets go after all, it is counted on again.
    fixture.submit(submission(3));
    let ended = held(&grant, &[OutcomeKind::Cancelled], true);
    fixture.report(report("a", 60, vec![ended]));
    assert_eq!(fixture.the_grant().task, TaskId(3));
}

#[test]
fn what_is_not_its_own_keeps_an_agent_from_work_but_work_does_not_wait_for_ever() {
    let mut fixture = Fixture::new(SchedulerConfig::default());
    fixture.connect("a", offer(1));
    fixture.report(report("a", 2, vec![unknown_lease(77)]));
    fixture.submit(submission(1));
    let mut effects = Vec::new();
    for sequence in 3..60 {
        effects.append(&mut fixture.pass(Duration::from_secs(5)));
        fixture.report(report("a", sequence, vec![unknown_lease(77)]));
        effects.append(&mut fixture.step.effects);
    }
    assert!(
        effects.contains(&Effect::TaskFinished(TaskId(1))),
        "{effects:?}"
    );
}

#[test]
fn an_agents_reason_to_refuse_work_reaches_whoever_waits() {
    let mut fixture = Fixture::new(SchedulerConfig::default());
    let refusal = Some("disk full: make room in /var/lib/regatta".to_owned());
    fixture.report(AgentState {
        offer: Some(offer(1)),
        refusal,
        ..report("a", 1, Vec::new())
    });
    fixture.submit(submission(1));
    let mut told = String::new();
    for sequence in 2..20 {
        told += &format!("{:?}", fixture.pass(Duration::from_secs(5)));
        fixture.report(AgentState {
            refusal: Some("disk full: make room in /var/lib/regatta".to_owned()),
            ..report("a", sequence, Vec::new())
        });
    }
    let expected = "readiness: it takes no new work: disk full: make room in /var/lib/regatta";
    assert!(told.contains(expected), "{told}");
    let snapshot = fixture.scheduler.snapshot();
    assert!(snapshot.agents[0].refusal.is_some());
}

#[test]
fn requirements_that_are_remembered_are_bounded() {
    let mut fixture = Fixture::new(SchedulerConfig::default());
    for task in 0..2000 {
        let value = format!("value-{task}");
        fixture.submit(Submission {
            platform: Platform::new([("name", value)]),
            ..submission(task)
        });
        fixture.give(Event::CancelTask(TaskId(task)));
    }
    let remembered = fixture.scheduler.fleet.classes.iter().count();
    assert!(remembered <= 256, "{remembered}");
}
