//! The runs there are: those under way in memory, all of them in the ledger.

mod claims;
mod error;
mod kept;
mod left_open;
mod resumption;
mod submission;

use std::collections::HashMap;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures::{Stream, StreamExt as _, stream};
use regatta_cas::{BlobStore, StoreError};
use regatta_ledger::{Ledger, LedgerError, RunQuery, RunRecord};
use regatta_model::{Digest, PlantedBug, RunId, TenantId};
use regatta_wire::v1;
use regatta_wire::v1::run_event::Event;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;
use uuid::Uuid;

use self::claims::Claims;
pub use self::error::{FindRunError, StartRunsError, SubmitRunError};
use self::kept::{find, read_kept};
use self::left_open::LeftOpen;
pub(super) use self::resumption::MAX_ABANDONED_RUNS;
#[cfg(test)]
pub(super) use self::resumption::MAX_RESUMPTIONS;
use self::resumption::resume_all;
use super::context::RunContext;
use super::driver::drive;
use super::log::{RunLog, now, read_spec};
use super::plan::Plan;
use super::recorded::Recorded;
use super::run_services::RunServices;

/// How many runs may be under way at once.
const MAX_ACTIVE_RUNS: usize = 1000;
/// How many may be planned at once, which has the fleet list their tests.
pub(super) const MAX_PLANS: usize = 16;
/// How long a call waits for its run to be taken up after a restart; then it is to come back later.
const RESUMPTION_PATIENCE: Duration = Duration::from_secs(10);
/// How many runs a list holds if its caller does not say, and at most.
const DEFAULT_LIST: usize = 50;
pub(crate) const MAX_LIST: usize = 1000;

/// All runs.
#[derive(Debug)]
pub struct RunRegistry {
    services: RunServices,
    active: Mutex<HashMap<RunId, Active>>,
    /// Those of an earlier process that are neither under way nor ended yet.
    left_open: LeftOpen,
    /// Takes them up.
    resuming: OnceLock<AbortOnDropHandle<()>>,
    /// The ids of those whose submission has not come to its end.
    claims: Arc<Claims>,
    /// Has a permit for each run that was not accepted and may be tried to be ended at once.
    abandoned: Arc<Semaphore>,
    /// Why the events of a run could not be stored for longer than runs wait for that.
    unstored: watch::Sender<Option<LedgerError>>,
    /// Has a permit for each run that may be planned at once.
    pub(super) plans: Semaphore,
}

#[derive(Clone, Debug)]
struct Active {
    log: Arc<RunLog>,
    cancel: CancellationToken,
}

impl RunRegistry {
    /// Knows the runs of an earlier process, and takes them up in the background: those that had not ended go on, or
    /// get an end that says why they cannot. Calls about a run wait until it is taken up.
    ///
    /// # Errors
    /// The ledger failed.
    pub async fn start(services: RunServices) -> Result<Arc<Self>, StartRunsError> {
        let query = RunQuery {
            active_only: true,
            limit: usize::MAX,
            ..RunQuery::default()
        };
        let mut left_open = services.ledger.find_runs(query).await?;
        // Those that came first go on first.
        left_open.reverse();
        if PlantedBug::RunsForgotten.is_planted() {
            left_open.clear();
        }
        let registry = Arc::new(Self {
            services,
            active: Mutex::default(),
            left_open: LeftOpen::new(left_open.iter().map(|record| record.new.run.clone())),
            resuming: OnceLock::new(),
            claims: Arc::default(),
            abandoned: Arc::new(Semaphore::new(MAX_ABANDONED_RUNS)),
            unstored: watch::Sender::default(),
            plans: Semaphore::new(MAX_PLANS),
        });
        let resuming = tokio::spawn(resume_all(Arc::downgrade(&registry), left_open));
        let resuming = AbortOnDropHandle::new(resuming);
        registry.resuming.get_or_init(|| resuming);
        Ok(registry)
    }

    /// How many runs of an earlier process have not been taken up yet.
    pub(crate) fn left_open(&self) -> usize {
        self.left_open.len()
    }

    /// A run, if it is under way, once it is taken up.
    async fn under_way(&self, run: &RunId) -> Result<Option<Active>, FindRunError> {
        let taken_up = timeout(RESUMPTION_PATIENCE, self.left_open.wait_for(run)).await;
        taken_up.map_err(|_| FindRunError::NotResumed { run: run.clone() })?;
        Ok(self.lock().get(run).cloned())
    }

