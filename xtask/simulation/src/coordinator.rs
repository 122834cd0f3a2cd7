//! The coordinator: the real services on a clock of their own, on storage in any weather.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use regatta_cas::{
    BlobStore, EmptyBlobStore, ExistenceIndex, MemoryTier, VerifyingBlobStore, put_bytes,
};
use regatta_ledger::{Ledger, MemoryLedger};
use regatta_model::{Digest, Resources, TenantId};
use regatta_scheduler::{SchedulerConfig, Snapshot};
use regatta_server::action_cache::ActionCache;
use regatta_server::action_plan::PlanDefaults;
use regatta_server::cas::InputTrees;
use regatta_server::dispatch::{ClaimKey, DispatchConfig, Dispatcher, ValidReport};
use regatta_server::fleet_service::serve_connection;
use regatta_server::runs::{AuditShare, RunRegistry, RunServices};
use regatta_wire::v1;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::UnboundedReceiverStream;

use crate::bucket::{Shelf, WeatheredBucket};
use crate::ledger::WeatheredLedger;
use crate::said::{Link, Said, SaidQueue};
use crate::weather::Weather;

/// What every coordinator seals claims with.
const CLAIM_SECRET: [u8; 32] = [7; 32];
/// How long a blob is known to be there without asking: a tenth of what it is in earnest.
const INDEX_EXPIRY: Duration = Duration::from_secs(60);
/// How many blobs are known to be there.
const INDEX_CAPACITY: usize = 1 << 10;
/// How much memory blobs that were read lately may take, in bytes, and the largest of them.
const MEMORY_TIER_BYTES: (u64, u64) = (256, 128);
/// How many tokens one reservation covers: few, so that there are many.
const TOKEN_BLOCK: u64 = 5;

/// What outlives a coordinator.
#[derive(Clone, Debug, Default)]
pub(crate) struct Durable {
    pub(crate) ledger: Arc<MemoryLedger>,
    pub(crate) blobs: Shelf,
    pub(crate) results: Shelf,
}

/// How messages of agents come in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Transport {
    /// In order and once, as long as the connection lasts.
    Stream,
    /// Each for itself, from the second on: some twice, some late, some never.
    Datagrams,
}

/// One life of the coordinator. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Coordinator {
    runtime: Runtime,
    begun: Instant,
    begun_at: Duration,
    said: SaidQueue,
    services: Arc<OnceLock<Services>>,
    transport: Transport,
    inboxes: Arc<Mutex<BTreeMap<Link, Inbox>>>,
}

type Inbox = mpsc::UnboundedSender<Result<v1::AgentReport, tonic::Status>>;

#[derive(Clone, Debug)]
struct Services {
    dispatcher: Arc<Dispatcher>,
    registry: Arc<RunRegistry>,
    results: Arc<ActionCache>,
    blobs: Arc<dyn BlobStore>,
}

