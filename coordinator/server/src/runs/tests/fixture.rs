//! A coordinator's services over loopback, with everything else in memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use regatta_cas::{BlobStore, Durability, EmptyBlobStore, MemoryBlobStore, WrongReads};
use regatta_ledger::{Ledger, MemoryLedger};
use regatta_model::{Digest, Resources};
use regatta_scheduler::SchedulerConfig;
use regatta_verdict::SigningKey;
use regatta_wire::v1::fleet_server::FleetServer;
use regatta_wire::v1::run_event::Event;
use regatta_wire::v1::runs_client::RunsClient;
use regatta_wire::v1::runs_server::RunsServer;
use regatta_wire::{reapi, v1};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::{Channel, Endpoint, Server};

use super::fake_agent::{FakeAgent, Script, first_report};
use crate::action_cache::ActionCache;
use crate::action_plan::PlanDefaults;
use crate::cas::InputTrees;
use crate::dispatch::{DispatchConfig, Dispatcher};
use crate::fleet_service::FleetService;
use crate::runs::{AuditShare, RunRegistry, RunServices, RunsService};

/// How long a test waits for what must happen.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for a state that nothing tells of.
pub(crate) async fn until(reached: impl Fn() -> bool) {
    let begun = tokio::time::Instant::now();
    while !reached() {
        assert!(begun.elapsed() < PATIENCE, "it is not reached in time");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Where verdicts are kept, and what makes them durable there, if anything does.
type ForVerdicts = (Option<Arc<dyn BlobStore>>, Option<Arc<dyn Durability>>);

/// The services.
pub(crate) struct Fixture {
    pub(crate) channel: Channel,
    pub(crate) blobs: Arc<dyn BlobStore>,
    /// What the action cache keeps.
    results: Arc<dyn BlobStore>,
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) dispatcher: Arc<Dispatcher>,
    pub(crate) wrong_reads: WrongReads,
    services: RunServices,
    _server: AbortOnDropHandle<()>,
}

impl Fixture {
    pub(crate) async fn start() -> Self {
        Self::with_ledger(Arc::new(MemoryLedger::new())).await
    }

    /// One that looks into every cached pass if anything is executed.
    pub(crate) async fn with_audits() -> Self {
        let all = AuditShare::from_percent(100.0).expect("is a share");
        Self::with(Arc::new(MemoryLedger::new()), all, (memory(), memory())).await
    }

    /// A coordinator that starts with another's blobs, and without its action cache.
    pub(crate) async fn successor(&self, ledger: Arc<dyn Ledger>) -> Self {
        let stores = (Arc::clone(&self.blobs), memory());
        Self::with(ledger, AuditShare::default(), stores).await
    }

    /// One that has both.
    pub(crate) async fn heir(&self, ledger: Arc<dyn Ledger>) -> Self {
        let stores = (Arc::clone(&self.blobs), Arc::clone(&self.results));
        Self::with(ledger, AuditShare::default(), stores).await
    }

    pub(crate) async fn with_ledger(ledger: Arc<dyn Ledger>) -> Self {
        Self::with(ledger, AuditShare::default(), (memory(), memory())).await
    }

    /// One that keeps blobs in a store of the test's.
    pub(crate) async fn with_blobs(blobs: Arc<dyn BlobStore>) -> Self {
        let (ledger, stores) = (Arc::new(MemoryLedger::new()), (blobs, memory()));
        Self::with(ledger, AuditShare::default(), stores).await
    }

    /// One that keeps verdicts in a store of their own, which somebody makes safe from a loss of power.
    pub(crate) async fn keeping_verdicts_in(
        store: Arc<dyn BlobStore>,
        durability: Option<Arc<dyn Durability>>,
    ) -> Self {
        let (ledger, stores) = (Arc::new(MemoryLedger::new()), (memory(), memory()));
        let for_verdicts = (Some(store), durability);
        let share = AuditShare::default();
        Self::with_all(ledger, share, stores, for_verdicts, quick()).await
    }

    /// One whose scheduler is not the usual one.
    pub(crate) async fn with_scheduler(config: SchedulerConfig) -> Self {
        let (ledger, stores) = (Arc::new(MemoryLedger::new()), (memory(), memory()));
        let share = AuditShare::default();
        Self::with_all(ledger, share, stores, (None, None), config).await
    }

    async fn with(
        ledger: Arc<dyn Ledger>,
        audit_share: AuditShare,
        stores: (Arc<dyn BlobStore>, Arc<dyn BlobStore>),
    ) -> Self {
        Self::with_all(ledger, audit_share, stores, (None, None), quick()).await
    }

    async fn with_all(
        ledger: Arc<dyn Ledger>,
        audit_share: AuditShare,
        (blobs, results): (Arc<dyn BlobStore>, Arc<dyn BlobStore>),
        (for_verdicts, durability): ForVerdicts,
        scheduler: SchedulerConfig,
    ) -> Self {
        let config = DispatchConfig {
            scheduler,
            commit_patience: Duration::from_millis(100),
            ..DispatchConfig::default()
        };
        let dispatcher = Dispatcher::start(config, Arc::clone(&ledger));
        let dispatcher = dispatcher.await.expect("starts");
        let defaults = PlanDefaults {
            image: None,
            resources: Resources::default(),
            timeout: Duration::from_secs(60),
            maximum_timeout: Duration::from_secs(600),
            tenant_properties: BTreeMap::new(),
        };
        let services = RunServices {
            dispatcher: Arc::clone(&dispatcher),
            results: Arc::new(ActionCache::new(
                Arc::clone(&results),
                Arc::clone(&blobs),
                defaults.clone(),
            )),
            blobs: Arc::clone(&blobs),
            for_verdicts: for_verdicts.unwrap_or_else(|| Arc::clone(&blobs)).into(),
            durability,
            wrong_reads: WrongReads::default(),
            trees: Arc::new(InputTrees::new(Arc::clone(&blobs))),
            ledger: Arc::clone(&ledger),
            defaults,
            audit_share,
        };
        let (channel, server) = serve(&services).await;
        Self {
            channel,
            blobs,
            results,
            ledger,
            dispatcher,
            wrong_reads: services.wrong_reads.clone(),
            services,
            _server: server,
        }
    }

    /// What a coordinator knows that starts with this one's ledger.
    pub(crate) async fn restarted(&self) -> Arc<RunRegistry> {
        RunRegistry::start(self.services.clone())
            .await
            .expect("starts")
    }

    /// One more that starts with a ledger of its own.
    pub(crate) async fn started_with(&self, ledger: Arc<dyn Ledger>) -> Arc<RunRegistry> {
        let services = RunServices {
            ledger,
            ..self.services.clone()
        };
        RunRegistry::start(services).await.expect("starts")
    }

    pub(crate) fn agent(&self, name: &str, script: Script) -> FakeAgent {
        FakeAgent::start(self.channel.clone(), first_report(name), script)
    }

    /// An agent that has persistent workers do what they may.
    pub(crate) fn agent_with_workers(&self, name: &str, script: Script) -> FakeAgent {
        let mut report = first_report(name);
        let offer = report.offer.as_mut().expect("is set");
        offer.properties.push(reapi::platform::Property {
            name: "persistent-workers".to_owned(),
            value: "true".to_owned(),
        });
        FakeAgent::start(self.channel.clone(), report, script)
    }

    /// An agent that has these images.
    pub(crate) fn docker_agent(
        &self,
        name: &str,
        images: Vec<v1::OfferedImage>,
        script: Script,
    ) -> FakeAgent {
        let mut report = first_report(name);
        let offer = report.offer.as_mut().expect("is set");
        offer.runtime = "docker".to_owned();
        offer.images = images;
        FakeAgent::start(self.channel.clone(), report, script)
    }

    /// Waits until exactly these agents are connected and have said what they offer.
    pub(crate) async fn connected(&self, names: &[&str]) {
        let offered = |agent: &v1::AgentStatus| {
            let hostname = agent.offer.as_ref().map(|offer| offer.hostname.as_str());
            !agent.connected || hostname == Some(agent.agent_id.as_str())
        };
        until(|| {
            let agents = self.dispatcher.list_agents();
            let ready = agents.iter().filter(|agent| agent.connected);
            let ready = ready.map(|agent| agent.agent_id.as_str());
            ready.eq(names.iter().copied()) && agents.iter().all(offered)
        })
        .await;
    }

    pub(crate) fn runs(&self) -> RunsClient<Channel> {
        RunsClient::new(self.channel.clone())
    }

    pub(crate) async fn submit(&self, spec: v1::RunSpec) -> String {
        let request = v1::SubmitRunRequest {
            spec: Some(spec),
            ..Default::default()
        };
        let response = self.runs().submit_run(request).await.expect("is accepted");
        response.into_inner().run_id
    }

    /// Submits a run under an id of the submitter's.
    pub(crate) async fn submit_as(
        &self,
        run_id: &str,
        spec: v1::RunSpec,
    ) -> Result<v1::SubmitRunResponse, tonic::Status> {
        let request = v1::SubmitRunRequest {
            spec: Some(spec),
            run_id: run_id.to_owned(),
        };
        let submitted = self.runs().submit_run(request).await;
        submitted.map(tonic::Response::into_inner)
    }

    /// Watches a run to its end.
    pub(crate) async fn finish(&self, run: &str) -> Story {
        tokio::time::timeout(PATIENCE, self.watch(run, 0))
            .await
            .expect("ends in time")
    }

    pub(crate) async fn watch(&self, run: &str, after_sequence: u64) -> Story {
        let request = v1::WatchRunRequest {
            run_id: run.to_owned(),
            after_sequence,
        };
        let mut events = self
            .runs()
            .watch_run(request)
            .await
            .expect("is known")
            .into_inner();
        let mut story = Story::default();
        let mut expected = after_sequence + 1;
        while let Some(event) = events.message().await.expect("goes on") {
            assert_eq!(event.sequence, expected, "without gaps");
            expected += 1;
            story.events.extend(event.event);
        }
        story
    }

    /// How many events of a run there are that has not ended.
    pub(crate) async fn watched_so_far(&self, run: &str) -> u64 {
        let id = run.parse().expect("is an id");
        let events = self.ledger.read_events(&id, 0, usize::MAX).await;
        events.expect("reads").last().map_or(0, |it| it.sequence)
    }

    pub(crate) async fn run(&self, spec: v1::RunSpec) -> Story {
        let run = self.submit(spec).await;
        self.finish(&run).await
    }
}

/// A scheduler that soon sees what is amiss.
pub(super) fn quick() -> SchedulerConfig {
    SchedulerConfig {
        heartbeat_interval: Duration::from_millis(100),
        // A busy machine is silent for a while.
        missed_heartbeats: 20,
        unsatisfiable_grace: Duration::from_millis(200),
        retry_elsewhere: Duration::from_millis(100),
        ..SchedulerConfig::default()
    }
}

fn memory() -> Arc<dyn BlobStore> {
    Arc::new(EmptyBlobStore::new(Arc::new(MemoryBlobStore::new())))
}

async fn serve(services: &RunServices) -> (Channel, AbortOnDropHandle<()>) {
    let registry = RunRegistry::start(services.clone()).await.expect("starts");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("is bound");
    let fleet = FleetService::new(Arc::clone(&services.dispatcher));
    let key = SigningKey::generate().expect("random numbers");
    let server = Server::builder()
        .add_service(RunsServer::new(RunsService::new(registry, Arc::new(key))))
        .add_service(FleetServer::new(fleet))
        .serve_with_incoming(TcpListenerStream::new(listener));
    let server = tokio::spawn(async move { server.await.expect("serves") });
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("is an address");
    let channel = endpoint.connect().await.expect("connects");
    (channel, AbortOnDropHandle::new(server))
}

/// Everything that a run told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Story {
    pub(crate) events: Vec<Event>,
}