    /// Takes a run into those under way; false if there are as many as may be, of which so many are kept for others.
    fn admit(&self, run: &RunId, entry: Active, kept: usize) -> bool {
        let mut active = self.lock();
        let has_room = active.len() + kept < MAX_ACTIVE_RUNS;
        if has_room {
            active.insert(run.clone(), entry);
        }
        has_room
    }

    fn spawn(
        self: &Arc<Self>,
        run: RunId,
        plan: Plan,
        recorded: Recorded,
        log: Arc<RunLog>,
        cancel: CancellationToken,
    ) {
        let services = self.services.clone();
        let context = RunContext::new(run.clone(), plan, recorded, services, Arc::clone(&log));
        let span = tracing::info_span!("run", %run);
        tokio::spawn(drive(context, cancel).instrument(span));
        let registry = Arc::clone(self);
        tokio::spawn(async move {
            let unstored = async {
                let error = log.failed().await;
                registry.unstored.send_replace(Some(error));
                pending::<()>().await;
            };
            tokio::select! {
                () = log.store() => {}
                () = unstored => {}
            }
            registry.lock().remove(&run);
        });
    }

    /// A run that is looked at and never carried out; its events go to `forgotten`.
    ///
    /// # Errors
    /// [`SubmitRunError`]: it would not be accepted.
    pub(super) async fn context_of(
        &self,
        spec: v1::RunSpec,
        forgotten: Arc<dyn Ledger>,
    ) -> Result<Arc<RunContext>, SubmitRunError> {
        let plan = Plan::new(spec, &self.services.defaults)?;
        plan.check_dates(now())?;
        self.check_inputs(&plan).await?;
        let run = new_id()?;
        let log = RunLog::new(run.clone(), forgotten);
        let (recorded, services) = (Recorded::default(), self.services.clone());
        Ok(RunContext::new(run, plan, recorded, services, log))
    }

    async fn check_inputs(&self, plan: &Plan) -> Result<(), SubmitRunError> {
        let mut roots: Vec<Digest> = plan.jobs.iter().map(|job| job.input_root).collect();
        roots.sort_unstable();
        roots.dedup();
        let mut missing = Vec::new();
        for root in roots {
            missing.extend(self.services.trees.missing(root).await?);
        }
        missing.sort_unstable();
        missing.dedup();
        if missing.is_empty() {
            Ok(())
        } else {
            Err(SubmitRunError::MissingBlobs { missing })
        }
    }

    /// Cancels a run, and sees to it that it stays cancelled after a restart; one that has ended stays as it
    /// is.
    ///
    /// # Errors
    /// There is no such run, or the ledger failed: then the run is stopped, and goes on after a restart unless its
    /// end is stored before.
    pub async fn cancel(&self, run: &str) -> Result<(), FindRunError> {
        let id = parse(run)?;
        match self.under_way(&id).await? {
            Some(active) => {
                // Told ahead of what comes of it.
                let asked = Event::CancelRequested(v1::CancelRequested {});
                let stored = active.log.append_durably(asked);
                // Its jobs let go of their tasks, which cancels those.
                active.cancel.cancel();
                stored.await
            }
            None => self.find(&id).await.map(drop),
        }
    }

    /// The events of a run after `after`, until it has ended.
    ///
    /// # Errors
    /// There is no such run, or the ledger failed; the latter may end the stream, too. It does while what follows
    /// cannot be made durable ([`FindRunError::NotDurable`]).
    pub async fn watch(
        self: &Arc<Self>,
        run: &str,
        after: u64,
    ) -> Result<impl Stream<Item = Result<v1::RunEvent, FindRunError>> + Send + use<>, FindRunError>
    {
        let id = parse(run)?;
        let log = self.under_way(&id).await?.map(|active| active.log);
        if log.is_none() {
            self.find(&id).await?;
        }
        let ledger = Arc::clone(&self.services.ledger);
        let batches = stream::try_unfold(after, move |after| {
            let (log, ledger, id) = (log.clone(), Arc::clone(&ledger), id.clone());
            async move {
                let events = match log {
                    Some(log) => log.read(after).await?,
                    None => read_kept(ledger.as_ref(), &id, after).await?,
                };
                let next = events.last().map(|event| event.sequence);
                Ok::<_, FindRunError>(next.map(|next| (events, next)))
            }
        });
        Ok(batches.flat_map(|batch| match batch {
            Ok(events) => stream::iter(events.into_iter().map(Ok)).left_stream(),
            Err(error) => stream::iter([Err(error)]).right_stream(),
        }))
    }