impl Coordinator {
    /// Starts one; it says when it serves.
    ///
    /// # Errors
    /// This machine gives no runtime.
    pub(crate) fn start(
        now: Duration,
        durable: &Durable,
        weather: &Weather,
        said: &SaidQueue,
        transport: Transport,
    ) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()?;
        let begun = runtime.block_on(async { Instant::now() });
        weather.begin(begun, now);
        said.open();
        let services = Arc::new(OnceLock::new());
        let starting = start_services(durable.clone(), weather.clone());
        let (ready, speaker) = (Arc::clone(&services), said.clone());
        runtime.spawn(async move {
            match starting.await {
                Ok(started) => {
                    ready.get_or_init(|| started);
                    speaker.say(Said::Started);
                }
                Err(error) => speaker.say(Said::FailedToStart(error)),
            }
        });
        Ok(Self {
            runtime,
            begun,
            begun_at: now,
            said: said.clone(),
            services,
            transport,
            inboxes: Arc::default(),
        })
    }

    /// Lets it go on until something is said, or until `deadline`; when that is.
    pub(crate) fn run_until(&self, deadline: Duration) -> Duration {
        let until = self.begun + deadline.saturating_sub(self.begun_at);
        let (said, begun) = (self.said.clone(), self.begun);
        let passed = self.runtime.block_on(async move {
            tokio::select! {
                biased;
                () = said.heard() => {}
                () = tokio::time::sleep_until(until) => {}
            }
            begun.elapsed()
        });
        (self.begun_at + passed).min(deadline)
    }

    pub(crate) fn is_up(&self) -> bool {
        self.services.get().is_some()
    }

    /// A report comes in.
    pub(crate) fn report(&self, link: Link, report: v1::AgentReport) {
        let Some(services) = self.services.get() else {
            return;
        };
        let mut inboxes = self.inboxes.lock().unwrap_or_else(PoisonError::into_inner);
        let inbox = inboxes.entry(link).or_insert_with(|| {
            let (inbox, reports) = mpsc::unbounded_channel();
            let reports = UnboundedReceiverStream::new(reports);
            let (services, said) = (services.clone(), self.said.clone());
            match self.transport {
                Transport::Stream => {
                    self.runtime
                        .spawn(serve_stream(services, said, link, reports));
                }
                Transport::Datagrams => {
                    self.runtime
                        .spawn(serve_datagrams(services, said, link, reports));
                }
            }
            inbox
        });
        // Whoever serves it may have ended it.
        drop(inbox.send(Ok(report)));
    }

    /// A connection ends on its way here.
    pub(crate) fn hang_up(&self, link: Link) {
        let mut inboxes = self.inboxes.lock().unwrap_or_else(PoisonError::into_inner);
        inboxes.remove(&link);
    }

    pub(crate) fn submit(&self, run: usize, spec: v1::RunSpec) {
        let said = self.said.clone();
        self.spawn(async move |services| {
            let answer = services.registry.submit(None, spec).await;
            let answer = answer.map(|(id, _)| id.to_string());
            let answer = answer.map_err(|error| error.to_string());
            said.say(Said::Submitted { run, answer });
        });
    }

    pub(crate) fn watch(&self, run: usize, id: String, after: u64) {
        let said = self.said.clone();
        self.spawn(async move |services| {
            let failure = match services.registry.watch(&id, after).await {
                Ok(events) => {
                    let mut events = std::pin::pin!(events);
                    loop {
                        match events.next().await {
                            Some(Ok(event)) => {
                                let event = Box::new(event);
                                said.say(Said::Event { run, event });
                            }
                            Some(Err(error)) => break Some(error.to_string()),
                            None => break None,
                        }
                    }
                }
                Err(error) => Some(error.to_string()),
            };
            said.say(Said::WatchEnded { run, failure });
        });
    }

    pub(crate) fn cancel(&self, id: String) {
        self.spawn(async move |services| {
            // Whoever cancels a run looks at its events.
            drop(services.registry.cancel(&id).await);
        });
    }

    /// An agent uploads a blob.
    pub(crate) fn upload(&self, upload: u64, bytes: Bytes) {
        let said = self.said.clone();
        self.spawn(async move |services| {
            let stored = put_bytes(services.blobs.as_ref(), bytes).await.is_ok();
            said.say(Said::Uploaded { upload, stored });
        });
    }

    /// Somebody asks for an action result. What it names and is not on the shelf is told.
    pub(crate) fn look_up(&self, key: Digest, shelf: Shelf) {
        let said = self.said.clone();
        self.spawn(async move |services| {
            let tenant = tenant();
            if let Ok(Some(result)) = services.results.get(&tenant, &key).await {
                let named = crate::job::blobs_of(&result);
                let absent = named.filter(|digest| !shelf.has(digest)).collect();
                said.say(Said::Served { key, absent });
            }
        });
    }

    pub(crate) fn snapshot(&self) -> Option<Snapshot> {
        let services = self.services.get()?;
        Some(services.dispatcher.snapshot())
    }

    fn spawn<Work, Working>(&self, work: Work)
    where
        Work: FnOnce(Services) -> Working,
        Working: Future<Output = ()> + Send + 'static,
    {
        if let Some(services) = self.services.get() {
            self.runtime.spawn(work(services.clone()));
        }
    }
}

/// The only tenant.
pub(crate) fn tenant() -> TenantId {
    "".parse()
        .unwrap_or_else(|_| unreachable!("REAPI's default instance has no name"))
}

/// What the scheduler is told, and the model knows.
pub(crate) fn scheduler_config() -> SchedulerConfig {
    SchedulerConfig {
        token_block: TOKEN_BLOCK,
        ..SchedulerConfig::default()
    }
}

