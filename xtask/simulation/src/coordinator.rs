//! The coordinator: the real services on a clock of their own, on storage in any weather.

mod large;
mod serving;
mod storage;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use regatta_cas::{BlobStore, WrongReads};
use regatta_ledger::{Ledger, LedgerTenure};
use regatta_model::{Digest, Resources, TenantId};
use regatta_scheduler::{SchedulerConfig, Snapshot};
use regatta_server::action_cache::ActionCache;
use regatta_server::action_plan::PlanDefaults;
use regatta_server::cas::TenantViews;
use regatta_server::dispatch::{ClaimKey, DispatchConfig, Dispatcher};
use regatta_server::runs::{AuditShare, RunRegistry, RunServices};
use regatta_server::storage_over_objects::BlobChunks;
use regatta_server::sure_answers::SureAnswers;
use regatta_wire::v1;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::job::InputTree;
use crate::large::{LargeBlob, LargeUse};
use crate::ledger::{Term, WeatheredLedger};
use crate::model::BY_VERDICT;
use crate::plan::{KEEP_VERDICTS, StoragePlan};
use crate::said::{Link, Promise, Said, SaidQueue};
use crate::stock::{Durable, Stock};
use crate::weather::Weather;
use serving::{serve_datagrams, serve_stream};
use storage::{open_storage, promise, upload_blob, upload_inputs};

/// What every coordinator seals claims with.
const CLAIM_SECRET: [u8; 32] = [7; 32];
/// How many tokens one reservation covers: few, so that there are many.
const TOKEN_BLOCK: u64 = 5;
/// A moment of a verdict is rounded down by so much at most.
const VERDICT_ROUNDING: Duration = Duration::from_secs(6);

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
    clock: Clock,
    said: SaidQueue,
    services: Arc<OnceLock<Services>>,
    transport: Transport,
    inboxes: Arc<Mutex<BTreeMap<Link, Inbox>>>,
}

type Inbox = mpsc::UnboundedSender<Result<v1::AgentReport, tonic::Status>>;

/// Tells the world's time to a coordinator.
#[derive(Clone, Copy, Debug)]
struct Clock {
    begun: Instant,
    begun_at: Duration,
}

impl Clock {
    fn now(self) -> Duration {
        self.begun_at + self.begun.elapsed()
    }
}

