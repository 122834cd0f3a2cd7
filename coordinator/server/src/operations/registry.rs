//! Every operation that can still be asked for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{Stream, stream};
use prost::Message as _;
use prost_types::Any;
use regatta_model::{Digest, TenantId};
use regatta_wire::reapi::digest_function::Value as DigestFunction;
use regatta_wire::reapi::execution_stage::Value as Stage;
use regatta_wire::{longrunning, reapi};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::recently_used::RecentlyUsed;
use crate::status;

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

#[derive(Debug)]
struct Operation {
    name: String,
    action: Digest,
    states: watch::Sender<State>,
    cancel: CancellationToken,
    /// When somebody last watched or asked.
    last_interest: Mutex<Instant>,
}

#[derive(Clone, Debug)]
struct State {
    stage: Stage,
    metadata: reapi::ExecutedActionMetadata,
    response: Option<Arc<reapi::ExecuteResponse>>,
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
        let id = uuid::Uuid::new_v4();
        let name = match tenant.as_str() {
            "" => format!("operations/{id}"),
            tenant => format!("{tenant}/operations/{id}"),
        };
        let state = State {
            stage,
            metadata: Default::default(),
            response: None,
        };
        let operation = Arc::new(Operation {
            name: name.clone(),
            action,
            states: watch::Sender::new(state),
            cancel: CancellationToken::new(),
            last_interest: Mutex::new(Instant::now()),
        });
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

    /// At most `limit` operations by name, those whose names come after `after`.
    pub(crate) fn list(&self, after: &str, limit: usize) -> Vec<longrunning::Operation> {
        let mut found: BTreeMap<String, Arc<Operation>> = BTreeMap::new();
        {
            let registry = self.lock();
            let completed = registry.completed.values().map(|(_, operation)| operation);
            for operation in registry.active.values().chain(completed) {
                if operation.name.as_str() > after {
                    found.insert(operation.name.clone(), Arc::clone(operation));
                }
            }
        }
        found
            .into_values()
            .take(limit)
            .map(|operation| operation.to_wire())
            .collect()
    }

    fn find(&self, name: &str) -> Option<Arc<Operation>> {
        let mut registry = self.lock();
        if let Some(operation) = registry.active.get(name) {
            return Some(Arc::clone(operation));
        }
        let (ended, operation) = registry.completed.get(name)?;
        if ended.elapsed() < self.settings.completed_retention {
            return Some(Arc::clone(operation));
        }
        registry.completed.remove(name);
        None
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

impl Operation {
    fn watch(self: &Arc<Self>) -> OperationWatch {
        self.touch();
        OperationWatch {
            states: self.states.subscribe(),
            operation: Arc::clone(self),
        }
    }

    fn touch(&self) {
        *self
            .last_interest
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn last_interest(&self) -> Instant {
        *self
            .last_interest
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn to_wire(&self) -> longrunning::Operation {
        let state = self.states.borrow().clone();
        self.state_to_wire(state)
    }

    fn state_to_wire(&self, state: State) -> longrunning::Operation {
        let metadata = reapi::ExecuteOperationMetadata {
            stage: state.stage.into(),
            action_digest: Some(self.action.into()),
            partial_execution_metadata: Some(state.metadata),
            digest_function: DigestFunction::Sha256.into(),
            ..Default::default()
        };
        let result = state
            .response
            .map(|response| longrunning::operation::Result::Response(to_any(response.as_ref())));
        longrunning::Operation {
            name: self.name.clone(),
            metadata: Some(to_any(&metadata)),
            done: result.is_some(),
            result,
        }
    }
}

fn to_any<Message: prost::Name>(message: &Message) -> Any {
    Any {
        type_url: Message::type_url(),
        value: message.encode_to_vec(),
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

    /// Waits until nobody has watched for as long as the settings allow.
    pub(crate) async fn abandoned(&self) {
        let grace = self.operations.settings.unwatched_grace;
        loop {
            self.operation.states.closed().await;
            let deadline = self.operation.last_interest() + grace;
            if Instant::now() >= deadline {
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
        let failure =
            status::unavailable("the coordinator is stopping", status::DEFAULT_RETRY_DELAY);
        let response = reapi::ExecuteResponse {
            status: Some(failure.into()),
            ..Default::default()
        };
        self.operations.complete(&self.operation, response);
    }
}

/// Somebody watches an operation, which keeps it going.
#[derive(Debug)]
pub(crate) struct OperationWatch {
    states: watch::Receiver<State>,
    operation: Arc<Operation>,
}

impl OperationWatch {
    /// The state now, then every later one, the last of them done. States that follow each other faster
    /// than they are taken are left out.
    pub(crate) fn into_stream(mut self) -> impl Stream<Item = longrunning::Operation> + Send {
        self.states.mark_changed();
        stream::unfold(Some(self), |watch| async move {
            let mut watch = watch?;
            watch.states.changed().await.ok()?;
            let state = watch.states.borrow_and_update().clone();
            let operation = watch.operation.state_to_wire(state);
            let next = (!operation.done).then_some(watch);
            Some((operation, next))
        })
    }

    /// Waits until the operation has ended.
    pub(crate) async fn ended(&mut self) {
        // An error would mean that the operation is gone, and this watch keeps it.
        drop(self.states.wait_for(|state| state.response.is_some()).await);
    }

    /// The state now.
    pub(crate) fn now(&self) -> longrunning::Operation {
        self.operation.to_wire()
    }
}

impl Drop for OperationWatch {
    fn drop(&mut self) {
        self.operation.touch();
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
            completed_bytes: 1 << 20,
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
        assert_eq!(operations.list("", 10).len(), 1);
        assert_eq!(operations.list(&name, 10).len(), 0);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(operations.get(&name).is_none());
        assert!(!operations.forget(&name));
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
