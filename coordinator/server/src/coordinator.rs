//! A coordinator's life: start, serve, stop.

mod parts;
mod prepared;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::TryFutureExt as _;
use regatta_ledger::LedgerTenure;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;
use tonic::service::Routes;

use self::parts::{asset_store, dispatch_config, execution_parts, run_services};
pub(crate) use self::prepared::Prepared;
use crate::cas::{UploadRegistry, UploadSettings};
use crate::config::CoordinatorConfig;
use crate::dispatch::Dispatcher;
use crate::forgetter::{Forgetter, forgetter};
use crate::grpc_server::serve_grpc;
use crate::holding::hold_without_room;
use crate::http::{self, HttpParts};
use crate::ledger::{self, OpenedLedger};
use crate::listeners::Listeners;
use crate::metrics_recorder::recorder;
use crate::opened_storage::OpenedStorage;
use crate::retention::Evictor;
use crate::runs::RunRegistry;
use crate::serve_error::ServeError;
use crate::services::{self, ServiceParts};
use crate::standby;
use crate::start_error::StartError;
use crate::state_directory::StateDirectory;
use crate::storage_probe::StorageProbe;
use crate::sure_answers::SureAnswers;
use crate::upload_upkeep::UploadUpkeep;

/// How often idle uploads are looked for, and metrics are condensed.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);
/// How long calls under way may go on once the coordinator is told to stop. Streams last for ever.
const SHUTDOWN_GRACE: Duration = Duration::from_millis(500);
/// How long it may take after that to tell all callers to come back.
const FAREWELL: Duration = Duration::from_secs(1);

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

impl Coordinator {
    /// Binds the addresses and opens everything. Nothing is answered before
    /// [`Coordinator::serve_until`], but connections made from now on will be.
    ///
    /// # Errors
    /// [`StartError`] says what to do; nothing is left behind.
    pub async fn start(config: CoordinatorConfig) -> Result<Self, StartError> {
        let prepared = Prepared::new(config).await?;
        standby::check_heir(&prepared).await?;
        let ledger = prepared.config.ledger.as_ref();
        let (identity, inheritance) = (prepared.identity(), prepared.config.inheritance);
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
        let (ending, stopping) = (CancellationToken::new(), CancellationToken::new());
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
            storage: StorageProbe::new(Arc::clone(&storage.objects)),
            tenure: tenure.clone(),
            dispatcher,
            runs: Arc::clone(&runs),
            operations: Arc::clone(&execution.operations),
            state_directory: state.path().to_owned(),
        };
        let routes = services::routes(ServiceParts {
            assets: asset_store(&storage, &execution),
            execution,
            blobs: storage.blobs,
            chunked: storage.chunked,
            uploads: Arc::clone(&uploads),
            ledger,
            runs,
            verdict_key: Arc::new(verdict_key),
            answers: SureAnswers::of(tenure.clone(), &config),
            serving: serving.subscribe(),
            ending: ending.clone(),
            clients_may_write: Arc::new(config.clients_may_write),
            keep_runs: config.keep_runs,
        });
        let (address, storage_url) = (listeners.grpc.address, opened.url);
        tracing::info!(%address, storage = storage_url, "the coordinator has started");
        Ok(Self {
            listeners,
            evictor: opened.evictor,
            forgetter,
            upload_upkeep: storage.uploads,
            state,
            tenure,
            lost_ledger_patience: config.standby.then_some(ledger::LOST_LEDGER_PATIENCE),
            routes,
            http_parts,
            serving,
            ending,
            uploads,
            stopping: stopping.drop_guard(),
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use regatta_ledger::{CoordinatorIdentity, Inheritance, Ledger as _, NewRun, SqliteLedger};
    use regatta_model::Timestamp;
    use tokio::time::timeout;

    use super::*;
    use crate::ledger::LEDGER_PATIENCE;
    use crate::runs::tests::FullLedger;
    use crate::runs::tests::fixture::{libtest, spec};

    fn config(state: &Path) -> CoordinatorConfig {
        let mut config = CoordinatorConfig::new(state);
        config.listen = "127.0.0.1:0".parse().expect("is an address");
        config.http_listen = None;
        config
    }

    #[tokio::test]
    async fn one_whose_ledger_takes_nothing_for_ten_minutes_ends_with_an_error() {
        let state = tempfile::tempdir().expect("a directory");
        let ledger = Arc::new(FullLedger::default());
        ledger.make_room();
        let prepared = Prepared::new(config(state.path())).await.expect("is free");
        let opened = OpenedLedger {
            ledger: Arc::clone(&ledger) as _,
            tenure: None,
            term: None,
        };
        let coordinator = Coordinator::with_ledger(prepared, opened).await;
        let coordinator = coordinator.expect("starts");
        let runs = Arc::clone(&coordinator.http_parts.runs);
        let submitted = runs.submit(None, spec(vec![libtest("unit")])).await;
        let (run, _) = submitted.expect("is accepted");
        tokio::time::pause();
        let begun = Instant::now();
        ledger.fill();
        let serving = coordinator.serve_until(CancellationToken::new());
        let cancelling = async {
            // It is written down in vain.
            let cancelled = runs.cancel(run.as_str()).await;
            assert!(cancelled.is_err(), "{cancelled:?}");
        };
        let (served, ()) = tokio::join!(timeout(2 * LEDGER_PATIENCE, serving), cancelling);
        let error = served.expect("it is not waited for ever");
        let error = error.expect_err("nobody has told it to stop");
        assert!(matches!(error, ServeError::Unstored(_)), "{error}");
        assert!(begun.elapsed() >= LEDGER_PATIENCE, "{:?}", begun.elapsed());
        assert_eq!(runs.active(), 1, "the run waits yet");
    }

    /// A ledger with a run, of a coordinator with such a storage or of a release that did not say.
    async fn ledger_with_a_run(state: &Path, storage: Option<&str>) {
        let path = state.join("ledger.sqlite");
        let whose = CoordinatorIdentity {
            url: String::new(),
            verdict_key: "k".to_owned(),
            storage: storage.unwrap_or_default().to_owned(),
        };
        let opened = match storage {
            Some(_) => SqliteLedger::open_for(&path, &whose, Inheritance::OfTheSame),
            None => SqliteLedger::open(&path),
        };
        let run = NewRun {
            run: "r".parse().expect("is an id"),
            tenant: "".parse().expect("is a name"),
            description: String::new(),
            commit: String::new(),
            branch: String::new(),
            submitted_at: Timestamp::EPOCH,
            committed_at: None,
        };
        let ledger = opened.expect("opens");
        ledger.start_run(run).await.expect("begins");
    }

    /// A start with a storage that cannot be had leaves the ledger with the owner that it had.
    async fn check_owner(owner: Option<&str>, inheritance: Inheritance) {
        let state = tempfile::tempdir().expect("a directory");
        ledger_with_a_run(state.path(), owner).await;
        let file = state.path().join("a-file");
        std::fs::write(&file, "").expect("is written");
        let mut config = config(state.path());
        config.storage = Some(format!("file://{}/storage", file.display()));
        config.inheritance = inheritance;
        let started = Coordinator::start(config).await;
        let error = started.expect_err("there is no such storage");
        assert!(matches!(error, StartError::Storage(_)), "{error}");
        let last = ledger::last_storage(None, state.path()).await;
        assert_eq!(last.expect("can be read").as_deref(), owner);
    }

    #[tokio::test]
    async fn a_ledger_gets_no_storage_that_is_not_there() {
        check_owner(None, Inheritance::OfTheSame).await;
        check_owner(Some("file:///s"), Inheritance::OfAnyone).await;
    }
}
