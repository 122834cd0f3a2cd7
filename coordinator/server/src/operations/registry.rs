//! Every operation that can still be asked for.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prost::Message as _;
use regatta_model::{Digest, TenantId};
use regatta_wire::reapi::execution_stage::Value as Stage;
use regatta_wire::{longrunning, reapi};
use tokio::time::Instant;

use super::operation::{Operation, OperationWatch};
use crate::recently_used::RecentlyUsed;
use crate::status;

/// How large a page of operations is at most, in bytes, a larger single operation aside.
const MAX_PAGE_BYTES: usize = 2 << 20;

/// How long operations are kept.
#[derive(Clone, Debug)]
pub(crate) struct OperationSettings {
    /// How long one goes on that nobody watches.
    pub(crate) unwatched_grace: Duration,
    /// How long one that ended can be asked for.
    pub(crate) completed_retention: Duration,
    /// How much memory those that ended may take, in bytes.
    pub(crate) completed_bytes: usize,
}

/// All operations, by name. Those under way are bounded by the dispatcher's queue, those that ended by
/// the settings.
#[derive(Debug)]
pub(crate) struct Operations {
    settings: OperationSettings,
    registry: Mutex<Registry>,
}

#[derive(Debug)]
struct Registry {
    active: BTreeMap<String, Arc<Operation>>,
    completed: RecentlyUsed<String, (Instant, Arc<Operation>)>,
}

/// What the names of a tenant's operations begin with. No instance name has the segment `operations`, so
/// that no tenant's prefix begins with another's.
fn name_prefix(tenant: &TenantId) -> String {
    match tenant.as_str() {
        "" => "operations/".to_owned(),
        tenant => format!("{tenant}/operations/"),
    }
}

/// How many operations there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct OperationCounts {
    /// Those under way.
    pub(crate) active: usize,
    /// Those that ended and can still be asked for, or could until a while ago.
    pub(crate) ended: usize,
    /// Who watches those under way.
    pub(crate) watchers: usize,
}

/// Some of a tenant's operations.
#[derive(Debug)]
pub(crate) struct OperationPage {
    /// By name.
    pub(crate) operations: Vec<longrunning::Operation>,
    /// Whether none comes after them.
    pub(crate) is_last: bool,
}

impl Operations {
    /// No operations yet.
    pub(crate) fn new(settings: OperationSettings) -> Arc<Self> {
        let completed = RecentlyUsed::new(settings.completed_bytes);
        let registry = Mutex::new(Registry {
            active: BTreeMap::new(),
            completed,
        });
        Arc::new(Self { settings, registry })
    }

    /// Begins an operation, with the one who asked for it watching.
    pub(crate) fn begin(
        self: &Arc<Self>,
        tenant: &TenantId,
        action: Digest,
        stage: Stage,
    ) -> (ActiveOperation, OperationWatch) {
        let name = format!("{}{}", name_prefix(tenant), uuid::Uuid::new_v4());
        let operation = Operation::begin(name.clone(), action, stage);
        self.lock().active.insert(name, Arc::clone(&operation));
        let watch = operation.watch();
        (
            ActiveOperation {
                operations: Arc::clone(self),
                operation,
            },
            watch,
        )
    }

    /// Watches an operation, if it can still be asked for.
    pub(crate) fn watch(&self, name: &str) -> Option<OperationWatch> {
        self.find(name).map(|operation| operation.watch())
    }

    /// Watches an execution again, if it can still lead to its result. One that was given up cannot: its
    /// client has to execute anew, and does so only if the execution is not there.
    pub(crate) fn resume(&self, name: &str) -> Option<OperationWatch> {
        // Watching under the lock is what keeps it from being given up meanwhile.
        let mut registry = self.lock();
        let operation = registry.find(name, self.settings.completed_retention)?;
        (!operation.is_abandoned.load(Ordering::Relaxed)).then(|| operation.watch())
    }