    /// The events of a run that there are by now, from the first after `after`; none if there are no
    /// more yet.
    ///
    /// # Errors
    /// There is no such run, or the ledger failed.
    pub async fn events_so_far(
        &self,
        run: &str,
        after: u64,
    ) -> Result<Vec<v1::RunEvent>, FindRunError> {
        let id = parse(run)?;
        let log = self.under_way(&id).await?.map(|active| active.log);
        match log {
            Some(log) if log.has_after(after) => Ok(log.read(after).await?),
            Some(_) => Ok(Vec::new()),
            None => read_kept(self.ledger(), &id, after).await,
        }
    }

    /// Runs, newest first. `tenant` limits them to one tenant's.
    ///
    /// # Errors
    /// The ledger failed.
    pub async fn list(
        &self,
        tenant: TenantId,
        limit: usize,
        active_only: bool,
    ) -> Result<Vec<RunRecord>, LedgerError> {
        let limit = if limit == 0 {
            DEFAULT_LIST
        } else {
            limit.min(MAX_LIST)
        };
        let query = RunQuery {
            tenant: Some(tenant),
            active_only,
            limit,
            ..RunQuery::default()
        };
        self.services.ledger.find_runs(query).await
    }

    /// Why the events of a run cannot be stored just now, if there is such a run.
    pub(crate) fn trouble(&self) -> Option<LedgerError> {
        self.lock().values().find_map(|active| active.log.trouble())
    }

    /// Waits until the events of a run could not be stored for longer than runs wait for that, and tells why.
    pub(crate) async fn unstored(&self) -> LedgerError {
        let mut unstored = self.unstored.subscribe();
        // The sender lives in `self`, so this cannot fail.
        let why = unstored.wait_for(Option::is_some).await;
        why.ok()
            .and_then(|why| why.clone())
            .unwrap_or(LedgerError::Closed)
    }

    /// How many runs are under way.
    pub(crate) fn active(&self) -> usize {
        self.lock().len()
    }

    /// Why nothing new is begun, if so.
    pub(super) fn held(&self) -> Option<String> {
        self.services.dispatcher.held()
    }

    pub(super) fn blobs(&self) -> Arc<dyn BlobStore> {
        Arc::clone(&self.services.blobs)
    }

    pub(super) fn ledger(&self) -> &dyn Ledger {
        self.services.ledger.as_ref()
    }

    /// The blobs, which stay for as long as a tenant's verdicts once they were asked for.
    pub(super) fn for_verdicts(&self, tenant: &TenantId) -> Arc<dyn BlobStore> {
        self.services.for_verdicts.of(tenant)
    }

    /// Returns once no loss of power can take what was stored before.
    pub(super) async fn settle(&self) -> Result<(), StoreError> {
        match &self.services.durability {
            Some(durability) => durability.settle().await,
            None => Ok(()),
        }
    }

    /// What is known of a run besides its events.
    pub(super) async fn record(&self, run: &str) -> Result<RunRecord, FindRunError> {
        self.find(&parse(run)?).await
    }

    /// What a run was asked to do, which its first event says; none if that is not stored.
    pub(super) async fn spec_of(&self, run: &RunId) -> Result<Option<v1::RunSpec>, FindRunError> {
        Ok(read_spec(self.services.ledger.as_ref(), run).await?)
    }

    /// The runs that a query asks for.
    pub(super) async fn find_all(&self, query: RunQuery) -> Result<Vec<RunRecord>, FindRunError> {
        Ok(self.services.ledger.find_runs(query).await?)
    }

    async fn find(&self, run: &RunId) -> Result<RunRecord, FindRunError> {
        find(self.ledger(), run).await
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RunId, Active>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn new_id() -> Result<RunId, LedgerError> {
    let text = Uuid::new_v4().simple().to_string();
    text.parse().map_err(|_| LedgerError::Closed)
}

fn parse(run: &str) -> Result<RunId, FindRunError> {
    run.parse().map_err(|_| FindRunError::Unknown {
        run: run.to_owned(),
    })
}
