//! A coordinator of one agent: grants what a test says, records what it is told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use regatta_cas::MemoryBlobStore;
use regatta_wire::bytestream::byte_stream_server::ByteStreamServer;
use regatta_wire::reapi::content_addressable_storage_server::ContentAddressableStorageServer;
use regatta_wire::v1;
use regatta_wire::v1::fleet_server::{Fleet, FleetServer};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

use crate::cas::{Gate, MemoryCas};

/// Longer than anything here takes on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
const HEARTBEAT: prost_types::Duration = prost_types::Duration {
    seconds: 0,
    nanos: 200_000_000,
};

/// What the coordinator knows.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) reports: Vec<v1::AgentReport>,
    pub(crate) chunks: Vec<v1::OutputChunk>,
    pub(crate) outcomes: BTreeMap<u64, Vec<v1::ExecutionOutcome>>,
    pub(crate) finished: Vec<u64>,
    pub(crate) connections: usize,
    pub(crate) refusal: Option<Status>,
    /// As if it were of an earlier release.
    unknown: Option<v1::OutcomeKind>,
    leases: BTreeMap<u64, v1::LeaseSpec>,
    told: Vec<u64>,
    version: u64,
    current: Option<mpsc::Sender<Result<v1::DesiredState, Status>>>,
}

/// A coordinator, up or down. What it knows and stores survives its servers.
#[derive(Debug)]
pub(crate) struct Coordinator {
    pub(crate) store: Arc<MemoryBlobStore>,
    pub(crate) address: SocketAddr,
    gate: watch::Sender<Gate>,
    known: watch::Sender<Known>,
    server: Option<Runtime>,
}

impl Coordinator {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut coordinator = Self {
            store: Arc::new(MemoryBlobStore::new()),
            address,
            gate: watch::Sender::default(),
            known: watch::channel(Known::default()).0,
            server: None,
        };
        coordinator.serve(listener.into_std().unwrap());
        coordinator
    }

    /// In a runtime of its own, which ends with all its connections.
    fn serve(&mut self, listener: std::net::TcpListener) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let cas = MemoryCas {
            blobs: Arc::clone(&self.store),
            gate: self.gate.clone(),
        };
        let fleet = Service {
            known: self.known.clone(),
        };
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            tonic::transport::Server::builder()
                .add_service(FleetServer::new(fleet))
                .add_service(ContentAddressableStorageServer::new(cas.clone()))
                .add_service(ByteStreamServer::new(cas))
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await
                .unwrap();
        });
        self.server = Some(runtime);
    }

    pub(crate) fn stop(&mut self) {
        self.server.take().unwrap().shutdown_background();
        self.known.send_modify(|known| known.current = None);
    }

    pub(crate) async fn restart(&mut self) {
        let bind = async {
            loop {
                match TcpListener::bind(self.address).await {
                    Ok(listener) => return listener,
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        };
        let listener = tokio::time::timeout(DEADLINE, bind).await.unwrap();
        self.serve(listener.into_std().unwrap());
    }

    pub(crate) fn refuse(&self, status: Status) {
        self.known.send_modify(|known| known.refusal = Some(status));
    }

    /// Refuses reports of outcomes of a kind, as one does that does not know it.
    pub(crate) fn knows_nothing_of(&self, kind: v1::OutcomeKind) {
        self.known.send_modify(|known| known.unknown = Some(kind));
    }

    /// Lets nobody read a blob from now on.
    pub(crate) fn hold_reads(&self) {
        let closed = Gate {
            is_closed: true,
            ..Gate::default()
        };
        self.gate.send_replace(closed);
    }

    /// Takes no results, and says nothing that would make an agent wait, or takes them again.
    pub(crate) fn set_broken(&self, is_broken: bool) {
        self.gate.send_modify(|gate| gate.is_broken = is_broken);
    }

    /// Waits until somebody waits to read a blob.
    pub(crate) async fn read_held(&self) {
        let mut gate = self.gate.subscribe();
        let read = tokio::time::timeout(DEADLINE, gate.wait_for(|gate| gate.reads > 0));
        drop(read.await.unwrap().unwrap());
    }

    /// Lets reads go on, once there is one and it has waited for `time`.
    pub(crate) async fn release_reads_after(&self, time: Duration) {
        self.read_held().await;
        // Nothing is waited for here but time itself.
        tokio::time::sleep(time).await;
        self.gate.send_modify(|gate| gate.is_closed = false);
    }

    pub(crate) fn grant(&self, lease: u64, spec: v1::LeaseSpec) {
        self.known.send_modify(|known| {
            known.leases.insert(lease, spec);
            known.speak();
        });
    }

    /// Leaves a lease out of the desired state, once it was reported: before that, an agent takes it for
    /// one that the coordinator has not heard of.
    pub(crate) async fn cancel(&self, lease: u64) {
        self.wait_for("the lease in a report", |known| {
            let leases = &known.reports.last()?.leases;
            let held = leases.iter().any(|held| held.lease_id == lease);
            held.then_some(())
        })
        .await;
        self.known.send_modify(|known| {
            known.leases.remove(&lease);
            known.speak();
        });
    }

    /// Ends the agent's connection, and nothing else.
    pub(crate) fn disconnect(&self) {
        self.known.send_modify(|known| known.current = None);
    }

    /// Waits until `look` finds something.
    pub(crate) async fn wait_for<T>(&self, what: &str, look: impl Fn(&Known) -> Option<T>) -> T {
        let mut changes = self.known.subscribe();
        let found = async {
            loop {
                if let Some(found) = look(&changes.borrow_and_update()) {
                    return found;
                }
                changes.changed().await.unwrap();
            }
        };
        tokio::time::timeout(DEADLINE, found)
            .await
            .unwrap_or_else(|_| {
                panic!(
                    "no sign of {what}; last report: {:?}",
                    self.known.borrow().reports.last()
                )
            })
    }

    /// The outcomes of a lease, once it has finished.
    pub(crate) async fn outcomes(&self, lease: u64) -> Vec<v1::ExecutionOutcome> {
        self.wait_for("a finished lease", |known| {
            known
                .finished
                .contains(&lease)
                .then(|| known.outcomes[&lease].clone())
        })
        .await
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown_background();
        }
    }
}

