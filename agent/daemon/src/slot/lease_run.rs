//! A lease in a slot: its inputs and its container, its executions one after the other, its outcomes in
//! the same order.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use regatta_agent_core::{ContainerPlan, Event, LeaseKey};
use regatta_cas::{BlobStore, StoreError};
use regatta_model::{SlotIndex, UnitIndex};
use regatta_runtime::RuntimeError;
use regatta_wire::v1;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::container_holder::ContainerHolder;
use super::execution::{Executed, ExecutionContext};
use super::request::Unserved;
use super::worker::Workshop;
use crate::input_tree::{PinnedTree, TreeError, TreeKey};
use crate::lease_spec::{Execution, LeaseSpec, WorkerSpec};
use crate::occurrence::Occurrence;
use crate::outcome::{Outcome, Refusal};
use crate::timestamps::{Moments, now};

/// How long an input tree may take to arrive.
const TREE_LIMIT: Duration = Duration::from_secs(900);
/// How many executions of a lease may await the storing of their results.
const UNPUBLISHED_EXECUTIONS: usize = 4;
/// How many executions without a result it takes for the rest of a lease to be given up.
const FAILURES_IN_A_ROW: usize = 2;

/// Results on their way, in the order of their executions.
type Unpublished = mpsc::Sender<Publishing>;

/// A result on its way into the store.
struct Publishing {
    unit: UnitIndex,
    outcome: JoinHandle<Outcome>,
}

/// A lease at work.
#[derive(Debug)]
pub(crate) struct LeaseRun<'a> {
    pub(crate) workshop: &'a Arc<Workshop>,
    pub(crate) slot: SlotIndex,
    pub(crate) key: LeaseKey,
    pub(crate) spec: &'a LeaseSpec,
    pub(crate) cancel: &'a CancellationToken,
}

/// What a lease needs before it can start.
struct Staged {
    /// `None` if a worker is there already.
    tree: Option<PinnedTree>,
    store: Arc<dyn BlobStore>,
    moments: Moments,
}

