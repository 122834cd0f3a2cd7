//! What is known of agents beyond what the scheduler cares about: their connections.

use std::collections::BTreeMap;

use regatta_model::{AgentId, Timestamp};
use regatta_scheduler::DesiredAgent;
use regatta_wire::v1;
use std::sync::Arc;
use tokio::sync::watch;

use super::{Dispatcher, ValidReport};

/// How many agents that are no longer connected are remembered, for people to look at.
const MAX_REMEMBERED_AGENTS: usize = 1024;

/// Why a connection was ended by the coordinator.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CloseReason {
    /// The agent has connected anew.
    #[error("another connection of the same agent is newer")]
    Superseded,
    /// The agent was silent for too long.
    #[error("the agent was silent for too long, and its leases have expired")]
    Silent,
}

/// What travels from the dispatcher to a connection: only the latest of each counts.
#[derive(Clone, Debug, Default)]
pub(super) struct Outbox {
    pub(super) desired: Option<DesiredAgent>,
    pub(super) closed: Option<CloseReason>,
}

/// An agent's connection. Dropping it tells the scheduler that the agent is gone.
#[derive(Debug)]
pub struct Connection {
    pub(super) agent: AgentId,
    pub(super) id: u64,
    pub(super) outbox: Option<watch::Receiver<Outbox>>,
    pub(super) dispatcher: Arc<Dispatcher>,
}

/// The half of a connection that hears what the agent should do.
#[derive(Debug)]
pub struct Listener {
    outbox: watch::Receiver<Outbox>,
    dispatcher: Arc<Dispatcher>,
}

impl Connection {
    /// Takes a report in.
    ///
    /// # Errors
    /// The connection has been ended; the reason is what to tell the agent.
    pub fn report(&self, report: ValidReport) -> Result<(), CloseReason> {
        self.dispatcher.report(&self.agent, self.id, report)
    }

    /// The connection, and the half of it that listens apart, so that both can be used at once.
    #[must_use]
    pub fn split(mut self) -> (Self, Listener) {
        let outbox = self.outbox.take().unwrap_or_else(|| {
            // Split before: this half hears that somebody else listens.
            let closed = Some(CloseReason::Superseded);
            watch::channel(Outbox {
                desired: None,
                closed,
            })
            .1
        });
        let dispatcher = Arc::clone(&self.dispatcher);
        (self, Listener { outbox, dispatcher })
    }
}

impl Listener {
    /// The latest state that the agent should reach, once it differs from the last one returned. Not
    /// cancel-safe: a state that was taken and not returned is lost.
    ///
    /// # Errors
    /// The connection has been ended.
    pub async fn desired(&mut self) -> Result<v1::DesiredState, CloseReason> {
        loop {
            // The sender lives as long as the connection is the agent's current one, and leaves its
            // reason behind.
            let alive = self.outbox.changed().await.is_ok();
            let outbox = self.outbox.borrow_and_update().clone();
            if let Some(reason) = outbox.closed {
                return Err(reason);
            }
            if !alive {
                return Err(CloseReason::Superseded);
            }
            if let Some(desired) = outbox.desired {
                return Ok(self.dispatcher.wire_state(desired).await);
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.dispatcher.disconnect(&self.agent, self.id);
    }
}

/// The agents that are or were connected.
#[derive(Debug, Default)]
pub(super) struct Agents {
    known: BTreeMap<AgentId, Agent>,
    next_connection: u64,
}

/// An agent that is or was connected.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) connection: Option<(u64, watch::Sender<Outbox>)>,
    pub(super) offer: v1::AgentOffer,
    pub(super) draining: bool,
    pub(super) drained_by_operator: bool,
    pub(super) unavailable_reason: String,
    pub(super) last_report: Timestamp,
}

impl Agents {
    /// Makes a connection the agent's current one. The one before it, if there is one, is told; then
    /// the second value is true.
    pub(super) fn connect(
        &mut self,
        agent: &AgentId,
        now: Timestamp,
    ) -> (u64, watch::Receiver<Outbox>, bool) {
        self.next_connection += 1;
        let (sender, receiver) = watch::channel(Outbox::default());
        let superseded = self.close(agent, CloseReason::Superseded);
        let known = self.known.entry(agent.clone()).or_insert_with(|| Agent {
            connection: None,
            offer: v1::AgentOffer::default(),
            draining: false,
            drained_by_operator: false,
            unavailable_reason: String::new(),
            last_report: now,
        });
        known.connection = Some((self.next_connection, sender));
        self.forget_oldest();
        (self.next_connection, receiver, superseded)
    }

