//! A coordinator's life: start, serve, stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::TryFutureExt as _;
use regatta_ledger::{CoordinatorIdentity, Ledger, LedgerTenure};
use regatta_scheduler::SchedulerConfig;
use regatta_verdict::SigningKey;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;
use tonic::service::Routes;

use crate::action_cache::ActionCache;
use crate::action_plan::PlanDefaults;
use crate::assets::AssetStore;
use crate::cas::{InputTrees, UploadRegistry, UploadSettings};
use crate::config::CoordinatorConfig;
use crate::dispatch::{ClaimKey, DispatchConfig, Dispatcher};
use crate::execution::ExecutionParts;
use crate::forgetter::{Forgetter, forgetter};
use crate::grpc_server::serve_grpc;
use crate::holding::hold_without_room;
use crate::http::{self, HttpParts};
use crate::ledger::{self, OpenedLedger};
use crate::listeners::Listeners;
use crate::metrics_recorder::recorder;
use crate::opened_storage::OpenedStorage;
use crate::operations::{OperationSettings, Operations};
use crate::retention::{Evictor, Retention, RoomAwaitingBlobStore};
use crate::runs::{RunRegistry, RunServices};
use crate::serve_error::ServeError;
use crate::services::{self, ServiceParts};
use crate::standby;
use crate::start_error::StartError;
use crate::state_directory::StateDirectory;
use crate::storage::Storage;
use crate::upload_upkeep::UploadUpkeep;
use crate::verdict_key::{self, VerdictKeyError};

/// How often idle uploads are looked for, and metrics are condensed.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);
/// How long an operation that ended can be asked for.
const COMPLETED_RETENTION: Duration = Duration::from_secs(10 * 60);
/// How much memory operations that ended may take, in bytes.
const COMPLETED_BYTES: usize = 8 << 20;
/// How long calls under way may go on once the coordinator is told to stop. Streams last for ever.
const SHUTDOWN_GRACE: Duration = Duration::from_millis(500);
/// How long it may take after that to tell all callers to come back.
const FAREWELL: Duration = Duration::from_secs(1);
/// For how long a coordinator that shares its ledger goes on without it.
const LOST_LEDGER_PATIENCE: Duration = Duration::from_secs(10);
/// The file in the state directory with the key that signs verdicts.
const VERDICT_KEY: &str = "verdict-key.pem";

/// A coordinator that has bound its addresses and opened its stores, ready to serve.
#[derive(Debug)]
pub struct Coordinator {
    listeners: Listeners,
    state: StateDirectory,
    /// Whether the ledger is still its own, and for how long it goes on if it is not.
    tenure: Option<watch::Receiver<LedgerTenure>>,
    lost_ledger_patience: Option<Duration>,
    routes: Routes,
    http_parts: HttpParts,
    serving: watch::Sender<bool>,
    /// Ends calls, and tells their callers to come back.
    ending: CancellationToken,
    uploads: Arc<UploadRegistry>,
    evictor: Evictor,
    forgetter: Forgetter,
    upload_upkeep: UploadUpkeep,
    /// Ends what goes on in the background when the coordinator goes.
    stopping: DropGuard,
}

/// What the key of claims is derived for.
const CLAIMS: &str = "regatta claims of leases";

/// What a coordinator has before it has its ledger.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) config: CoordinatorConfig,
    pub(crate) listeners: Listeners,
    pub(crate) state: StateDirectory,
    verdict_key: SigningKey,
}

impl Prepared {
    /// Binds the addresses and takes the state directory.
    pub(crate) async fn new(config: CoordinatorConfig) -> Result<Self, StartError> {
        let checked = plan_defaults(&config).check_tenant_properties();
        checked.map_err(|(tenant, source)| StartError::TenantProperties { tenant, source })?;
        let listeners = Listeners::bind(&config).await?;
        // Before anything asks for a counter: those that exist earlier count nowhere.
        recorder();
        let state = StateDirectory::take(&config.state_directory)?;
        let verdict_key = verdict_key(&config, &state)?;
        Ok(Self {
            config,
            listeners,
            state,
            verdict_key,
        })
    }

    /// As others know it.
    pub(crate) fn identity(&self) -> CoordinatorIdentity {
        CoordinatorIdentity {
            url: format!("http://{}", self.listeners.grpc.address),
            verdict_key: self.verdict_key.public().id(),
            storage: self.config.storage_name(self.state.path()),
        }
    }
}

impl Coordinator {
    /// Binds the addresses and opens everything. Nothing is answered before
    /// [`Coordinator::serve_until`], but connections made from now on will be.
    ///
    /// # Errors
    /// [`StartError`] says what to do; nothing is left behind.
    pub async fn start(config: CoordinatorConfig) -> Result<Self, StartError> {
        let prepared = Prepared::new(config).await?;
        let ledger = prepared.config.ledger.as_ref();
        let (identity, inheritance) = (prepared.identity(), prepared.config.inheritance);
        standby::check_heir(&prepared.config).await?;
        let heir = (&identity, inheritance);
        let ledger = ledger::open(ledger, prepared.state.path(), heir).await?;
        Self::with_ledger(prepared, ledger).await
    }

