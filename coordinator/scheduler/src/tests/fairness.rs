//! Who goes first, and that nobody goes never.

use std::collections::BTreeMap;
use std::time::Duration;

use regatta_model::{Resources, TaskId};

use super::fixture::{Fixture, agent, held, offer, report, submission};
use crate::{Event, Grant, OutcomeKind, SchedulerConfig, Submission};

fn of(task: u64, tenant: &str, run: &str, priority: i32) -> Submission {
    Submission {
        tenant: tenant.parse().unwrap(),
        run: run.parse().unwrap(),
        priority,
        ..submission(task)
    }
}

/// Runs submissions one after the other on one slot; returns the order in which they were granted.
fn order_of(submissions: impl IntoIterator<Item = Submission>) -> Vec<u64> {
    let mut fixture = Fixture::new(SchedulerConfig::default());
    for submission in submissions {
        fixture.submit(submission);
    }
    fixture.connect("a", offer(1));
    let mut order = Vec::new();
    for sequence in 2.. {
        let grants = fixture.grants();
        let Some(grant) = grants.first() else {
            break;
        };
        order.push(grant.task.0);
        fixture.now = fixture.now + Duration::from_secs(1);
        let ended = held(grant, &[OutcomeKind::Answered], true);
        fixture.report(report("a", sequence, vec![ended]));
    }
    order
}