impl LeaseRun<'_> {
    /// Runs the lease until all its outcomes are reported or it is cancelled.
    pub(crate) async fn run(&self, holder: &mut ContainerHolder, plan: ContainerPlan) {
        let granted_at = Instant::now();
        tracing::info!(executions = self.spec.executions.len(), "the lease starts");
        self.stage_and_execute(holder, plan, granted_at).await;
        let seconds = granted_at.elapsed().as_secs_f64();
        tracing::info!(seconds, "the lease has ended");
    }

    async fn stage_and_execute(
        &self,
        holder: &mut ContainerHolder,
        plan: ContainerPlan,
        granted_at: Instant,
    ) {
        let staged = match self.stage(holder, plan).boxed().await {
            Some(Ok(staged)) => staged,
            Some(Err(refusal)) => {
                tracing::info!(?refusal, "the lease cannot start");
                return self.refuse(&self.spec.executions, &refusal).await;
            }
            None => return,
        };
        metrics::histogram!("regatta_agent_lease_to_exec_seconds").record(granted_at.elapsed());
        self.workshop
            .tell(Event::LeaseStarted(self.slot, self.key))
            .await;
        let (unpublished, mut published) = mpsc::channel(UNPUBLISHED_EXECUTIONS);
        let report = async {
            let mut all_count = true;
            while let Some(publishing) = published.recv().await {
                all_count &= self.report(publishing).await;
            }
            all_count
        };
        let ((), all_count) = tokio::join!(
            self.execute_all(holder, staged, unpublished).boxed(),
            report
        );
        if !all_count || self.cancel.is_cancelled() {
            // What is not answered is done again, and is not to meet the worker that it met here.
            holder.end_worker().await;
        }
    }

    /// Inputs and container, at the same time; `None` if the lease was cancelled meanwhile.
    async fn stage(
        &self,
        holder: &mut ContainerHolder,
        plan: ContainerPlan,
    ) -> Option<Result<Staged, Refusal>> {
        let start = now();
        let store = self.workshop.stores.of(&self.spec.tenant);
        let worker = self.spec.worker.as_ref();
        let serves = worker.is_some_and(|worker| holder.serves(&self.spec.shape, &worker.key));
        if serves && plan == ContainerPlan::Reuse {
            return Some(Ok(Staged {
                tree: None,
                store: store.remote(),
                moments: Moments::begin(start, start),
            }));
        }
        let key = TreeKey {
            tenant: self.spec.tenant.clone(),
            root: self.spec.input_root,
        };
        let tree = async {
            let acquired = within_limit(self.workshop.trees.acquire(key, &store).boxed());
            tokio::select! {
                tree = acquired => Some(tree.map(|tree| (tree, now()))),
                () = self.cancel.cancelled() => None,
            }
        };
        // A start that is given up takes its container with it.
        let container = async {
            tokio::select! {
                prepared = holder.prepare(&self.spec.shape, plan) => Some(prepared),
                () = self.cancel.cancelled() => None,
            }
        };
        let (tree, container) = tokio::join!(tree, container);
        // If the driver is gone, nobody wants to know which trees there are.
        self.workshop
            .driver
            .send(Occurrence::TreesChanged)
            .await
            .ok();
        let (tree, fetched_at) = match staged(tree?, container?) {
            Ok(both) => both,
            Err(refusal) => return Some(Err(refusal)),
        };
        Some(Ok(Staged {
            tree: Some(tree),
            store: store.remote(),
            moments: Moments::begin(start, fetched_at),
        }))
    }

    async fn execute_all(
        &self,
        holder: &mut ContainerHolder,
        mut staged: Staged,
        results: Unpublished,
    ) {
        let store = Arc::clone(&staged.store);
        let context = ExecutionContext {
            workshop: self.workshop,
            key: self.key,
            spec: self.spec,
            store: &store,
            cancel: self.cancel,
        };
        let mut moments = staged.moments;
        let mut failures_in_a_row = 0;
        for (done, execution) in self.spec.executions.iter().enumerate() {
            if self.cancel.is_cancelled() {
                return;
            }
            let ran = match (&self.spec.worker, &staged.tree) {
                (Some(worker), _) => {
                    let what = (execution, worker);
                    let ran = self.run_in_worker(holder, &context, what, (moments, &mut staged));
                    ran.boxed().await
                }
                (None, Some(tree)) => {
                    let ran = context.run(holder, execution, moments, tree.path());
                    ran.boxed().await
                }
                (None, None) => return,
            };
            failures_in_a_row = if ran.is_err() {
                failures_in_a_row + 1
            } else {
                0
            };
            let refusal = ran.as_ref().err().cloned();
            if refusal.is_some() {
                holder.end_worker().await;
            }
            let Some(result) = self.result(ran, execution, &staged.store) else {
                holder.wipe().await;
                return;
            };
            // The result is on its way while the container is made ready for the next.
            if results.send(result).await.is_err() {
                return;
            }
            holder.wipe().await;
            moments.worker_start = now();
            if let Some(refusal) = refusal.filter(|_| failures_in_a_row >= FAILURES_IN_A_ROW) {
                let rest = self.spec.executions.iter().skip(done + 1);
                for result in rest.map(|execution| self.refused(&refusal, execution)) {
                    // Nobody listens once the lease is cancelled.
                    results.send(result).await.ok();
                }
                return;
            }
        }
    }

    /// Has a worker do an execution; another one if the one that is there has had its day.
    async fn run_in_worker(
        &self,
        holder: &mut ContainerHolder,
        context: &ExecutionContext<'_>,
        what: (&Execution, &WorkerSpec),
        (moments, staged): (Moments, &mut Staged),
    ) -> Result<Option<Executed>, Refusal> {
        let tree = staged.tree.take();
        let mut ran = context.run_in_worker(holder, what, moments, tree).await;
        if let Err(Unserved::Spent) = ran {
            tracing::info!("the persistent worker is of no use any more; starting another");
            holder.end_worker().await;
            *staged = match self.stage(holder, ContainerPlan::Reuse).await {
                Some(staged) => staged?,
                None => return Ok(None),
            };
            let tree = staged.tree.take();
            ran = context.run_in_worker(holder, what, moments, tree).await;
        }
        ran.map_err(|error| match error {
            Unserved::Refused(refusal) => refusal,
            Unserved::Spent => {
                Refusal::infrastructure("a worker that was just started is of no use any more")
            }
        })
    }

    /// The result of an execution, on its way into the store; `None` if it was cancelled.
    fn result(
        &self,
        ran: Result<Option<Executed>, Refusal>,
        execution: &Execution,
        store: &Arc<dyn BlobStore>,
    ) -> Option<Publishing> {
        let executed = match ran {
            Ok(executed) => executed?,
            Err(refusal) => return Some(self.refused(&refusal, execution)),
        };
        let (workshop, slot) = (Arc::clone(self.workshop), self.slot);
        let (store, execution) = (Arc::clone(store), execution.clone());
        let timeout = self.spec.timeout;
        let unit = execution.unit;
        let publish = async move {
            executed
                .publish(store, &execution, timeout, slot, workshop.agent.as_str())
                .await
        };
        let outcome = tokio::spawn(publish.in_current_span());
        Some(Publishing { unit, outcome })
    }

    fn refused(&self, refusal: &Refusal, execution: &Execution) -> Publishing {
        let unit = execution.unit;
        let outcome = refusal.clone().outcome(unit, self.slot);
        let outcome = tokio::spawn(std::future::ready(outcome));
        Publishing { unit, outcome }
    }

    /// Reports a result once it is stored, or nothing if it is no longer wanted. Whether it was reported and the
    /// machine is not to blame for it.
    async fn report(&self, mut publishing: Publishing) -> bool {
        tokio::select! {
            published = &mut publishing.outcome => {
                let Some(outcome) = outcome_of(published, publishing.unit, self.slot) else {
                    return false;
                };
                let counts = !matches!(
                    outcome.kind(),
                    v1::OutcomeKind::Infrastructure | v1::OutcomeKind::StoreExhausted
                );
                self.workshop.tell(Event::UnitFinished(self.slot, self.key, outcome)).await;
                counts
            }
            () = self.cancel.cancelled() => {
                publishing.outcome.abort();
                false
            }
        }
    }

    /// Gives executions that never started the same answer.
    async fn refuse(&self, executions: &[Execution], refusal: &Refusal) {
        for execution in executions {
            let outcome = refusal.clone().outcome(execution.unit, self.slot);
            self.workshop
                .tell(Event::UnitFinished(self.slot, self.key, outcome))
                .await;
        }
    }
}