fn stores(durable: &Durable, weather: &Weather) -> (Arc<dyn BlobStore>, Arc<dyn BlobStore>) {
    let bucket = |shelf: &Shelf| {
        Arc::new(WeatheredBucket {
            shelf: shelf.clone(),
            weather: weather.clone(),
        })
    };
    let verified = Arc::new(VerifyingBlobStore::new(bucket(&durable.blobs)));
    let known = Arc::new(ExistenceIndex::new(verified, INDEX_CAPACITY, INDEX_EXPIRY));
    let (capacity, largest) = MEMORY_TIER_BYTES;
    let near = Arc::new(MemoryTier::new(known, capacity, largest));
    (
        Arc::new(EmptyBlobStore::new(near)),
        bucket(&durable.results),
    )
}

async fn start_services(durable: Durable, weather: Weather) -> Result<Services, String> {
    let ledger: Arc<dyn Ledger> = Arc::new(WeatheredLedger {
        below: Arc::clone(&durable.ledger),
        weather: weather.clone(),
    });
    let config = DispatchConfig {
        scheduler: scheduler_config(),
        claim_key: ClaimKey::new(CLAIM_SECRET),
        ..DispatchConfig::default()
    };
    let dispatcher = Dispatcher::start(config, Arc::clone(&ledger)).await;
    let dispatcher = dispatcher.map_err(|error| error.to_string())?;
    let (blobs, results) = stores(&durable, &weather);
    let defaults = PlanDefaults {
        image: None,
        resources: Resources::default(),
        timeout: Duration::from_secs(60),
        maximum_timeout: Duration::from_secs(4 * 3600),
        tenant_properties: BTreeMap::new(),
    };
    let results = Arc::new(ActionCache::new(
        results,
        Arc::clone(&blobs),
        defaults.clone(),
    ));
    let services = RunServices {
        dispatcher: Arc::clone(&dispatcher),
        results: Arc::clone(&results),
        blobs: Arc::clone(&blobs),
        for_verdicts: Arc::clone(&blobs).into(),
        trees: Arc::new(InputTrees::new(Arc::clone(&blobs))),
        ledger,
        defaults,
        audit_share: AuditShare::default(),
    };
    let registry = RunRegistry::start(services).await;
    let registry = registry.map_err(|error| error.to_string())?;
    Ok(Services {
        dispatcher,
        registry,
        results,
        blobs,
    })
}

type Reports = UnboundedReceiverStream<Result<v1::AgentReport, tonic::Status>>;

/// Serves a connection as the fleet's service does.
async fn serve_stream(services: Services, said: SaidQueue, link: Link, reports: Reports) {
    let (states, mut spoken) = mpsc::channel(1);
    let speaker = said.clone();
    let speaking = async move {
        while let Some(Ok(state)) = spoken.recv().await {
            speaker.say(Said::State(link, Box::new(state)));
        }
    };
    let serving = serve_connection(&services.dispatcher, reports, states);
    let (ended, ()) = tokio::join!(serving, speaking);
    if let Err(status) = ended {
        said.say(Said::HungUp(link, status.message().to_owned()));
    }
}

/// Serves a connection whose messages lose their order: the dispatcher has to cope by itself.
async fn serve_datagrams(services: Services, said: SaidQueue, link: Link, reports: Reports) {
    let reports = reports.filter_map(async |report| {
        let report = report.ok()?;
        ValidReport::try_from(report).ok()
    });
    let mut reports = std::pin::pin!(reports);
    let Some(first) = reports.next().await else {
        return;
    };
    let connection = services
        .dispatcher
        .connect(&first.agent, &first.incarnation);
    if let Err(reason) = connection.report(first) {
        return said.say(Said::HungUp(link, reason.to_string()));
    }
    let (reporter, mut listener) = connection.split();
    let speaker = said.clone();
    let speaking = async move {
        loop {
            match listener.desired().await {
                Ok(state) => speaker.say(Said::State(link, Box::new(state))),
                Err(reason) => return speaker.say(Said::HungUp(link, reason.to_string())),
            }
        }
    };
    let listening = async move {
        while let Some(report) = reports.next().await {
            if reporter.report(report).is_err() {
                return;
            }
        }
    };
    tokio::select! {
        biased;
        () = speaking => {}
        () = listening => {}
    }
}
