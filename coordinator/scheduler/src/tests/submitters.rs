//! What becomes of work, as its submitters see it.

use std::time::Duration;

use regatta_model::{Platform, Resources, TaskId};

use super::fixture::{Fixture, agent, failed, held, merged, offer, report, submission, suite};
use crate::{
    AdmissionError, Effect, Event, Offer, OutcomeKind, SchedulerConfig, Submission, UnitError,
};

#[test]
fn cancelled_work_gives_its_capacity_back_only_when_the_agent_let_go() {
    let mut fixture = Fixture::default();
    fixture.connect("a", offer(1));
    fixture.submit(submission(1));
    let grant = fixture.the_grant();
    fixture.submit(submission(2));
    fixture.give(Event::CancelTask(TaskId(1)));
    assert!(fixture.has(&failed(1, UnitError::Cancelled)));
    assert!(fixture.has(&Effect::TaskFinished(TaskId(1))));
    assert_eq!(
        (fixture.desired().leases, fixture.grants()),
        (vec![], vec![])
    );
    fixture.report(report("a", 2, vec![held(&grant, &[], false)]));
    assert_eq!(fixture.grants(), []);
    fixture.report(report(
        "a",
        3,
        vec![held(&grant, &[OutcomeKind::Cancelled], true)],
    ));
    assert_eq!(fixture.the_grant().task, TaskId(2));
}

#[test]
fn a_cancelled_run_takes_only_its_own() {
    let mut fixture = Fixture::default();
    fixture.submit(merged(1, "one", 1));
    fixture.submit(merged(2, "two", 1));
    fixture.submit(Submission {
        run: "one".parse().unwrap(),
        ..submission(3)
    });
    fixture.give(Event::CancelRun(
        "tenant".parse().unwrap(),
        "one".parse().unwrap(),
    ));
    for (task, gone) in [(1, true), (2, false), (3, true)] {
        assert_eq!(fixture.has(&Effect::TaskFinished(TaskId(task))), gone);
    }
    fixture.connect("a", offer(3));
    assert_eq!(fixture.the_grant().task, TaskId(2));
}

#[test]
fn equal_work_is_done_once_and_answers_everyone() {
    let mut fixture = Fixture::default();
    fixture.connect("a", offer(1));
    fixture.submit(merged(1, "one", 2));
    let grant = fixture.the_grant();
    fixture.report(report(
        "a",
        2,
        vec![held(&grant, &[OutcomeKind::Answered], true)],
    ));
    let second = fixture.the_grant();
    fixture.submit(merged(2, "two", 2));
    assert!(fixture.has(&Effect::Merged {
        task: TaskId(2),
        into: TaskId(1)
    }));
    assert_eq!(
        fixture.answers(),
        [(TaskId(2), grant.units[0].0, grant.lease)]
    );
    fixture.give(Event::CancelTask(TaskId(1)));
    fixture.report(report(
        "a",
        3,
        vec![held(&second, &[OutcomeKind::Answered], true)],
    ));
    assert_eq!(
        fixture.answers(),
        [(TaskId(2), second.units[0].0, second.lease)]
    );
    assert!(fixture.has(&Effect::TaskFinished(TaskId(2))));
    fixture.submit(merged(3, "two", 2));
    assert_eq!(
        fixture.the_grant().task,
        TaskId(3),
        "finished work is not merged into"
    );
}

/// Submits one task to a fleet of three machines and checks what it is said to lack.
#[track_caller]
fn check_mismatch(submission: Submission, nearest: &str, mismatch: &str) {
    let mut fixture = Fixture::default();
    for (name, os, arch) in [
        ("a", "linux", "amd64"),
        ("b", "linux", "arm64"),
        ("c", "mac", "x"),
    ] {
        let platform = Platform::new([("OSFamily", os), ("Arch", arch)]);
        fixture.connect(
            name,
            Offer {
                platform,
                ..offer(2)
            },
        );
    }
    fixture.submit(submission);
    assert_eq!(fixture.pass(Duration::from_millis(9_999)), []);
    let effects = fixture.pass(Duration::from_millis(1));
    let (nearest, mismatch) = (nearest.to_owned(), mismatch.to_owned());
    let error = UnitError::Unsatisfiable { nearest, mismatch };
    assert_eq!(effects, [failed(1, error), Effect::TaskFinished(TaskId(1))]);
}

#[test]
fn work_that_no_agent_can_run_fails_with_the_nearest_mismatch() {
    let needs = |os: &str, arch: &str| Submission {
        platform: Platform::new([("OSFamily", os), ("Arch", arch)]),
        ..submission(1)
    };
    check_mismatch(needs("linux", "riscv"), "a", "Arch=riscv (offered: amd64)");
    check_mismatch(needs("mac", "arm64"), "b", "OSFamily=mac (offered: linux)");
    let resources = Resources {
        cpu_milli: 9000,
        memory_bytes: 1,
    };
    let lacks = "9000 thousandths of a CPU (offered: 2000)";
    check_mismatch(
        Submission {
            resources,
            ..submission(1)
        },
        "a",
        lacks,
    );
}

#[test]
fn an_empty_or_draining_fleet_is_waited_for_longer() {
    let mut fixture = Fixture::default();
    fixture.submit(submission(1));
    assert_eq!(fixture.pass(Duration::from_secs(59)), []);
    assert_eq!(fixture.pass(Duration::from_secs(1)).len(), 2);
    fixture.connect("a", offer(1));
    fixture.give(Event::DrainAgent(agent("a"), true));
    assert!(fixture.desired().drain);
    fixture.submit(submission(2));
    assert_eq!(fixture.grants(), []);
    fixture.pass(Duration::from_secs(14));
    fixture.give(Event::DrainAgent(agent("a"), false));
    assert_eq!(fixture.the_grant().task, TaskId(2));
}

#[test]
fn what_is_too_much_is_refused() {
    let mut fixture = Fixture::new(SchedulerConfig {
        queue_limit_units: 3,
        tenant_queue_percent: 100,
        ..SchedulerConfig::default()
    });
    fixture.submit(suite(1, 2));
    fixture.submit(suite(2, 2));
    let error = AdmissionError::QueueFull {
        queued: 2,
        limit: 3,
        retry_after: Duration::from_secs(5),
    };
    assert!(fixture.has(&Effect::Refused {
        task: TaskId(2),
        error
    }));
    fixture.submit(suite(3, 0));
    let error = AdmissionError::Empty;
    assert!(fixture.has(&Effect::Refused {
        task: TaskId(3),
        error
    }));
    fixture.submit(suite(4, 1));
    assert_eq!(fixture.scheduler.snapshot().queued_units, 3);
}

#[test]
fn a_snapshot_shows_what_waits_and_who_works() {
    let mut fixture = Fixture::default();
    fixture.connect("a", offer(1));
    fixture.submit(submission(1));
    fixture.submit(suite(2, 4));
    let snapshot = fixture.scheduler.snapshot();
    assert_eq!((snapshot.queued_units, snapshot.leased_units), (4, 1));
    let run = &snapshot.tenants[0].runs[0];
    assert_eq!((run.tasks, run.queued_units, run.leased_units), (2, 4, 1));
    let shown = &snapshot.agents[0];
    assert_eq!(
        (
            shown.free_slots,
            shown.leases.len(),
            shown.leases[0].desired
        ),
        (0, 1, true)
    );
}
