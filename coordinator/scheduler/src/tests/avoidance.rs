//! What has failed is tried again elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use regatta_model::{AgentId, FencingToken, LeaseId, SlotIndex, TaskId};

use super::fixture::{Fixture, agent, held, offer, report, submission};
use crate::{
    AgentState, Event, FailedAt, Grant, HeldLease, OutcomeKind, SchedulerConfig, Submission,
};

fn fixture() -> Fixture {
    Fixture::new(SchedulerConfig::default())
}

fn again(task: u64, name: &str, slot: u32) -> Submission {
    Submission {
        failed_at: Some(FailedAt {
            agent: agent(name),
            slot: SlotIndex(slot),
        }),
        ..submission(task)
    }
}

fn in_slot(grant: &Grant, slot: u32, finished: bool) -> HeldLease {
    let kinds: &[OutcomeKind] = match finished {
        true => &[OutcomeKind::Answered],
        false => &[],
    };
    HeldLease {
        slot: Some(SlotIndex(slot)),
        ..held(grant, kinds, finished)
    }
}

#[test]
fn another_agent_is_preferred_even_to_a_warm_one() {
    let mut fixture = fixture();
    let tree = Some(regatta_model::Digest::of(b"tree"));
    let warm = crate::Offer {
        trees: tree.into_iter().collect(),
        ..offer(8)
    };
    fixture.connect("a", warm);
    fixture.connect("b", offer(1));
    fixture.submit(Submission {
        tree,
        ..again(1, "a", 3)
    });
    let grant = fixture.the_grant();
    assert_eq!((grant.agent, grant.avoid_slot), (agent("b"), None));
    fixture.submit(Submission {
        tree,
        ..again(2, "a", 3)
    });
    let grant = fixture.the_grant();
    let expected = (agent("a"), Some(SlotIndex(3)));
    assert_eq!((grant.agent, grant.avoid_slot), expected);
}

#[test]
fn a_single_slot_tries_again_at_once() {
    let mut fixture = fixture();
    fixture.connect("a", offer(1));
    fixture.submit(again(1, "a", 0));
    assert_eq!(fixture.the_grant().agent, agent("a"));
}

#[test]
fn an_agent_that_is_not_known_is_no_reason_to_wait() {
    let mut fixture = fixture();
    fixture.connect("a", offer(2));
    fixture.submit(again(1, "gone", 0));
    assert_eq!(fixture.the_grant().agent, agent("a"));
}

#[test]
fn an_agent_that_comes_back_after_a_restart_is_known_by_what_has_failed_on_it() {
    let mut fixture = Fixture::new(SchedulerConfig {
        first_token: FencingToken(100),
        ..SchedulerConfig::default()
    });
    fixture.submit(again(1, "a", 1));
    fixture.submit(again(2, "gone", 0));
    fixture.connect("a", offer(3));
    let avoided = fixture.grants().into_iter();
    let avoided: BTreeMap<_, _> = avoided.map(|it| (it.task, it.avoid_slot)).collect();
    let expected = [(TaskId(1), Some(SlotIndex(1))), (TaskId(2), None)];
    assert_eq!(avoided, BTreeMap::from(expected));
    // It is not remembered for ever, and nobody is expected later.
    fixture.report(report("a", 2, Vec::new()));
    let config = SchedulerConfig::default();
    fixture.pass(config.forget_agents_after * 2);
    fixture.submit(again(3, "late", 0));
    let agents = fixture.scheduler.snapshot().agents;
    assert!(agents.is_empty(), "{agents:?}");
}

/// Agent `a` has two slots, of which 1 is taken, and 0 is where it failed.
fn only_the_same_slot_is_free() -> (Fixture, Grant) {
    let mut fixture = fixture();
    fixture.connect("a", offer(2));
    fixture.submit(submission(1));
    let other = fixture.the_grant();
    fixture.submit(again(2, "a", 0));
    assert_eq!(fixture.grants(), [], "nobody knows which slot is taken");
    fixture.report(report("a", 2, vec![in_slot(&other, 1, false)]));
    assert_eq!(fixture.grants(), [], "slot 1 is taken");
    (fixture, other)
}

