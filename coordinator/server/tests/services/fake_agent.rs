//! An agent without machines: it answers leases as a test tells it to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use regatta_wire::reapi::platform::Property;
use regatta_wire::v1::fleet_client::FleetClient;
use regatta_wire::{PROTOCOL_VERSION, v1};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;

use crate::harness::{Running, connect};

/// What to answer to a lease; `None` leaves it running until it is no longer wanted.
type Answer = dyn Fn(&v1::LeaseSpec) -> Option<v1::ExecutionOutcome> + Send + Sync;

/// Dropping it cuts its connection.
pub(crate) struct FakeAgent {
    seen: Arc<Mutex<Vec<v1::LeaseSpec>>>,
    dropped: tokio::sync::watch::Receiver<usize>,
    _task: AbortOnDropHandle<()>,
}

impl FakeAgent {
    pub(crate) async fn start(
        coordinator: &Running,
        answer: impl Fn(&v1::LeaseSpec) -> Option<v1::ExecutionOutcome> + Send + Sync + 'static,
    ) -> Self {
        Self::holding(coordinator, Vec::new(), answer).await
    }

    /// One that comes with leases.
    pub(crate) async fn holding(
        coordinator: &Running,
        leases: Vec<v1::HeldLease>,
        answer: impl Fn(&v1::LeaseSpec) -> Option<v1::ExecutionOutcome> + Send + Sync + 'static,
    ) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let dropped = tokio::sync::watch::Sender::new(0);
        let watching = dropped.subscribe();
        // A connection of its own, as an agent has.
        let mut client = FleetClient::new(connect(coordinator.address).await);
        let (reports, outgoing) = mpsc::channel(16);
        let mut agent = Loop {
            answer: Box::new(answer),
            seen: Arc::clone(&seen),
            dropped,
            leases: leases.into_iter().map(|it| (it.lease_id, it)).collect(),
            sequence: 0,
            reports,
        };
        agent.report(0, Some(offer())).await;
        let mut states = client
            .sync(ReceiverStream::new(outgoing))
            .await
            .unwrap()
            .into_inner();
        let task = tokio::spawn(async move {
            while let Ok(Some(state)) = states.message().await {
                agent.follow(state).await;
            }
        });
        Self {
            seen,
            dropped: watching,
            _task: AbortOnDropHandle::new(task),
        }
    }

    /// Every lease that it was given, in order.
    pub(crate) fn seen(&self) -> Vec<v1::LeaseSpec> {
        self.seen.lock().unwrap().clone()
    }

    /// Waits until it was told to stop `count` running leases.
    pub(crate) async fn stopped(&mut self, count: usize) {
        self.dropped
            .wait_for(|dropped| *dropped >= count)
            .await
            .unwrap();
    }
}

fn offer() -> v1::AgentOffer {
    let properties = [("OSFamily", "linux"), ("Arch", "x86-64")].map(|(name, value)| Property {
        name: name.to_owned(),
        value: value.to_owned(),
    });
    v1::AgentOffer {
        hostname: "fake".to_owned(),
        runtime: "process".to_owned(),
        slots: 4,
        cpu_milli: 8000,
        memory_bytes: 8 << 30,
        properties: properties.to_vec(),
        ..Default::default()
    }
}

struct Loop {
    answer: Box<Answer>,
    seen: Arc<Mutex<Vec<v1::LeaseSpec>>>,
    dropped: tokio::sync::watch::Sender<usize>,
    leases: BTreeMap<u64, v1::HeldLease>,
    sequence: u64,
    reports: mpsc::Sender<v1::AgentReport>,
}

impl Loop {
    async fn follow(&mut self, state: v1::DesiredState) {
        let wanted: Vec<u64> = state.leases.iter().map(|lease| lease.lease_id).collect();
        let before = self.leases.len();
        let running = |lease: &v1::HeldLease| lease.phase() == v1::LeasePhase::Running;
        let was_running = self.leases.values().filter(|lease| running(lease)).count();
        self.leases.retain(|id, _| wanted.contains(id));
        let is_running = self.leases.values().filter(|lease| running(lease)).count();
        self.dropped
            .send_modify(|dropped| *dropped += was_running - is_running);
        let mut changed = before != self.leases.len();
        for lease in state.leases {
            let held = self.leases.get(&lease.lease_id);
            changed |= held.is_some_and(|held| lease.acknowledged_outcomes < held.outcome_count);
            if let (None, Some(spec)) = (self.leases.get(&lease.lease_id), lease.spec) {
                let held = self.begin(lease.lease_id, lease.fencing_token, spec);
                self.leases.insert(lease.lease_id, held);
                changed = true;
            }
        }
        // Heartbeats answer heartbeats: the coordinator sends a state when something changes only.
        if changed || state.observed_sequence < self.sequence {
            self.report(state.version, None).await;
        }
    }

    fn begin(&self, lease_id: u64, fencing_token: u64, spec: v1::LeaseSpec) -> v1::HeldLease {
        let outcomes: Vec<_> = (self.answer)(&spec).into_iter().collect();
        self.seen.lock().unwrap().push(spec);
        let phase = match outcomes.len() {
            0 => v1::LeasePhase::Running,
            _ => v1::LeasePhase::Finished,
        };
        v1::HeldLease {
            lease_id,
            fencing_token,
            phase: phase.into(),
            slot: Some(0),
            outcome_count: u32::try_from(outcomes.len()).unwrap(),
            outcomes,
            ..Default::default()
        }
    }

    async fn report(&mut self, observed_version: u64, offer: Option<v1::AgentOffer>) {
        self.sequence += 1;
        let report = v1::AgentReport {
            protocol_version: PROTOCOL_VERSION,
            agent_id: "fake".to_owned(),
            incarnation: "1".to_owned(),
            sequence: self.sequence,
            observed_version,
            offer,
            leases: self.leases.values().cloned().collect(),
            ..Default::default()
        };
        // Nobody listens once the coordinator is gone, which ends the loop anyway.
        drop(self.reports.send(report).await);
    }
}