    /// Gives an operation up, unless somebody watches it after all.
    fn abandon(&self, operation: &Operation) -> bool {
        let _registry = self.lock();
        let is_unwatched = operation.states.receiver_count() == 0;
        operation
            .is_abandoned
            .store(is_unwatched, Ordering::Relaxed);
        is_unwatched
    }

    /// An operation as it is now.
    pub(crate) fn get(&self, name: &str) -> Option<longrunning::Operation> {
        let operation = self.find(name)?;
        operation.touch();
        Some(operation.to_wire())
    }

    /// Stops an operation; whether there is one. One that has ended stays as it is.
    pub(crate) fn cancel(&self, name: &str) -> bool {
        self.find(name)
            .map(|operation| operation.cancel.cancel())
            .is_some()
    }

    /// Forgets an operation that has ended; whether there was one.
    pub(crate) fn forget(&self, name: &str) -> bool {
        self.lock().completed.remove(name).is_some()
    }

    /// How many there are.
    pub(crate) fn counts(&self) -> OperationCounts {
        let registry = self.lock();
        let active = registry.active.values();
        OperationCounts {
            active: registry.active.len(),
            ended: registry.completed.len(),
            watchers: active.map(|it| it.states.receiver_count()).sum(),
        }
    }

    /// The operations of a tenant by name, from the one that comes after `after` on: at most `limit`, and
    /// no more than fit into a message, but at least one.
    pub(crate) fn list(&self, tenant: &TenantId, after: &str, limit: usize) -> OperationPage {
        let prefix = name_prefix(tenant);
        let found = self
            .lock()
            .range(&prefix, after, limit, self.settings.completed_retention);
        let mut page = OperationPage {
            is_last: found.len() < limit,
            operations: Vec::new(),
        };
        let mut size_bytes = 0;
        for operation in found {
            let operation = operation.to_wire();
            size_bytes += operation.encoded_len();
            if size_bytes > MAX_PAGE_BYTES && !page.operations.is_empty() {
                page.is_last = false;
                break;
            }
            page.operations.push(operation);
        }
        page
    }

    fn find(&self, name: &str) -> Option<Arc<Operation>> {
        self.lock().find(name, self.settings.completed_retention)
    }