#[test]
fn another_slot_is_waited_for() {
    let (mut fixture, other) = only_the_same_slot_is_free();
    fixture.report(report("a", 3, vec![in_slot(&other, 1, true)]));
    let grant = fixture.the_grant();
    assert_eq!(
        (grant.task, grant.avoid_slot),
        (TaskId(2), Some(SlotIndex(0)))
    );
}

#[test]
fn the_slot_itself_is_free_for_other_work() {
    let (mut fixture, _) = only_the_same_slot_is_free();
    fixture.submit(submission(3));
    let grant = fixture.the_grant();
    assert_eq!(grant.task, TaskId(3));
}

#[test]
fn a_slot_that_is_taken_cannot_be_the_one() {
    let mut fixture = fixture();
    fixture.connect("a", offer(2));
    fixture.submit(submission(1));
    let other = fixture.the_grant();
    fixture.submit(again(2, "a", 0));
    assert_eq!(fixture.grants(), []);
    fixture.report(report("a", 2, vec![in_slot(&other, 0, false)]));
    assert_eq!(fixture.the_grant().task, TaskId(2));
}

#[test]
fn nobody_waits_for_another_slot_for_ever() {
    let (mut fixture, other) = only_the_same_slot_is_free();
    let retry_elsewhere = SchedulerConfig::default().retry_elsewhere;
    let pause = Duration::from_secs(5);
    let mut passed = Duration::ZERO;
    let mut sequence = 3;
    let granted = loop {
        let effects = fixture.pass(pause);
        passed += pause;
        let granted = effects
            .iter()
            .any(|it| matches!(it, crate::Effect::Granted(_)));
        if granted || passed > retry_elsewhere * 2 {
            break granted;
        }
        fixture.report(report("a", sequence, vec![in_slot(&other, 1, false)]));
        sequence += 1;
    };
    assert!(granted && passed <= retry_elsewhere + pause, "{passed:?}");
}

#[test]
fn what_has_failed_goes_before_what_came_with_it() {
    let mut fixture = fixture();
    for task in 1..4 {
        fixture.submit(Submission {
            units: vec![Duration::from_secs(9).into()],
            ..submission(task)
        });
    }
    fixture.connect("b", offer(1));
    let first = fixture.the_grant();
    fixture.submit(again(4, "b", 7));
    fixture.connect("a", offer(1));
    assert_eq!(fixture.the_grant().task, TaskId(4));
    assert_eq!(first.task, TaskId(1));
}

/// However many wait that failed on one agent, what it asks for costs about the same.
#[test]
fn many_that_failed_on_an_agent_are_passed_over_as_one() {
    let mut fixture = fixture();
    fixture.connect("a", offer(1));
    fixture.connect("b", offer(1));
    fixture.submit(submission(1));
    fixture.submit(submission(2));
    for task in 0..50_000 {
        fixture.submit(again(10 + task, "a", 0));
        assert_eq!(fixture.grants(), []);
    }
    fixture.submit(Submission {
        run: "other".parse().unwrap(),
        ..submission(3)
    });
    let scheduler = &fixture.scheduler;
    let key = scheduler.fleet.agent_key(&agent("a")).unwrap();
    let looked_at = std::cell::Cell::new(0);
    let class = scheduler.tasks.iter().next().unwrap().1.class;
    let due = scheduler.queue.due_but(class, |_, task| {
        looked_at.set(looked_at.get() + 1);
        scheduler
            .fleet
            .must_avoid(&scheduler.tasks[task], key, fixture.now)
    });
    let due: Vec<_> = due.map(|(_, queued)| queued.task).collect();
    assert_eq!((due.len(), looked_at.get()), (1, 1));
    assert_eq!(scheduler.tasks[due[0]].submitters[0].task, TaskId(3));
}

/// Agents with slots, as agents choose them.
struct Machines {
    fixture: Fixture,
    sequence: BTreeMap<AgentId, u64>,
    slots: BTreeMap<AgentId, u32>,
    /// Where each lease is, and what it is for.
    taken: BTreeMap<LeaseId, (AgentId, u32, Grant)>,
}