    /// Opens everything else.
    pub(crate) async fn with_ledger(
        prepared: Prepared,
        ledger: OpenedLedger,
    ) -> Result<Self, StartError> {
        let Prepared {
            config,
            listeners,
            state,
            verdict_key,
        } = prepared;
        let opened = OpenedStorage::open(&config, &state, &ledger)?;
        let OpenedLedger { ledger, tenure, .. } = ledger;
        let storage = opened.storage;
        let forgetter = forgetter(&config, Arc::clone(&ledger));
        let dispatch = dispatch_config(&config, &verdict_key);
        let dispatcher = Dispatcher::start(dispatch, Arc::clone(&ledger)).await?;
        let uploads = Arc::new(UploadRegistry::new(UploadSettings::usual(
            state.subdirectory("uploads")?,
        )));
        let serving = watch::Sender::new(true);
        let ending = CancellationToken::new();
        let stopping = CancellationToken::new();
        let execution = Arc::new(execution_parts(
            &config,
            &storage,
            opened.retention,
            Arc::clone(&dispatcher),
            stopping.clone(),
        ));
        let services = run_services(&execution, &storage, Arc::clone(&ledger), &config);
        let runs = RunRegistry::start(services).await?;
        let http_parts = HttpParts {
            serving: serving.subscribe(),
            room: Arc::clone(&execution.room),
            blobs: Arc::clone(storage.blobs.shared()),
            dispatcher,
            runs: Arc::clone(&runs),
            operations: Arc::clone(&execution.operations),
            state_directory: state.path().to_owned(),
        };
        let assets = asset_store(&storage, &execution);
        let routes = services::routes(ServiceParts {
            execution,
            blobs: storage.blobs,
            chunked: storage.chunked,
            uploads: Arc::clone(&uploads),
            assets,
            ledger,
            runs,
            verdict_key: Arc::new(verdict_key),
            serving: serving.subscribe(),
            ending: ending.clone(),
            clients_may_write: Arc::new(config.clients_may_write),
            keep_runs: config.keep_runs,
        });
        let address = listeners.grpc.address;
        tracing::info!(%address, storage = opened.url, "the coordinator has started");
        let stopping = stopping.drop_guard();
        Ok(Self {
            listeners,
            evictor: opened.evictor,
            forgetter,
            upload_upkeep: storage.uploads,
            state,
            tenure,
            lost_ledger_patience: config.standby.then_some(LOST_LEDGER_PATIENCE),
            routes,
            http_parts,
            serving,
            ending,
            uploads,
            stopping,
        })
    }

    /// Where gRPC is served.
    #[must_use]
    pub const fn grpc_address(&self) -> SocketAddr {
        self.listeners.grpc.address
    }

    /// Where metrics and health are served, if anywhere.
    #[must_use]
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.listeners.http.as_ref().map(|bound| bound.address)
    }

    /// Serves until `shutdown` is cancelled, then ends every connection. Work that agents do goes on
    /// without the coordinator; clients and agents come back when there is one again.
    ///
    /// # Errors
    /// The server failed by itself, which it does not do on any peer's account, or the ledger is another
    /// coordinator's.
    pub async fn serve_until(self, shutdown: CancellationToken) -> Result<(), ServeError> {
        let close = CancellationToken::new();
        // However this ends, no connection outlives it.
        let _close = close.clone().drop_guard();
        let _upkeep = AbortOnDropHandle::new(tokio::spawn(keep_up(self.uploads)));
        let forgetting = self.forgetter.run(close.clone());
        let _forgetting = AbortOnDropHandle::new(tokio::spawn(forgetting));
        let (room, dispatcher) = (&self.http_parts.room, &self.http_parts.dispatcher);
        let holding = hold_without_room(Arc::clone(room), Arc::clone(dispatcher));
        let _holding = AbortOnDropHandle::new(tokio::spawn(holding));
        let _aborting = AbortOnDropHandle::new(tokio::spawn(self.upload_upkeep.run()));
        let evicting = close.clone();
        let evicting = AbortOnDropHandle::new(tokio::spawn(self.evictor.run(evicting)));
        let all_left = CancellationToken::new();
        let grpc = async {
            // Dropped when nobody is connected any more.
            let _all_left = all_left.clone().drop_guard();
            let listener = self.listeners.grpc.listener;
            let served = serve_grpc(listener, self.routes, shutdown.clone(), close.clone());
            served.await.map_err(ServeError::Grpc)
        };
        let unstored = {
            let HttpParts {
                runs, dispatcher, ..
            } = &self.http_parts;
            let (runs, dispatcher) = (Arc::clone(runs), Arc::clone(dispatcher));
            async move {
                tokio::select! {
                    why = runs.unstored() => why,
                    why = dispatcher.unstored() => why,
                }
            }
        };
        let http = self.listeners.http;
        let http = http::serve(http, http::routes(self.http_parts), close.clone());
        let lost = ledger::until_lost(self.tenure, self.lost_ledger_patience);
        let stop = async {
            tokio::select! {
                () = shutdown.cancelled() => {}
                why = lost => return Err(ServeError::Ledger(why)),
                why = unstored => return Err(ServeError::Unstored(why)),
            }
            self.serving.send_replace(false);
            tokio::time::sleep(SHUTDOWN_GRACE).await;
            self.ending.cancel();
            // Whoever does not hang up then is hung up on.
            drop(tokio::time::timeout(FAREWELL, all_left.cancelled()).await);
            close.cancel();
            Ok(())
        };
        // Only once no agent is connected: none shall be told to stop its work because we do.
        let _stopping = self.stopping;
        let served = tokio::try_join!(grpc, http.map_err(ServeError::Http), stop);
        close.cancel();
        if let Err(error) = evicting.await {
            tracing::error!(%error, "the log of uses was not ended");
        }
        tracing::info!(state = %self.state.path().display(), "the coordinator has stopped");
        served.map(|_| ())
    }
}

