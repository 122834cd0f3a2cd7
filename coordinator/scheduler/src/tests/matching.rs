//! Which agents can run what, however many there are and however they differ.

use std::time::Duration;

use regatta_model::{ImageReference, Platform, Resources, TaskId};

use super::fixture::{Fixture, agent, offer, submission};
use crate::{Effect, Event, Offer, SchedulerConfig, Submission, UnitError};

fn platform(index: usize) -> Platform {
    let hostname = format!("host-{index}");
    Platform::new([("OSFamily", "linux"), ("hostname", &hostname)])
}

fn own_offer(index: usize, slots: u32) -> Offer {
    Offer {
        platform: platform(index),
        resources: Resources {
            cpu_milli: 8000,
            memory_bytes: 1_000_000 + index as u64,
        },
        ..offer(slots)
    }
}

/// A hundred agents, each with a host name and an amount of memory of its own.
fn fleet() -> Fixture {
    let mut fixture = Fixture::new(SchedulerConfig::default());
    for index in 0..100 {
        let slots = if index == 77 { 3 } else { 2 };
        fixture.connect(&format!("a{index}"), own_offer(index, slots));
    }
    fixture
}

fn on(index: usize) -> Submission {
    let hostname = format!("host-{index}");
    Submission {
        platform: Platform::new([("hostname", hostname)]),
        ..submission(index as u64)
    }
}

#[test]
fn what_each_agent_has_for_itself_sets_none_apart() {
    let mut fixture = fleet();
    assert_eq!(fixture.scheduler.fleet.kinds(), 1);
    fixture.submit(Submission {
        platform: Platform::new([("OSFamily", "linux")]),
        ..submission(1000)
    });
    assert_eq!(fixture.scheduler.fleet.kinds(), 1);
    for index in [13, 42] {
        fixture.submit(on(index));
        assert_eq!(fixture.the_grant().agent, agent(&format!("a{index}")));
    }
    assert_eq!(fixture.scheduler.fleet.kinds(), 3);
}

#[test]
fn a_host_name_is_matched_exactly_and_forgotten_in_time() {
    let mut fixture = Fixture::new(SchedulerConfig::default());
    for index in 0..400 {
        fixture.connect(&format!("a{index}"), own_offer(index, 2));
    }
    for index in 0..400 {
        fixture.submit(on(index));
        assert_eq!(fixture.the_grant().agent, agent(&format!("a{index}")));
        fixture.give(Event::CancelTask(TaskId(index as u64)));
    }
    let kinds = fixture.scheduler.fleet.kinds();
    assert!(kinds < 300, "{kinds} kinds");
    // Those that were merged again are matched as before.
    fixture.submit(on(3));
    assert_eq!(fixture.the_grant().agent, agent("a3"));
}

#[test]
fn memory_is_matched_to_the_byte() {
    for (bytes, expected) in [(1_000_099, Some("a99")), (1_000_100, None)] {
        let mut fixture = fleet();
        let resources = Resources {
            cpu_milli: 1,
            memory_bytes: bytes,
        };
        fixture.submit(Submission {
            resources,
            ..submission(1)
        });
        let granted = fixture.grants().first().map(|grant| grant.agent.clone());
        assert_eq!(granted, expected.map(agent));
    }
}

#[test]
fn the_agent_with_the_most_free_is_found_among_all_kinds() {
    let mut fixture = fleet();
    for index in 0..50 {
        fixture.submit(on(index));
    }
    assert_eq!(fixture.scheduler.fleet.kinds(), 51);
    fixture.submit(submission(1000));
    assert_eq!(fixture.the_grant().agent, agent("a77"));
}

#[test]
fn work_is_spread_over_agents_that_are_all_warm() {
    let mut fixture = Fixture::new(SchedulerConfig::default());
    let image: ImageReference = "image".parse().unwrap();
    for index in 0..100 {
        let offer = Offer {
            images: vec![image.clone()],
            ..own_offer(index, 4)
        };
        fixture.connect(&format!("a{index}"), offer);
    }
    for task in 0..100 {
        let image = Some(image.clone());
        fixture.submit(Submission {
            image,
            ..submission(task)
        });
    }
    let agents = fixture.scheduler.snapshot().agents;
    let busy = agents.iter().filter(|agent| agent.free_slots == 3).count();
    assert_eq!(busy, 100, "each agent has one of a hundred tasks");
}

/// Submits work to one agent and returns why it failed at once, if it did.
fn refused_at_once(asked: Platform) -> Option<UnitError> {
    let mut fixture = Fixture::new(SchedulerConfig::default());
    fixture.connect("a", own_offer(1, 1));
    fixture.submit(Submission {
        platform: asked,
        ..submission(1)
    });
    fixture.step.effects.iter().find_map(|effect| match effect {
        Effect::UnitFailed { error, .. } => Some(error.clone()),
        _ => None,
    })
}

#[test]
fn a_property_that_no_agent_knows_is_refused_at_once() {
    let error = refused_at_once(Platform::new([("OSFamily", "linux"), ("gpu", "1")]));
    let error = error.expect("it fails in the same step").to_string();
    let expected = "no agent can run it: the nearest, a, lacks gpu=1 (not offered); \
                    it offers OSFamily=linux, hostname=host-1";
    assert_eq!(error, expected);
    let other_value = refused_at_once(Platform::new([("OSFamily", "plan9")]));
    assert_eq!(other_value, None, "another agent may come that offers it");
}

#[test]
fn what_an_agent_offers_is_told_at_bounded_length() {
    let mut fixture = Fixture::new(SchedulerConfig::default());
    let many = (0..1000).map(|index| (format!("property-{index}"), "wert\u{e4}"));
    fixture.connect(
        "a",
        Offer {
            platform: Platform::new(many),
            ..offer(1)
        },
    );
    fixture.submit(on(1));
    let told = format!("{:?}", fixture.step);
    assert!(
        told.contains("hostname=host-1 (not offered)") && told.len() < 2000,
        "{told}"
    );
}

#[test]
fn an_unknown_property_waits_while_there_is_no_agent_and_when_the_last_that_knew_it_goes() {
    let mut fixture = Fixture::new(SchedulerConfig::default());
    fixture.submit(on(1));
    assert_eq!(fixture.step.effects, []);
    fixture.connect("a", offer(1));
    let failed = |effects: &[Effect]| {
        let failed = |effect: &Effect| matches!(effect, Effect::UnitFailed { .. });
        effects.iter().any(failed)
    };
    assert!(
        !failed(&fixture.step.effects),
        "another agent may be on its way"
    );
    assert!(failed(&fixture.pass(Duration::from_secs(10))));
}