impl Story {
    pub(crate) fn end(&self) -> &v1::RunFinished {
        match self.events.last() {
            Some(Event::RunFinished(end)) => end,
            other => panic!("the last event is {other:?}"),
        }
    }

    pub(crate) fn counts(&self) -> v1::Counts {
        self.end().counts.expect("are set")
    }

    /// Each test's one result.
    pub(crate) fn tests(&self) -> BTreeMap<String, v1::TestResult> {
        let mut results = BTreeMap::new();
        for event in &self.events {
            let Event::TestsFinished(finished) = event else {
                continue;
            };
            for result in &finished.results {
                let known = results.insert(result.test_id.clone(), result.clone());
                assert!(known.is_none(), "{} is told twice", result.test_id);
            }
        }
        results
    }

    pub(crate) fn job(&self, name: &str) -> &v1::JobFinished {
        let mut ends = self.events.iter().filter_map(|event| match event {
            Event::JobFinished(end) if end.job == name => Some(end),
            _ => None,
        });
        let end = ends.next().expect("the job has ended");
        assert!(ends.next().is_none(), "{name} ended twice");
        end
    }
}

pub(crate) fn build(name: &str, needs: &[&str], arguments: &[&str]) -> v1::Job {
    v1::Job {
        name: name.to_owned(),
        needs: needs.iter().map(|&name| name.to_owned()).collect(),
        input_root: Some(Digest::EMPTY.into()),
        kind: Some(v1::job::Kind::Build(v1::Build {
            arguments: arguments.iter().map(|&text| text.to_owned()).collect(),
            do_not_cache: false,
        })),
        ..Default::default()
    }
}

pub(crate) fn libtest(name: &str) -> v1::Job {
    suite(
        name,
        v1::Suite {
            adapter: v1::SuiteAdapter::Libtest.into(),
            run_arguments: vec!["./tests".to_owned()],
            ..Default::default()
        },
    )
}

pub(crate) fn contract(name: &str) -> v1::Job {
    suite(
        name,
        v1::Suite {
            adapter: v1::SuiteAdapter::Contract.into(),
            discover_arguments: vec!["./list".to_owned()],
            run_arguments: vec!["./run".to_owned()],
            junit_path: "junit.xml".to_owned(),
            ..Default::default()
        },
    )
}

fn suite(name: &str, suite: v1::Suite) -> v1::Job {
    v1::Job {
        kind: Some(v1::job::Kind::Suite(suite)),
        ..build(name, &[], &[])
    }
}

pub(crate) fn spec(jobs: Vec<v1::Job>) -> v1::RunSpec {
    v1::RunSpec {
        jobs,
        ..Default::default()
    }
}