/// What to report of a task that published a result: one that broke says so, for the outcomes after it
/// would otherwise come in its place. `None` if it was cancelled.
fn outcome_of(
    published: Result<Outcome, JoinError>,
    unit: UnitIndex,
    slot: SlotIndex,
) -> Option<Outcome> {
    match published {
        Ok(outcome) => Some(outcome),
        Err(error) if error.is_cancelled() => None,
        Err(error) => {
            tracing::error!(%error, %unit, "publishing a result failed");
            let refusal = Refusal::infrastructure(format!("publishing the result failed: {error}"));
            Some(refusal.outcome(unit, slot))
        }
    }
}

/// A tree that takes too long to come is the store's fault.
async fn within_limit<T>(tree: impl Future<Output = Result<T, TreeError>>) -> Result<T, TreeError> {
    let acquired = tokio::time::timeout(TREE_LIMIT, tree).await;
    acquired.unwrap_or_else(|_| {
        let detail = format!("it took more than {} s", TREE_LIMIT.as_secs());
        Err(TreeError::Store(StoreError::Unavailable { detail }))
    })
}

/// A tree that cannot be had anywhere says more than a container that cannot be had here.
fn staged<T>(
    tree: Result<T, TreeError>,
    container: Result<(), RuntimeError>,
) -> Result<T, Refusal> {
    let tree = tree.map_err(|error| Refusal::from(&error))?;
    container.map_err(|error| Refusal::from(&error))?;
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_tree_that_never_comes_is_the_stores_fault() {
        let never = within_limit(std::future::pending::<Result<(), _>>()).await;
        let refusal = Refusal::from(&never.unwrap_err());
        assert!(matches!(refusal, Refusal::Infrastructure { .. }));
    }

    #[tokio::test]
    async fn a_result_whose_publishing_breaks_is_reported_as_the_machines_fault() {
        let broken = tokio::spawn(async { panic!("the disk caught fire") });
        let outcome = outcome_of(broken.await, UnitIndex(3), SlotIndex(1)).unwrap();
        assert_eq!(
            (outcome.unit, outcome.kind()),
            (3, v1::OutcomeKind::Infrastructure)
        );
        assert!(outcome.message.contains("fire"), "{}", outcome.message);

        let aborted = tokio::spawn(std::future::pending());
        aborted.abort();
        assert_eq!(outcome_of(aborted.await, UnitIndex(3), SlotIndex(1)), None);
    }
}
