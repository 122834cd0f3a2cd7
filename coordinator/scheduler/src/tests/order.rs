//! Who goes first, and where.

use std::num::NonZeroU32;
use std::time::Duration;

use regatta_model::{Digest, TaskId};

use super::fixture::{Fixture, agent, held, offer, report, submission, suite};
use crate::{Offer, OutcomeKind, SchedulerConfig, Submission};

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
    let mut fixture = Fixture::default();
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
    let mut fixture = Fixture::default();
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
    let mut fixture = Fixture::default();
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
    let mut fixture = Fixture::default();
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