    fn complete(&self, operation: &Arc<Operation>, response: reapi::ExecuteResponse) {
        let weight = 512 + response.encoded_len();
        let response = Some(Arc::new(response));
        operation.states.send_modify(|state| {
            state.stage = Stage::Completed;
            state.response = response;
        });
        let mut registry = self.lock();
        registry.active.remove(&operation.name);
        let entry = (Instant::now(), Arc::clone(operation));
        registry
            .completed
            .insert(operation.name.clone(), entry, weight);
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registry {
    /// Those that begin with `prefix` and come after `after`, in order, at most `limit`.
    fn range(
        &self,
        prefix: &str,
        after: &str,
        limit: usize,
        retention: Duration,
    ) -> Vec<Arc<Operation>> {
        let start = match after >= prefix {
            true => Bound::Excluded(after),
            false => Bound::Included(prefix),
        };
        let range = (start, Bound::Unbounded);
        let is_within = |name: &str| name.starts_with(prefix);
        let active = self.active.range::<str, _>(range);
        let active = active.take_while(|(name, _)| is_within(name)).take(limit);
        let completed = self.completed.range::<str, _>(range);
        let completed = completed
            .take_while(|(name, _)| is_within(name))
            .filter(|(_, (ended, _))| ended.elapsed() < retention)
            .map(|(name, (_, operation))| (name, operation))
            .take(limit);
        let mut found: Vec<_> = active.chain(completed).collect();
        found.sort_unstable_by_key(|(name, _)| *name);
        let found = found.into_iter().take(limit);
        found.map(|(_, operation)| Arc::clone(operation)).collect()
    }

    fn find(&mut self, name: &str, retention: Duration) -> Option<Arc<Operation>> {
        if let Some(operation) = self.active.get(name) {
            return Some(Arc::clone(operation));
        }
        let (ended, operation) = self.completed.get(name)?;
        if ended.elapsed() < retention {
            return Some(Arc::clone(operation));
        }
        self.completed.remove(name);
        None
    }
}

/// An operation in the hands of whoever carries it out. Dropped before it ends, it ends as unavailable.
#[derive(Debug)]
pub(crate) struct ActiveOperation {
    operations: Arc<Operations>,
    operation: Arc<Operation>,
}

impl ActiveOperation {
    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.operation.name
    }

    /// Moves on to a later stage, and tells what is known by now. Never back to an earlier stage.
    pub(crate) fn advance(&self, stage: Stage, metadata: reapi::ExecutedActionMetadata) {
        self.operation.states.send_modify(|state| {
            if i32::from(stage) > i32::from(state.stage) {
                state.stage = stage;
            }
            state.metadata = metadata;
        });
    }

    /// Ends the operation.
    pub(crate) fn complete(self, response: reapi::ExecuteResponse) {
        self.operations.complete(&self.operation, response);
    }

    /// Waits until somebody wants the operation to stop.
    pub(crate) async fn cancelled(&self) {
        self.operation.cancel.cancelled().await;
    }

    /// Waits until nobody has watched for as long as the settings allow. From then on the operation cannot
    /// be watched any more.
    pub(crate) async fn abandoned(&self) {
        let grace = self.operations.settings.unwatched_grace;
        loop {
            self.operation.states.closed().await;
            let deadline = self.operation.last_interest() + grace;
            if Instant::now() >= deadline && self.operations.abandon(&self.operation) {
                return;
            }
            tokio::time::sleep_until(deadline).await;
        }
    }
}

impl Drop for ActiveOperation {
    fn drop(&mut self) {
        if self.operation.states.borrow().response.is_some() {
            return;
        }
        let response = reapi::ExecuteResponse {
            status: Some(status::stopping().into()),
            ..Default::default()
        };
        self.operations.complete(&self.operation, response);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{StreamExt as _, poll};
    use std::pin::pin;

    fn operations() -> Arc<Operations> {
        Operations::new(OperationSettings {
            unwatched_grace: Duration::from_secs(30),
            completed_retention: Duration::from_secs(600),
            completed_bytes: 8 << 20,
        })
    }

    fn begin(operations: &Arc<Operations>) -> (ActiveOperation, OperationWatch) {
        operations.begin(&"main".parse().unwrap(), Digest::EMPTY, Stage::Queued)
    }

    fn stage(operation: &longrunning::Operation) -> i32 {
        let metadata = operation.metadata.as_ref().unwrap();
        metadata
            .to_msg::<reapi::ExecuteOperationMetadata>()
            .unwrap()
            .stage
    }

    #[tokio::test]
    async fn stages_only_go_forward_and_the_stream_ends_with_the_operation() {
        let operations = operations();
        let (active, watch) = begin(&operations);
        let mut states = pin!(watch.into_stream());
        assert_eq!(
            stage(&states.next().await.unwrap()),
            i32::from(Stage::Queued)
        );
        active.advance(Stage::Executing, Default::default());
        assert_eq!(
            stage(&states.next().await.unwrap()),
            i32::from(Stage::Executing)
        );
        active.advance(Stage::Queued, Default::default());
        assert_eq!(
            stage(&states.next().await.unwrap()),
            i32::from(Stage::Executing)
        );
        active.complete(reapi::ExecuteResponse::default());
        let last = states.next().await.unwrap();
        assert!(last.done && states.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn an_operation_that_nobody_watches_is_abandoned_after_its_grace() {
        let operations = operations();
        let (active, watch) = begin(&operations);
        let name = active.name().to_owned();
        let mut abandoned = pin!(active.abandoned());
        tokio::time::advance(Duration::from_secs(100)).await;
        assert!(poll!(&mut abandoned).is_pending(), "it is watched");
        drop(watch);
        tokio::time::advance(Duration::from_secs(29)).await;
        assert!(poll!(&mut abandoned).is_pending(), "its grace is not over");
        drop(operations.watch(&name).unwrap());
        tokio::time::advance(Duration::from_secs(29)).await;
        assert!(poll!(&mut abandoned).is_pending(), "somebody came by");
        let started = Instant::now();
        abandoned.await;
        assert!(started.elapsed() <= Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn an_operation_that_ended_can_be_asked_for_a_while() {
        let operations = operations();
        let (active, watch) = begin(&operations);
        drop(watch);
        let name = active.name().to_owned();
        active.complete(reapi::ExecuteResponse::default());
        tokio::time::advance(Duration::from_secs(599)).await;
        assert!(
            operations
                .get(&name)
                .is_some_and(|operation| operation.done)
        );
        let list = |after: &str| operations.list(&"main".parse().unwrap(), after, 10);
        assert_eq!(list("").operations.len(), 1);
        assert_eq!(list(&name).operations.len(), 0);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(list("").operations.len(), 0);
        assert!(operations.get(&name).is_none());
        assert!(!operations.forget(&name));
    }

    #[tokio::test]
    async fn operations_are_listed_by_tenant_and_page() {
        let operations = operations();
        let tenants = ["", "main", "main/sub", "mainly"].map(|name| name.parse().unwrap());
        let mut expected = [const { Vec::new() }; 4];
        let mut active = Vec::new();
        for number in 0..40 {
            let tenant = number % tenants.len();
            let (operation, _) = operations.begin(&tenants[tenant], Digest::EMPTY, Stage::Queued);
            expected[tenant].push(operation.name().to_owned());
            match number % 3 {
                0 => operation.complete(reapi::ExecuteResponse::default()),
                _ => active.push(operation),
            }
        }
        for (tenant, mut expected) in tenants.iter().zip(expected) {
            expected.sort();
            let mut listed: Vec<String> = Vec::new();
            loop {
                let after = listed.last().cloned().unwrap_or_default();
                let page = operations.list(tenant, &after, 3);
                assert!(page.operations.len() <= 3);
                listed.extend(page.operations.into_iter().map(|operation| operation.name));
                if page.is_last {
                    break;
                }
            }
            assert_eq!(listed, expected);
        }
    }

    #[tokio::test]
    async fn a_page_of_large_operations_is_short() {
        let operations = operations();
        for _ in 0..3 {
            let (operation, _) = begin(&operations);
            operation.complete(reapi::ExecuteResponse {
                message: "x".repeat(MAX_PAGE_BYTES / 16 * 9),
                ..Default::default()
            });
        }
        let tenant = "main".parse().unwrap();
        let page = operations.list(&tenant, "", 10);
        assert_eq!((page.operations.len(), page.is_last), (1, false));
    }

    #[tokio::test(start_paused = true)]
    async fn an_abandoned_operation_can_be_seen_but_not_resumed() {
        let operations = operations();
        let (active, watch) = begin(&operations);
        let name = active.name().to_owned();
        assert!(operations.resume(&name).is_some());
        drop(watch);
        active.abandoned().await;
        assert!(operations.resume(&name).is_none());
        active.complete(reapi::ExecuteResponse::default());
        assert!(operations.resume(&name).is_none());
        assert!(operations.get(&name).unwrap().done);
    }

    #[tokio::test]
    async fn operations_and_their_watchers_are_counted() {
        let operations = operations();
        let counts = |active, ended, watchers| OperationCounts {
            active,
            ended,
            watchers,
        };
        let (first, watch) = begin(&operations);
        let (second, _) = begin(&operations);
        let again = operations.watch(first.name());
        assert_eq!(operations.counts(), counts(2, 0, 2));
        drop((watch, again));
        assert_eq!(operations.counts(), counts(2, 0, 0));
        second.complete(reapi::ExecuteResponse::default());
        assert_eq!(operations.counts(), counts(1, 1, 0));
    }

    #[tokio::test]
    async fn dropping_an_operation_ends_it_as_unavailable() {
        let operations = operations();
        let (active, mut watch) = begin(&operations);
        drop(active);
        watch.ended().await;
        assert!(watch.now().done);
    }
}