impl Machines {
    fn new(slots: &[u32]) -> Self {
        let mut machines = Self {
            fixture: fixture(),
            sequence: BTreeMap::new(),
            slots: BTreeMap::new(),
            taken: BTreeMap::new(),
        };
        for (index, slots) in slots.iter().enumerate() {
            let name = format!("m{index}");
            machines.fixture.connect(&name, offer(*slots));
            machines.slots.insert(agent(&name), *slots);
            machines.sequence.insert(agent(&name), 1);
        }
        machines
    }

    fn free(&self, of: &AgentId) -> Vec<u32> {
        let taken = self.taken.values().filter(|(agent, ..)| agent == of);
        let taken: BTreeSet<u32> = taken.map(|(_, slot, _)| *slot).collect();
        let all = 0..self.slots[of];
        all.filter(|slot| !taken.contains(slot)).collect()
    }

    /// Puts what was granted in slots; fails if something is in the slot where it failed while another was free.
    fn take(&mut self, failed: &BTreeMap<TaskId, (AgentId, u32)>) -> Result<(), TestCaseError> {
        for grant in self.fixture.grants() {
            let free = self.free(&grant.agent);
            let avoid = grant.avoid_slot.map(|slot| slot.0);
            let best = free.iter().find(|slot| Some(**slot) != avoid);
            let slot = *best.or(free.first()).expect("a slot is free");
            if failed.get(&grant.task) == Some(&(grant.agent.clone(), slot)) {
                let elsewhere = self.slots.keys().map(|agent| self.free(agent).len());
                let alone = self.slots.len() == 1 && self.slots[&grant.agent] == 1;
                prop_assert!(alone, "{grant:?} had {:?}", elsewhere.collect::<Vec<_>>());
            }
            let place = (grant.agent.clone(), slot, grant.clone());
            self.taken.insert(grant.lease, place);
        }
        Ok(())
    }

    fn report(&mut self, name: &AgentId, finished: Option<LeaseId>) {
        let own = self.taken.values().filter(|(agent, ..)| agent == name);
        let leases =
            own.map(|(_, slot, grant)| in_slot(grant, *slot, finished == Some(grant.lease)));
        let leases = leases.collect();
        let sequence = self.sequence.get_mut(name).expect("is known");
        *sequence += 1;
        let state = AgentState {
            agent: name.clone(),
            ..report("x", *sequence, leases)
        };
        self.fixture.give(Event::AgentReported(state));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// As long as time stands still nobody has waited long enough to go back to where it failed.
    #[test]
    fn nothing_is_tried_again_where_it_failed_while_there_is_another_place(
        slots in prop::collection::vec(1u32..4, 1..4),
        choices in prop::collection::vec((any::<u8>(), any::<u16>()), 1..200),
    ) {
        let mut machines = Machines::new(&slots);
        let mut failed = BTreeMap::new();
        let mut next = 0;
        for (choice, which) in choices {
            let pick = |count: usize| usize::from(which) % count;
            match choice % 4 {
                0 => {
                    next += 1;
                    machines.fixture.submit(submission(next));
                    machines.take(&failed)?;
                }
                1 => {
                    let index = pick(slots.len());
                    machines.report(&agent(&format!("m{index}")), None);
                    machines.take(&failed)?;
                }
                _ if machines.taken.is_empty() => {}
                _ => {
                    let leases: Vec<_> = machines.taken.keys().copied().collect();
                    let lease = leases[pick(leases.len())];
                    let (name, slot, _) = machines.taken[&lease].clone();
                    machines.report(&name, Some(lease));
                    machines.taken.remove(&lease);
                    machines.take(&failed)?;
                    next += 1;
                    failed.insert(TaskId(next), (name.clone(), slot));
                    machines.fixture.submit(again(next, name.as_str(), slot));
                    machines.take(&failed)?;
                }
            }
            prop_assert_eq!(machines.fixture.scheduler.idle_agent(), None);
        }
        // Everything comes to an end once slots become free, if need be where it failed.
        for _ in 0..1000 {
            let Some((lease, (name, ..))) = machines.taken.first_key_value() else {
                break;
            };
            let (lease, name) = (*lease, name.clone());
            machines.report(&name, Some(lease));
            machines.taken.remove(&lease);
            machines.take(&failed)?;
        }
        prop_assert_eq!(machines.fixture.scheduler.snapshot().queued_units, 0);
    }
}
