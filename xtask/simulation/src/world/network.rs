//! What passes between agents and the coordinator.

use std::time::Duration;

use regatta_agent_core::{ConnectionId, Event};
use regatta_wire::v1;

use super::happening::Happening;
use super::{Ended, World, show};
use crate::coordinator::Transport;
use crate::machine;
use crate::said::Link;

/// How long a message is under way, in milliseconds.
const USUAL_MILLIS: (u64, u64) = (1, 20);
/// How long some are.
const LATE_MILLIS: (u64, u64) = (100, 3000);
/// Of a thousand messages, how many are late.
const LATE_PERMILLE: u64 = 30;
/// Of a thousand datagrams, how many are lost, and how many come twice.
const LOST_PERMILLE: u64 = 60;
const TWICE_PERMILLE: u64 = 60;
/// How long an agent waits for an answer to its pings.
const KEEP_ALIVE: Duration = Duration::from_secs(12);

/// What is known of a connection's messages.
#[derive(Debug, Default)]
pub(super) struct Wire {
    last_report: Duration,
    last_state: Duration,
    /// The last desired state that was sent.
    version: u64,
}

impl World {
    fn delay(&mut self) -> Duration {
        let is_late = self.random.chance(LATE_PERMILLE);
        let (first, last) = if is_late { LATE_MILLIS } else { USUAL_MILLIS };
        self.random.millis(first, last)
    }

    /// When a message of a machine arrives that leaves now, on either side.
    fn arrival(&mut self, machine: usize) -> Duration {
        let delay = self.delay();
        self.now.max(self.machines[machine].partitioned_until) + delay
    }

    pub(super) fn is_partitioned(&self, machine: usize) -> bool {
        self.machines[machine].partitioned_until > self.now
    }

    fn is_served(&self) -> bool {
        self.coordinator
            .as_ref()
            .is_some_and(crate::coordinator::Coordinator::is_up)
    }

    pub(super) fn connect(&mut self, index: usize, life: u64) -> Result<(), Ended> {
        let machine = &self.machines[index];
        if machine.life != life || machine.core.is_none() || machine.link.is_some() {
            return Ok(());
        }
        if !self.is_served() || self.is_partitioned(index) {
            self.connect_later(index);
            return Ok(());
        }
        let machine = &mut self.machines[index];
        machine.connect_attempts = 0;
        let link = machine.next_link();
        machine.link = Some(link);
        self.wires.insert(link, Wire::default());
        self.tell(&format!("{} opens", show(link)));
        self.after(KEEP_ALIVE, Happening::KeepAlive(link));
        self.feed(index, Event::ConnectionOpened(ConnectionId(link.number)))
    }

    /// Agents try again sooner at first, and later later.
    pub(super) fn connect_later(&mut self, index: usize) {
        let machine = &mut self.machines[index];
        machine.connect_attempts += 1;
        let (attempts, life) = (machine.connect_attempts.min(6), machine.life);
        let longest = (100_u64 << attempts).min(5000);
        let pause = self.random.millis(longest / 2, longest);
        let connects = Happening::Connects {
            machine: index,
            life,
        };
        self.after(pause, connects);
    }

    /// An agent's end of a connection is gone. The other end learns of it later.
    pub(super) fn lose_link(&mut self, link: Link) -> Result<(), Ended> {
        let machine = &mut self.machines[link.machine];
        if machine.link != Some(link) {
            return Ok(());
        }
        machine.link = None;
        self.tell(&format!("{} is lost", show(link)));
        let notices = if self.random.chance(300) {
            self.random.millis(0, 20_000)
        } else {
            self.random.millis(0, 50)
        };
        self.after(notices, Happening::LinkEnds(link));
        self.feed(
            link.machine,
            Event::ConnectionLost(ConnectionId(link.number)),
        )?;
        self.connect_later(link.machine);
        Ok(())
    }

    pub(super) fn end_link(&mut self, link: Link) {
        if let Some(coordinator) = &self.coordinator {
            coordinator.hang_up(link);
        }
        self.wires.remove(&link);
    }

    pub(super) fn keep_alive(&mut self, link: Link) -> Result<(), Ended> {
        if self.machines[link.machine].link != Some(link) {
            return Ok(());
        }
        let began = self.machines[link.machine].partitioned_until;
        if self.is_partitioned(link.machine) && began > self.now + KEEP_ALIVE / 4 {
            return self.lose_link(link);
        }
        self.after(KEEP_ALIVE / 2, Happening::KeepAlive(link));
        Ok(())
    }