#[test]
fn of_runs_that_have_had_equally_much_the_first_to_come_goes_first() {
    let in_runs = |task| of(task, "tenant", &format!("run-{task}"), 0);
    assert_eq!(order_of((0..6).map(in_runs)), [0, 1, 2, 3, 4, 5]);
    let in_tenants = |task| of(task, &format!("tenant-{task}"), "run", 0);
    assert_eq!(order_of((0..6).map(in_tenants)), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn runs_that_are_gone_do_not_lend_their_place_to_new_ones() {
    let mut fixture = Fixture::new(SchedulerConfig::default());
    for task in 0..6 {
        fixture.submit(of(task, "tenant", &format!("run-{task}"), 0));
    }
    for task in [3, 1, 2] {
        fixture.give(Event::CancelTask(TaskId(task)));
    }
    for task in 6..9 {
        fixture.submit(of(task, "tenant", &format!("run-{task}"), 0));
    }
    fixture.connect("a", offer(9));
    let order: Vec<_> = fixture.grants().iter().map(|grant| grant.task.0).collect();
    assert_eq!(order, [0, 4, 5, 6, 7, 8]);
}

#[test]
fn priority_orders_the_work_of_a_tenant_across_its_runs_and_of_no_other() {
    let urgent_last = [
        of(0, "tenant", "one", 0),
        of(1, "tenant", "two", 5),
        of(2, "tenant", "three", -5),
        of(3, "tenant", "four", 0),
    ];
    assert_eq!(order_of(urgent_last), [2, 0, 3, 1]);
    let two_tenants = (0..8).map(|task| match task % 2 {
        0 => of(task, "urgent", &format!("run-{task}"), -100),
        _ => of(task, "patient", &format!("run-{task}"), 100),
    });
    assert_eq!(order_of(two_tenants), [0, 1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn a_short_task_does_not_wait_for_longer_ones_that_keep_coming() {
    let mut fixture = Fixture::new(SchedulerConfig::default());
    fixture.connect("a", offer(1));
    fixture.submit(submission(0));
    let mut running = fixture.the_grant();
    fixture.submit(submission(1));
    for task in 2..100 {
        let units = vec![Duration::from_secs(10).into()];
        fixture.submit(Submission {
            units,
            ..submission(task)
        });
        fixture.now = fixture.now + Duration::from_secs(10);
        let ended = held(&running, &[OutcomeKind::Answered], true);
        fixture.report(report("a", task, vec![ended]));
        running = fixture.the_grant();
        if running.task == TaskId(1) {
            return;
        }
    }
    panic!("the short task never ran");
}

/// Four CPUs, of which each of a stream of tasks takes one for four seconds, each ending a second after the
/// last. Wide tasks of so many CPUs arrive with the first. Returns how long each of them waited.
fn waits_of_wide_tasks(cpus: &[u64], agents: &[&str]) -> BTreeMap<u64, Duration> {
    let mut fixture = Fixture::new(SchedulerConfig::default());
    let begun = fixture.now;
    for name in agents {
        fixture.connect(name, offer(4));
    }
    let wide = |(index, cpus): (usize, &u64)| Submission {
        resources: Resources {
            cpu_milli: cpus * 1000,
            memory_bytes: 1,
        },
        run: format!("wide-{index}").parse().unwrap(),
        ..submission(1_000_000 + index as u64)
    };
    let wide: Vec<_> = cpus.iter().enumerate().map(wide).collect();
    let mut running: BTreeMap<_, Grant> = BTreeMap::new();
    let mut waits = BTreeMap::new();
    let mut sequence = 1;
    for second in 0..600 {
        fixture.now = begun + Duration::from_secs(second);
        let due = running.extract_if(.., |(end, _), _| *end <= fixture.now);
        let ended: Vec<_> = due.map(|(_, grant)| grant).collect();
        let mut granted = Vec::new();
        sequence += 1;
        for name in agents {
            let is_here = |grant: &&Grant| grant.agent == agent(name);
            let over = ended.iter().filter(is_here);
            let over = over.map(|grant| held(grant, &[OutcomeKind::Answered], true));
            let going_on = running.values().filter(is_here);
            let leases = over.chain(going_on.map(|grant| held(grant, &[], false)));
            let leases = leases.collect();
            fixture.report(report(name, sequence, leases));
            granted.extend(fixture.grants());
        }
        for index in 0..agents.len() as u64 {
            fixture.submit(submission(second * 100 + index));
            granted.extend(fixture.grants());
        }
        if second == 5 {
            for submission in &wide {
                fixture.submit(submission.clone());
                granted.extend(fixture.grants());
            }
        }
        for grant in granted {
            if grant.task.0 >= 1_000_000 {
                waits.insert(grant.task.0 - 1_000_000, grant.queued);
            }
            let end = fixture.now + Duration::from_secs(4);
            running.insert((end, grant.lease), grant);
        }
        for name in agents {
            let here = running.values().filter(|grant| grant.agent == agent(name));
            let cpus = here.map(|grant| match grant.task.0.checked_sub(1_000_000) {
                Some(index) => cpus[usize::try_from(index).unwrap()],
                None => 1,
            });
            assert!(cpus.sum::<u64>() <= 4, "{name} has four CPUs");
        }
    }
    waits
}

#[test]
fn a_wide_task_gets_an_agent_reserved_after_a_bounded_wait() {
    let config = SchedulerConfig::default();
    let drained = config.reserve_after + Duration::from_secs(4 + 2);
    for agents in [&["a"][..], &["a", "b", "c"]] {
        let waits = waits_of_wide_tasks(&[4], agents);
        assert!(waits.len() == 1 && waits[&0] <= drained, "{waits:?}");
        assert!(waits[&0] >= config.reserve_after, "the agent was kept busy");
    }
}

#[test]
fn wide_tasks_of_different_widths_do_not_block_each_other() {
    let config = SchedulerConfig::default();
    let waits = waits_of_wide_tasks(&[4, 3, 4, 3], &["a"]);
    let longest = 4 * (config.reserve_after + Duration::from_secs(10));
    let all_ran = waits.len() == 4 && waits.values().all(|wait| *wait <= longest);
    assert!(all_ran, "{waits:?}");
}

#[test]
fn a_reservation_ends_with_the_task_that_it_was_for() {
    let mut fixture = Fixture::new(SchedulerConfig {
        reserve_after: Duration::ZERO,
        ..SchedulerConfig::default()
    });
    fixture.connect("a", offer(2));
    fixture.submit(submission(1));
    let wide = Resources {
        cpu_milli: 2000,
        memory_bytes: 1,
    };
    fixture.submit(Submission {
        resources: wide,
        ..of(2, "tenant", "wide", 0)
    });
    fixture.submit(of(3, "tenant", "other", 0));
    assert_eq!(fixture.grants(), []);
    assert!(fixture.scheduler.snapshot().agents[0].reserved);
    fixture.give(Event::CancelTask(TaskId(2)));
    assert_eq!(fixture.the_grant().task, TaskId(3));
    assert!(!fixture.scheduler.snapshot().agents[0].reserved);
}

#[test]
fn an_agent_that_does_not_drain_in_time_is_reserved_no_longer() {
    let limit = Duration::from_secs(10);
    let mut fixture = Fixture::new(SchedulerConfig {
        reserve_after: Duration::ZERO,
        reservation_limit: limit,
        ..SchedulerConfig::default()
    });
    fixture.connect("a", offer(2));
    fixture.connect("b", offer(2));
    for task in [1, 2] {
        fixture.submit(submission(task));
    }
    let resources = Resources {
        cpu_milli: 2000,
        memory_bytes: 1,
    };
    fixture.submit(Submission {
        resources,
        ..of(3, "tenant", "wide", 0)
    });
    fixture.submit(of(4, "tenant", "late", 0));
    let first = fixture.the_grant().agent;
    let reserved = |fixture: &Fixture| {
        let agents = fixture.scheduler.snapshot().agents;
        let mut reserved = agents.into_iter().filter(|agent| agent.reserved);
        reserved.next().map(|agent| agent.agent)
    };
    let kept = reserved(&fixture).unwrap();
    assert_ne!(kept, first, "the other agent is kept free");
    fixture.submit(of(5, "tenant", "later", 0));
    assert_eq!(fixture.grants(), [], "both agents are taken or kept free");
    fixture.pass(limit);
    assert_eq!(reserved(&fixture), None);
    let snapshot = fixture.scheduler.snapshot();
    assert_eq!(snapshot.queued_units, 1, "only the wide task waits");
}