fn dispatch_config(config: &CoordinatorConfig, key: &SigningKey) -> DispatchConfig {
    DispatchConfig {
        scheduler: SchedulerConfig {
            heartbeat_interval: config.heartbeat_interval,
            queue_limit_units: config.queue_limit_units,
            tenant_weights: config.tenant_weights.clone(),
            unsatisfiable_grace: config.unsatisfiable_grace,
            no_agent_grace: config.no_agent_grace,
            ..SchedulerConfig::default()
        },
        claim_key: ClaimKey::new(key.derive(CLAIMS)),
        ..DispatchConfig::default()
    }
}

fn verdict_key(
    config: &CoordinatorConfig,
    state: &StateDirectory,
) -> Result<SigningKey, VerdictKeyError> {
    match &config.verdict_key {
        Some(path) => verdict_key::read(path),
        None => verdict_key::read_or_make(&state.path().join(VERDICT_KEY)),
    }
}

fn plan_defaults(config: &CoordinatorConfig) -> PlanDefaults {
    PlanDefaults {
        image: config.default_image.clone(),
        resources: config.default_resources,
        timeout: config.default_timeout.min(config.maximum_timeout),
        maximum_timeout: config.maximum_timeout,
        tenant_properties: config.tenant_properties.clone(),
    }
}

fn execution_parts(
    config: &CoordinatorConfig,
    storage: &Storage,
    room: Arc<Retention>,
    dispatcher: Arc<Dispatcher>,
    stopping: CancellationToken,
) -> ExecutionParts {
    let blobs = Arc::clone(storage.blobs.shared());
    let inputs = InputTrees::new(Arc::clone(&blobs));
    ExecutionParts {
        cache: Arc::new(ActionCache::new(
            storage.results.clone(),
            storage.blobs.clone(),
            plan_defaults(config),
        )),
        publications: Arc::default(),
        inputs: Arc::new(inputs.renewing_every(config.cache.renewal_interval())),
        blobs,
        room,
        dispatcher,
        operations: operations(config),
        defaults: plan_defaults(config),
        stopping,
    }
}

fn asset_store(storage: &Storage, execution: &ExecutionParts) -> Arc<AssetStore> {
    Arc::new(AssetStore::new(
        storage.assets.clone(),
        storage.blobs.clone(),
        Arc::clone(&execution.inputs),
    ))
}

fn run_services(
    execution: &ExecutionParts,
    storage: &Storage,
    ledger: Arc<dyn Ledger>,
    config: &CoordinatorConfig,
) -> RunServices {
    RunServices {
        dispatcher: Arc::clone(&execution.dispatcher),
        results: Arc::clone(&execution.cache),
        blobs: Arc::new(RoomAwaitingBlobStore::new(
            Arc::clone(&execution.blobs),
            Arc::clone(&execution.room),
        )),
        for_verdicts: storage.for_verdicts.clone(),
        durability: storage.durability.clone(),
        trees: Arc::clone(&execution.inputs),
        ledger,
        defaults: execution.defaults.clone(),
        audit_share: config.audit_share,
    }
}

fn operations(config: &CoordinatorConfig) -> Arc<Operations> {
    Operations::new(OperationSettings {
        unwatched_grace: config.unwatched_grace,
        completed_retention: COMPLETED_RETENTION,
        completed_bytes: COMPLETED_BYTES,
    })
}

async fn keep_up(uploads: Arc<UploadRegistry>) {
    let mut ticks = tokio::time::interval(UPKEEP_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        uploads.expire_idle(Instant::now().into_std());
        if let Some(recorder) = recorder() {
            recorder.run_upkeep();
        }
    }
}