    pub(super) fn send_report(&mut self, link: Link, report: v1::AgentReport) {
        let leaves = self.random.millis(0, 5);
        self.after(leaves, Happening::ReportLeft(link));
        let mut arrival = self.arrival(link.machine);
        let transport = self.plan.transport;
        let wire = self.wires.entry(link).or_default();
        let is_first = report.sequence == 1;
        if transport == Transport::Stream || is_first {
            wire.last_report = arrival.max(wire.last_report);
            arrival = wire.last_report;
        } else {
            // None overtakes the first, by which a connection is known.
            arrival = arrival.max(wire.last_report);
            if self.random.chance(LOST_PERMILLE) && !self.is_mended() {
                return;
            }
            if self.random.chance(TWICE_PERMILLE) {
                let later = arrival + self.random.millis(0, 2000);
                self.at(
                    later,
                    Happening::ReportArrives(link, Box::new(report.clone())),
                );
            }
        }
        self.at(arrival, Happening::ReportArrives(link, Box::new(report)));
    }

    pub(super) fn report_left(&mut self, link: Link) -> Result<(), Ended> {
        if self.machines[link.machine].link != Some(link) {
            return Ok(());
        }
        self.feed(link.machine, Event::ReportSent(ConnectionId(link.number)))
    }

    pub(super) fn report_arrives(&mut self, link: Link, report: v1::AgentReport) {
        // A connection ends with the process at its end.
        if !self.wires.contains_key(&link) {
            return self.report_to_hung(link, report);
        }
        let Some(coordinator) = self.coordinator.as_ref().filter(|it| it.is_up()) else {
            return self.report_to_hung(link, report);
        };
        let leases: Vec<String> = report.leases.iter().map(show_held).collect();
        // That nothing is new is worth no line.
        if !leases.is_empty() || report.offer.is_some() {
            let (sequence, version) = (report.sequence, report.observed_version);
            let what = format!(
                "report {sequence} after state {version}: {}",
                leases.join(", ")
            );
            self.tell(&format!("{} -> {what}", show(link)));
        }
        self.model.arrives(self.now, link.machine, &report);
        coordinator.report(link, report);
    }

    pub(super) fn state_leaves(
        &mut self,
        link: Link,
        state: Box<v1::DesiredState>,
    ) -> Result<(), Ended> {
        let leases: Vec<String> = state.leases.iter().map(show_desired).collect();
        self.tell(&format!(
            "{} <- state {} after report {}: {}",
            show(link),
            state.version,
            state.observed_sequence,
            leases.join(", ")
        ));
        self.model.fences.wish(self.now, link.machine, &state)?;
        let mut arrival = self.arrival(link.machine);
        let transport = self.plan.transport;
        let Some(wire) = self.wires.get_mut(&link) else {
            return Ok(());
        };
        wire.version = wire.version.max(state.version);
        if transport == Transport::Stream {
            wire.last_state = arrival.max(wire.last_state);
            arrival = wire.last_state;
        } else if self.random.chance(TWICE_PERMILLE) {
            let later = arrival + self.random.millis(0, 2000);
            self.at(later, Happening::StateArrives(link, state.clone()));
        }
        self.at(arrival, Happening::StateArrives(link, state));
        Ok(())
    }

    pub(super) fn state_arrives(
        &mut self,
        link: Link,
        state: v1::DesiredState,
    ) -> Result<(), Ended> {
        if self.plan.transport == Transport::Datagrams {
            // Only the latest is certain to arrive.
            let latest = self.wires.get(&link).map_or(0, |wire| wire.version);
            if state.version < latest && self.random.chance(2 * LOST_PERMILLE) {
                return Ok(());
            }
        }
        let id = ConnectionId(link.number);
        self.feed(link.machine, Event::Desired(id, machine::desired(state)))
    }
}

fn show_held(lease: &v1::HeldLease) -> String {
    let outcomes = lease.outcomes.iter().map(|outcome| {
        let number = outcome.result.as_ref();
        let number = number.and_then(|it| crate::job::execution_in(&it.stdout_raw));
        format!(
            " {}:{:?}{}",
            outcome.unit,
            outcome.kind(),
            number.map_or(String::new(), |it| format!("#{it}"))
        )
    });
    format!(
        "lease {} {:?}{}",
        lease.lease_id,
        lease.phase(),
        outcomes.collect::<String>()
    )
}

fn show_desired(lease: &v1::DesiredLease) -> String {
    let units = lease.spec.as_ref().map_or(String::new(), |spec| {
        let units = spec.executions.iter().map(|it| it.unit.to_string());
        format!(" with {}", units.collect::<Vec<_>>().join("+"))
    });
    format!(
        "lease {} acknowledged {}{units}",
        lease.lease_id, lease.acknowledged_outcomes
    )
}
