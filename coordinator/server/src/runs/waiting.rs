//! Tells whoever watches a run that it waits for agents that take no work, for the ledger, for a store that sends wrong
//! bytes, or for work to be begun at all.

use std::sync::atomic::Ordering;
use std::time::Duration;

use regatta_wire::v1;

use super::context::RunContext;

/// How often a run that has just begun, or waits, is looked at. What is so twice in a row is worth a word:
/// agents connect, and reconnect, in less.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1500);
/// The same of a run of which something is long under way: whoever looks has to look at every agent.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How long after wrong bytes came a run that stands still waits for right ones: whoever wants them asks again in less.
const WRONG_FOR: Duration = Duration::from_secs(30);
/// How many agents a warning names.
const NAMED_AGENTS: usize = 3;

/// Warns of each reason once, for as long as the run lasts.
pub(super) async fn tell_of_waiting(run: &RunContext) {
    let mut pause = SHORTEST_PAUSE;
    let mut leases = run.leases.load(Ordering::Relaxed);
    let mut waits = false;
    loop {
        if pause > SHORTEST_PAUSE {
            // Whatever was looked at seldom is looked at again once there is a reason to.
            tokio::select! {
                () = tokio::time::sleep(pause - SHORTEST_PAUSE) => {}
                () = run.wrong_reads.next() => pause = SHORTEST_PAUSE,
                () = run.dispatcher.hold_changes() => pause = SHORTEST_PAUSE,
            }
        }
        tokio::time::sleep(SHORTEST_PAUSE).await;
        let leases_before = std::mem::replace(&mut leases, run.leases.load(Ordering::Relaxed));
        if leases != leases_before {
            (pause, waits) = (SHORTEST_PAUSE, false);
            continue;
        }
        let unstored = run.dispatcher.trouble().map(|error| {
            format!("the run waits: nothing is leased until the ledger can store it: {error}")
        });
        let held = || {
            let held = run.dispatcher.held();
            held.map(|reason| format!("the run waits: {reason}"))
        };
        match unstored
            .or_else(held)
            .or_else(|| wrong_bytes(run))
            .or_else(|| reason_to_wait(&run.dispatcher.list_agents()))
        {
            None => (pause, waits) = ((pause * 2).min(LONGEST_PAUSE), false),
            Some(reason) if waits => {
                run.warn_once(reason);
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            Some(_) => (pause, waits) = (SHORTEST_PAUSE, true),
        }
    }
}

/// That the store sends wrong bytes, which are asked for again and again: the same words for as long as the run lasts.
fn wrong_bytes(run: &RunContext) -> Option<String> {
    run.wrong_reads.any_within(WRONG_FOR).then(|| {
        "the run waits: the storage sends other bytes than were stored, which are asked for again; the coordinator's \
         log names the blobs, and `regatta cas verify` tells whether they are stored wrong"
            .to_owned()
    })
}

/// Why nothing runs and nothing is going to; `None` if something does, or can.
fn reason_to_wait(agents: &[v1::AgentStatus]) -> Option<String> {
    let connected: Vec<_> = agents.iter().filter(|agent| agent.connected).collect();
    if connected.is_empty() {
        return Some(
            "the run waits: no agent is connected; start one with `regatta agent`".to_owned(),
        );
    }
    let reasons: Option<Vec<_>> = connected.iter().map(|agent| refusal(agent)).collect();
    let reasons = reasons?;
    let more = reasons.len().saturating_sub(NAMED_AGENTS);
    let named = reasons[..reasons.len() - more].join("; ");
    Some(match more {
        0 => format!("the run waits: no agent takes work ({named})"),
        _ => format!("the run waits: no agent takes work ({named}; and {more} more)"),
    })
}

/// Why an agent that runs nothing takes nothing.
fn refusal(agent: &v1::AgentStatus) -> Option<String> {
    let is_busy = agent
        .leases
        .iter()
        .any(|lease| lease.phase() != v1::LeasePhase::Finished);
    let name = &agent.agent_id;
    match agent.unavailable_reason.as_str() {
        _ if is_busy => None,
        _ if agent.draining => Some(format!("{name} is drained")),
        "" if agent.paused_until.is_some() => Some(format!(
            "{name} is paused, as it lost too much in a row; `regatta agents` says until when"
        )),
        "" => None,
        reason => Some(format!("{name}: {reason}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(name: &str, reason: &str) -> v1::AgentStatus {
        v1::AgentStatus {
            agent_id: name.to_owned(),
            connected: true,
            unavailable_reason: reason.to_owned(),
            ..Default::default()
        }
    }

    #[test]
    fn a_fleet_of_nobody_says_how_to_start_one() {
        let lost = v1::AgentStatus {
            connected: false,
            ..agent("a", "")
        };
        let reason = reason_to_wait(&[lost]).expect("a reason");
        assert!(
            reason.ends_with("start one with `regatta agent`"),
            "{reason}"
        );
    }

    #[test]
    fn agents_that_take_no_work_are_named_with_their_reasons() {
        let drained = v1::AgentStatus {
            draining: true,
            ..agent("b", "")
        };
        let reason = reason_to_wait(&[agent("a", "disk full"), drained]);
        let expected = "the run waits: no agent takes work (a: disk full; b is drained)";
        assert_eq!(reason.as_deref(), Some(expected));
        let many = ["a", "b", "c", "d", "e"].map(|name| agent(name, "full"));
        let reason = reason_to_wait(&many).expect("a reason");
        assert!(reason.ends_with("c: full; and 2 more)"), "{reason}");
    }

    #[test]
    fn agents_that_are_paused_take_no_work() {
        let paused = v1::AgentStatus {
            paused_until: Some(prost_types::Timestamp::default()),
            ..agent("a", "")
        };
        let reason = reason_to_wait(std::slice::from_ref(&paused)).expect("a reason");
        assert!(
            reason.contains("(a is paused, as it lost too much"),
            "{reason}"
        );
        assert_eq!(reason_to_wait(&[paused, agent("b", "")]), None);
    }

    #[test]
    fn one_that_could_take_work_or_does_some_is_enough() {
        let busy = v1::AgentStatus {
            leases: vec![v1::AgentLease::default()],
            ..agent("b", "disk full")
        };
        assert_eq!(
            reason_to_wait(&[agent("a", "disk full"), agent("b", "")]),
            None
        );
        assert_eq!(reason_to_wait(&[agent("a", "disk full"), busy]), None);
    }
}
