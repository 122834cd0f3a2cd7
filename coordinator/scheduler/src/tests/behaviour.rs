//! One behaviour a test.

use std::num::NonZeroU32;
use std::time::Duration;

use regatta_model::{Digest, FencingToken, Platform, Resources, TaskId, UnitIndex};

use super::fixture::{
    Fixture, agent, held, merged, offer, report, submission, suite, unknown_lease,
};
use crate::{
    AdmissionError, AgentState, Effect, Event, HeldLease, Offer, OutcomeKind, SchedulerConfig,
    Submission, UnitError,
};

fn fixture() -> Fixture {
    Fixture::new(SchedulerConfig::default())
}

fn infra() -> OutcomeKind {
    OutcomeKind::Infrastructure("broken".to_owned())
}

fn failed(task: u64, error: UnitError) -> Effect {
    Effect::UnitFailed {
        task: TaskId(task),
        unit: UnitIndex(0),
        error,
    }
}

/// Runs 120 one-second tasks of two owners on one slot; returns how many of the first 60 were the
/// first owner's.
fn share(config: SchedulerConfig, owner: impl Fn(Submission, bool) -> Submission) -> usize {
    let mut fixture = Fixture::new(config);
    for task in 0..120 {
        fixture.submit(owner(submission(task), task < 60));
    }
    fixture.connect("a", offer(1));
    let mut of_first = 0;
    for sequence in 2..62 {
        let grant = fixture.the_grant();
        of_first += usize::from(grant.task.0 < 60);
        fixture.now = fixture.now + Duration::from_secs(1);
        fixture.report(report(
            "a",
            sequence,
            vec![held(&grant, &[OutcomeKind::Answered], true)],
        ));
    }
    of_first
}

#[test]
fn tenants_and_runs_share_by_weight_whoever_came_first() {
    let by_run = |submission, first| Submission {
        run: if first { "one" } else { "two" }.parse().unwrap(),
        ..submission
    };
    assert_eq!(share(SchedulerConfig::default(), by_run), 30);
    let by_tenant = |submission, first| Submission {
        tenant: if first { "one" } else { "two" }.parse().unwrap(),
        ..submission
    };
    assert_eq!(share(SchedulerConfig::default(), by_tenant), 30);
    let mut weighted = SchedulerConfig::default();
    let weight = NonZeroU32::new(3).unwrap();
    weighted
        .tenant_weights
        .insert("one".parse().unwrap(), weight);
    assert_eq!(share(weighted, by_tenant), 45);
}

/// How many units the first batch has if its first is to be alone, or is not.
fn first_batch(alone: bool) -> usize {
    let mut fixture = fixture();
    let mut suite = suite(1, 8);
    suite.batch_overhead = Duration::from_secs(1);
    suite.units[0].alone = alone;
    fixture.submit(suite);
    fixture.connect("a", offer(1));
    fixture.the_grant().units.len()
}

#[test]
fn what_is_to_be_alone_shares_its_batch_with_no_other() {
    assert!(first_batch(false) > 1, "or nothing is shown");
    assert_eq!(first_batch(true), 1);
}

#[test]
fn within_a_run_priority_goes_first_and_then_the_longest() {
    let mut fixture = fixture();
    for (task, priority, seconds) in [(1, 0, 1), (2, 0, 9), (3, -1, 1), (4, 5, 99)] {
        fixture.submit(Submission {
            priority,
            units: vec![Duration::from_secs(seconds).into()],
            ..submission(task)
        });
    }
    fixture.connect("a", offer(4));
    let order: Vec<_> = fixture.grants().iter().map(|grant| grant.task.0).collect();
    assert_eq!(order, [3, 2, 1, 4]);
}

/// How many tasks whose tree an agent has go there before the longest one, whose tree is `elsewhere` or nowhere.
fn passes_over(elsewhere: bool) -> usize {
    let mut fixture = fixture();
    let (here, other) = (Digest::of(b"tree"), Digest::of(b"other"));
    let of_tree = |task, tree| Submission {
        tree: Some(tree),
        ..submission(task)
    };
    let with_tree = |tree| Offer {
        trees: vec![tree],
        ..offer(1)
    };
    let tree = if elsewhere { other } else { here };
    fixture.connect("busy", with_tree(tree));
    fixture.submit(of_tree(2000, tree));
    assert_eq!(fixture.the_grant().agent, agent("busy"));
    fixture.submit(Submission {
        units: vec![Duration::from_secs(2).into()],
        ..of_tree(1000, other)
    });
    for task in 0..100 {
        fixture.submit(of_tree(task, here));
    }
    fixture.connect("a", with_tree(here));
    for (before, sequence) in (2..).enumerate() {
        let grant = fixture.the_grant();
        if grant.task == TaskId(1000) {
            return before;
        }
        fixture.report(report(
            "a",
            sequence,
            vec![held(&grant, &[OutcomeKind::Answered], true)],
        ));
    }
    unreachable!("it would wait for ever")
}

#[test]
fn a_slot_takes_what_is_warm_but_passes_nothing_over_for_ever() {
    assert_eq!(passes_over(true), 16);
}

#[test]
fn what_no_agent_has_is_not_passed_over() {
    assert_eq!(passes_over(false), 0);
}

#[test]
fn an_idle_agent_that_is_warm_is_preferred() {
    let mut fixture = fixture();
    let tree = Digest::of(b"tree");
    fixture.connect("a", offer(8));
    fixture.connect(
        "b",
        Offer {
            trees: vec![tree],
            ..offer(1)
        },
    );
    let tree = Some(tree);
    fixture.submit(Submission {
        tree,
        ..submission(1)
    });
    assert_eq!(fixture.the_grant().agent, agent("b"));
    fixture.submit(Submission {
        tree,
        ..submission(2)
    });
    assert_eq!(fixture.the_grant().agent, agent("a"));
}

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
    let mut fixture = fixture();
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
    let mut fixture = fixture();
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
    let mut fixture = fixture();
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
    let mut fixture = fixture();
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
    let mut fixture = fixture();
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
    let mut fixture = fixture();
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
    let mut fixture = fixture();
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
fn a_lost_unit_prefers_another_agent_and_is_given_up_after_its_attempts() {
    let mut fixture = fixture();
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
    let mut fixture = fixture();
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

#[test]
fn cancelled_work_gives_its_capacity_back_only_when_the_agent_let_go() {
    let mut fixture = fixture();
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
    let mut fixture = fixture();
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
    let mut fixture = fixture();
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
    let mut fixture = fixture();
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
    let mut fixture = fixture();
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
    let mut fixture = fixture();
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

#[test]
fn versions_keep_growing_when_the_agent_knows_an_older_coordinator() {
    let mut fixture = fixture();
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