impl Known {
    fn speak(&mut self) {
        let Some(current) = self.current.clone() else {
            return;
        };
        self.version += 1;
        let lease = |(id, spec): (&u64, &v1::LeaseSpec)| v1::DesiredLease {
            lease_id: *id,
            fencing_token: id * 10,
            acknowledged_outcomes: u32::try_from(self.outcomes.get(id).map_or(0, Vec::len))
                .unwrap(),
            spec: (!self.told.contains(id)).then(|| spec.clone()),
        };
        let state = v1::DesiredState {
            version: self.version,
            leases: self.leases.iter().map(lease).collect(),
            observed_sequence: self.reports.last().map_or(0, |report| report.sequence),
            drain: false,
            heartbeat_interval: Some(HEARTBEAT),
        };
        current.try_send(Ok(state)).ok();
    }

    fn hear(&mut self, report: v1::AgentReport) {
        let mut outcomes = report.leases.iter().flat_map(|lease| &lease.outcomes);
        if outcomes.any(|outcome| Some(outcome.kind()) == self.unknown) {
            let refusal = Status::invalid_argument("is no kind of outcome");
            if let Some(current) = self.current.take() {
                current.try_send(Err(refusal)).ok();
            }
            return;
        }
        let mut news = false;
        for lease in &report.leases {
            assert_eq!(lease.fencing_token, lease.lease_id * 10);
            if !self.told.contains(&lease.lease_id) {
                self.told.push(lease.lease_id);
            }
            let known = self.outcomes.entry(lease.lease_id).or_default();
            let first = lease.outcome_count as usize - lease.outcomes.len();
            assert!(first <= known.len(), "an outcome was skipped");
            let new: Vec<_> = lease
                .outcomes
                .iter()
                .skip(known.len() - first)
                .cloned()
                .collect();
            news |= !new.is_empty();
            known.extend(new);
            if lease.phase() == v1::LeasePhase::Finished {
                self.finished.push(lease.lease_id);
                self.leases.remove(&lease.lease_id);
                news = true;
            }
        }
        self.reports.push(report);
        if news {
            self.speak();
        }
    }
}

struct Service {
    known: watch::Sender<Known>,
}

#[tonic::async_trait]
impl Fleet for Service {
    type SyncStream = ReceiverStream<Result<v1::DesiredState, Status>>;

    async fn sync(
        &self,
        request: Request<Streaming<v1::AgentReport>>,
    ) -> Result<Response<Self::SyncStream>, Status> {
        if let Some(refusal) = self.known.borrow().refusal.clone() {
            return Err(refusal);
        }
        let mut reports = request.into_inner();
        let first = reports.message().await?.unwrap();
        assert!(
            first.sequence == 1 && first.offer.is_some(),
            "the first report has everything"
        );
        let (sender, states) = mpsc::channel(64);
        self.known.send_modify(|known| {
            known.connections += 1;
            known.told.clear();
            known.current = Some(sender.clone());
            known.hear(first);
            known.speak();
        });
        let known = self.known.clone();
        drop(sender);
        tokio::spawn(async move {
            while let Ok(Some(report)) = reports.message().await {
                known.send_modify(|known| known.hear(report));
            }
        });
        Ok(Response::new(ReceiverStream::new(states)))
    }

    async fn stream_output(
        &self,
        request: Request<Streaming<v1::OutputChunk>>,
    ) -> Result<Response<v1::StreamOutputResponse>, Status> {
        let mut chunks = request.into_inner();
        while let Some(chunk) = chunks.message().await? {
            self.known.send_modify(|known| known.chunks.push(chunk));
        }
        Ok(Response::new(v1::StreamOutputResponse {}))
    }

    async fn list_agents(
        &self,
        _: Request<v1::ListAgentsRequest>,
    ) -> Result<Response<v1::ListAgentsResponse>, Status> {
        Err(Status::unimplemented("nobody here asks for it"))
    }

    async fn drain_agent(
        &self,
        _: Request<v1::DrainAgentRequest>,
    ) -> Result<Response<v1::DrainAgentResponse>, Status> {
        Err(Status::unimplemented("nobody here asks for it"))
    }
}
