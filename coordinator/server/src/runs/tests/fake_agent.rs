//! An agent that answers leases by script.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use regatta_wire::v1::fleet_client::FleetClient;
use regatta_wire::{PROTOCOL_VERSION, reapi, v1};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

/// What an agent does with an execution; `None` never answers.
pub(crate) type Script =
    Arc<dyn Fn(&v1::LeaseSpec, &v1::Execution) -> Option<v1::ExecutionOutcome> + Send + Sync>;

const HEARTBEAT: Duration = Duration::from_millis(50);

/// An agent; dropping it kills it.
pub(crate) struct FakeAgent {
    task: tokio::task::JoinHandle<()>,
    pub(crate) leases: Arc<AtomicUsize>,
}

impl Drop for FakeAgent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Held {
    token: u64,
    outcomes: Vec<v1::ExecutionOutcome>,
    acknowledged: usize,
    finished: bool,
}

impl FakeAgent {
    pub(crate) fn start(channel: Channel, report: v1::AgentReport, script: Script) -> Self {
        let leases = Arc::new(AtomicUsize::new(0));
        let task = tokio::spawn(serve(channel, report, script, Arc::clone(&leases)));
        Self { task, leases }
    }
}

pub(crate) fn first_report(name: &str) -> v1::AgentReport {
    v1::AgentReport {
        protocol_version: PROTOCOL_VERSION,
        agent_id: name.to_owned(),
        incarnation: "1".to_owned(),
        sequence: 1,
        offer: Some(v1::AgentOffer {
            hostname: name.to_owned(),
            slots: 1,
            cpu_milli: 4000,
            memory_bytes: 1 << 30,
            ..Default::default()
        }),
        ..Default::default()
    }
}

async fn serve(
    channel: Channel,
    mut report: v1::AgentReport,
    script: Script,
    leases: Arc<AtomicUsize>,
) {
    let (reports, outgoing) = mpsc::channel(16);
    reports.send(report.clone()).await.expect("is open");
    report.offer = None;
    let stream = FleetClient::new(channel)
        .sync(ReceiverStream::new(outgoing))
        .await;
    let mut states = stream.expect("connects").into_inner();
    let mut held: BTreeMap<u64, Held> = BTreeMap::new();
    let mut heartbeat = tokio::time::interval(HEARTBEAT);
    loop {
        let changed = tokio::select! {
            state = states.message() => match state {
                Ok(Some(state)) => {
                    report.observed_version = state.version;
                    adopt(&mut held, state, &script, &leases)
                }
                Ok(None) | Err(_) => return,
            },
            _ = heartbeat.tick() => true,
        };
        if changed {
            report.sequence += 1;
            report.leases = held.iter().map(|(id, held)| held.message(*id)).collect();
            if reports.send(report.clone()).await.is_err() {
                return;
            }
        }
    }
}

/// Does what is desired; whether anything changed.
fn adopt(
    held: &mut BTreeMap<u64, Held>,
    state: v1::DesiredState,
    script: &Script,
    leases: &AtomicUsize,
) -> bool {
    let before = held.len();
    held.retain(|id, _| state.leases.iter().any(|lease| lease.lease_id == *id));
    let mut changed = held.len() != before;
    for lease in state.leases {
        if let Some(known) = held.get_mut(&lease.lease_id) {
            known.acknowledged = lease.acknowledged_outcomes as usize;
            continue;
        }
        let spec = lease.spec.expect("a new lease has its specification");
        leases.fetch_add(1, Ordering::SeqCst);
        let answers: Vec<_> = spec
            .executions
            .iter()
            .map(|execution| {
                let outcome = script(&spec, execution)?;
                Some(v1::ExecutionOutcome {
                    unit: execution.unit,
                    ..outcome
                })
            })
            .collect();
        let finished = answers.iter().all(Option::is_some);
        let outcomes = answers.into_iter().map_while(|answer| answer).collect();
        let token = lease.fencing_token;
        held.insert(
            lease.lease_id,
            Held {
                token,
                outcomes,
                acknowledged: 0,
                finished,
            },
        );
        changed = true;
    }
    changed
}

impl Held {
    fn message(&self, id: u64) -> v1::HeldLease {
        let phase = if self.finished {
            v1::LeasePhase::Finished
        } else {
            v1::LeasePhase::Running
        };
        v1::HeldLease {
            lease_id: id,
            fencing_token: self.token,
            phase: phase.into(),
            slot: Some(0),
            outcomes: self.outcomes[self.acknowledged.min(self.outcomes.len())..].to_vec(),
            outcome_count: u32::try_from(self.outcomes.len()).expect("few"),
            ..Default::default()
        }
    }
}

/// A command that ran to its end.
pub(crate) fn completed(exit_code: i32, stdout: &str) -> v1::ExecutionOutcome {
    v1::ExecutionOutcome {
        kind: v1::OutcomeKind::Completed.into(),
        result: Some(reapi::ActionResult {
            exit_code,
            stdout_raw: stdout.to_owned().into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// A machine that failed.
pub(crate) fn lost() -> v1::ExecutionOutcome {
    v1::ExecutionOutcome {
        kind: v1::OutcomeKind::Infrastructure.into(),
        message: "the disk is on fire".to_owned(),
        ..Default::default()
    }
}