    /// Ends an agent's connection; whether it had one.
    pub(super) fn close(&mut self, agent: &AgentId, reason: CloseReason) -> bool {
        let Some(known) = self.known.get_mut(agent) else {
            return false;
        };
        let Some((_, sender)) = known.connection.take() else {
            return false;
        };
        sender.send_modify(|outbox| outbox.closed = Some(reason));
        true
    }

    /// Forgets a connection that has ended by itself; whether it was the agent's current one.
    pub(super) fn disconnect(&mut self, agent: &AgentId, connection: u64) -> bool {
        let Some(known) = self.known.get_mut(agent) else {
            return false;
        };
        let current = known
            .connection
            .as_ref()
            .is_some_and(|(id, _)| *id == connection);
        if current {
            known.connection = None;
        }
        current
    }

    /// The agent, if `connection` is its current one.
    ///
    /// # Errors
    /// Why it is not: only a connection that another one replaced is told never to come back.
    pub(super) fn current(
        &mut self,
        agent: &AgentId,
        connection: u64,
    ) -> Result<&mut Agent, CloseReason> {
        let known = self.known.get_mut(agent).ok_or(CloseReason::Silent)?;
        match known.connection.as_ref().map(|(id, _)| *id) {
            Some(id) if id == connection => Ok(known),
            Some(_) => Err(CloseReason::Superseded),
            None => Err(CloseReason::Silent),
        }
    }

    /// Passes a desired state on; only the latest is kept for an agent that does not listen.
    pub(super) fn desire(&self, desired: DesiredAgent) {
        let connection = self
            .known
            .get(&desired.agent)
            .and_then(|it| it.connection.as_ref());
        if let Some((_, sender)) = connection {
            sender.send_modify(|outbox| outbox.desired = Some(desired));
        }
    }

    pub(super) fn get_mut(&mut self, agent: &AgentId) -> Option<&mut Agent> {
        self.known.get_mut(agent)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&AgentId, &Agent)> {
        self.known.iter()
    }

    pub(super) fn connected(&self) -> usize {
        self.known
            .values()
            .filter(|agent| agent.connection.is_some())
            .count()
    }

    fn forget_oldest(&mut self) {
        let gone = |(_, agent): &(&AgentId, &Agent)| agent.connection.is_none();
        if self.known.iter().filter(gone).count() <= MAX_REMEMBERED_AGENTS {
            return;
        }
        let oldest = self
            .known
            .iter()
            .filter(gone)
            .min_by_key(|(_, agent)| agent.last_report);
        if let Some(oldest) = oldest.map(|(id, _)| id.clone()) {
            self.known.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_newer_connection_supersedes() {
        let mut agents = Agents::default();
        let agent: AgentId = "a".parse().expect("is a name");
        let (first, _outbox, _) = agents.connect(&agent, Timestamp::EPOCH);
        assert!(agents.current(&agent, first).is_ok());
        agents.close(&agent, CloseReason::Silent);
        let silent = agents.current(&agent, first).expect_err("is closed");
        assert_eq!(silent, CloseReason::Silent);
        let (second, _outbox, _) = agents.connect(&agent, Timestamp::EPOCH);
        assert!(agents.current(&agent, second).is_ok());
        let superseded = agents.current(&agent, first).expect_err("is replaced");
        assert_eq!(superseded, CloseReason::Superseded);
    }
}