#[derive(Clone, Debug)]
struct Services {
    dispatcher: Arc<Dispatcher>,
    registry: Arc<RunRegistry>,
    results: Arc<ActionCache>,
    blobs: TenantViews<dyn BlobStore>,
    chunks: BlobChunks,
    answers: SureAnswers,
    for_verdicts: TenantViews<dyn BlobStore>,
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
        transport: Transport,
        storage: (usize, StoragePlan),
    ) -> std::io::Result<Self> {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build()?;
        let begun = runtime.block_on(async { Instant::now() });
        let said = SaidQueue::default();
        let weather = weather.over(said.clone(), begun, now);
        let services = Arc::new(OnceLock::new());
        let starting = start_services(durable.clone(), weather, storage);
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
            clock: Clock {
                begun,
                begun_at: now,
            },
            said,
            services,
            transport,
            inboxes: Arc::default(),
        })
    }

    /// Lets it go on until something is said, or until `deadline`; when that is.
    pub(crate) fn run_until(&self, deadline: Duration) -> Duration {
        let clock = self.clock;
        let until = clock.begun + deadline.saturating_sub(clock.begun_at);
        let said = self.said.clone();
        let now = self.runtime.block_on(async move {
            tokio::select! {
                biased;
                () = said.heard() => {}
                () = tokio::time::sleep_until(until) => {}
            }
            clock.now()
        });
        now.min(deadline)
    }

    /// What it has said and nobody has heard.
    pub(crate) fn said(&self) -> VecDeque<Said> {
        self.said.take()
    }

    /// It goes on after it stood still for so long: whatever was to happen meanwhile is late.
    pub(crate) fn wake(&self, after: Duration) {
        self.runtime.block_on(tokio::time::advance(after));
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

    /// Somebody uploads what is missing of a run's inputs, and submits it.
    pub(crate) fn submit(&self, run: usize, inputs: InputTree, spec: v1::RunSpec) {
        let (said, clock) = (self.said.clone(), self.clock);
        self.spawn(async move |services| {
            if let Err(error) = upload_inputs(&services, inputs, clock, &said).await {
                let answer = Err(format!("its inputs are not stored: {error}"));
                return said.say(Said::Submitted { run, answer });
            }
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
        let (said, clock) = (self.said.clone(), self.clock);
        self.spawn(async move |services| {
            let stored = upload_blob(&services, bytes, clock, &said).await.is_ok();
            said.say(Said::Uploaded { upload, stored });
        });
    }

    /// Somebody asks for an action result. What it names and is not in the bucket is told.
    pub(crate) fn look_up(&self, key: Digest, stock: Stock) {
        let (said, clock) = (self.said.clone(), self.clock);
        self.spawn(async move |services| {
            let (tenant, asked) = (tenant(), clock.now());
            let found = services.results.get(&tenant, &key).await;
            if let (Ok(Some(result)), Ok(())) = (found, services.sure().await) {
                let blobs: Vec<Digest> = crate::job::blobs_of(&result).collect();
                let absent = blobs.iter().filter(|digest| !stock.has(digest));
                let absent = absent.copied().collect();
                said.say(Said::Served { key, absent });
                said.say(promise(blobs, asked, "a served result"));
            }
        });
    }

    /// Somebody uploads what is missing, and does nothing with it.
    pub(crate) fn provide(&self, inputs: InputTree) {
        let (said, clock) = (self.said.clone(), self.clock);
        self.spawn(async move |services| {
            // Whoever fails to is told nothing.
            drop(upload_inputs(&services, inputs, clock, &said).await);
        });
    }

    /// Somebody does something with a large blob.
    pub(crate) fn have_large(&self, blob: LargeBlob, kind: LargeUse) {
        let (said, clock) = (self.said.clone(), self.clock);
        self.spawn(async move |services| large::have(services, (blob, kind), clock, said).await);
    }

    /// A verdict is given that names these artefacts, as far as they are there.
    pub(crate) fn give_verdict(&self, artefacts: Vec<Digest>) {
        let (said, clock) = (self.said.clone(), self.clock);
        self.spawn(async move |services| {
            let asked = clock.now();
            let for_verdicts = services.for_verdicts.of(&tenant());
            let Ok(missing) = for_verdicts.find_missing(&artefacts).await else {
                return;
            };
            let present = artefacts.into_iter().filter(|it| !missing.contains(it));
            let present = Said::Promised(Promise {
                blobs: present.collect(),
                asked,
                lasts: KEEP_VERDICTS - VERDICT_ROUNDING,
                by: BY_VERDICT,
            });
            drop(services.answer(&said, present).await);
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

async fn start_services(
    durable: Durable,
    weather: Weather,
    plan: (usize, StoragePlan),
) -> Result<Services, String> {
    let term = Term::begin(&durable.terms);
    let ledger: Arc<dyn Ledger> = Arc::new(WeatheredLedger {
        below: Arc::clone(&durable.ledger),
        term: term.clone(),
        weather: weather.clone(),
    });
    let config = DispatchConfig {
        scheduler: scheduler_config(),
        claim_key: ClaimKey::new(CLAIM_SECRET),
        ..DispatchConfig::default()
    };
    let dispatcher = Dispatcher::start(config, Arc::clone(&ledger)).await;
    let dispatcher = dispatcher.map_err(|error| error.to_string())?;
    let tenure = plan.1.is_shared.then(|| {
        let answered = Instant::now();
        let (tell, tenure) = watch::channel(LedgerTenure::Ours { answered });
        tokio::spawn(term.watch(weather.clone(), tell));
        tenure
    });
    let answers = SureAnswers::of_one_of_several(tenure.clone());
    let storage = open_storage(&durable, &weather, plan, tenure);
    let storage = storage.map_err(|error| error.to_string())?;
    let defaults = PlanDefaults {
        image: None,
        resources: Resources::default(),
        timeout: Duration::from_secs(60),
        maximum_timeout: Duration::from_secs(4 * 3600),
        tenant_properties: BTreeMap::new(),
    };
    let results = Arc::new(ActionCache::new(
        storage.results.clone(),
        storage.blobs.clone(),
        defaults.clone(),
    ));
    let services = RunServices {
        dispatcher: Arc::clone(&dispatcher),
        results: Arc::clone(&results),
        blobs: Arc::clone(storage.blobs.shared()),
        for_verdicts: storage.for_verdicts.clone(),
        durability: None,
        wrong_reads: WrongReads::default(),
        trees: Arc::clone(&storage.trees),
        ledger,
        defaults,
        audit_share: AuditShare::default(),
    };
    let registry = RunRegistry::start(services).await;
    let registry = registry.map_err(|error| error.to_string())?;
    let (blobs, for_verdicts) = (storage.blobs.clone(), storage.for_verdicts.clone());
    let chunks = storage.chunks.clone();
    tokio::spawn(storage.let_go_until(CancellationToken::new()));
    Ok(Services {
        dispatcher,
        registry,
        results,
        blobs,
        chunks,
        answers,
        for_verdicts,
    })
}
