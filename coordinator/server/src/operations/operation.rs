//! One operation, and those who watch it.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use futures::{Stream, stream};
use prost_types::Any;
use regatta_model::Digest;
use regatta_wire::reapi::digest_function::Value as DigestFunction;
use regatta_wire::reapi::execution_stage::Value as Stage;
use regatta_wire::{longrunning, reapi};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

#[derive(Debug)]
pub(super) struct Operation {
    pub(super) name: String,
    action: Digest,
    pub(super) states: watch::Sender<State>,
    pub(super) cancel: CancellationToken,
    /// It was given up because nobody watched it. Set with the registry locked.
    pub(super) is_abandoned: AtomicBool,
    /// When somebody last watched or asked.
    last_interest: Mutex<Instant>,
}

#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) stage: Stage,
    pub(super) metadata: reapi::ExecutedActionMetadata,
    pub(super) response: Option<Arc<reapi::ExecuteResponse>>,
}

impl Operation {
    /// One that has come to `stage`.
    pub(super) fn begin(name: String, action: Digest, stage: Stage) -> Arc<Self> {
        let state = State {
            stage,
            metadata: Default::default(),
            response: None,
        };
        Arc::new(Self {
            name,
            action,
            states: watch::Sender::new(state),
            cancel: CancellationToken::new(),
            is_abandoned: AtomicBool::new(false),
            last_interest: Mutex::new(Instant::now()),
        })
    }

    pub(super) fn watch(self: &Arc<Self>) -> OperationWatch {
        self.touch();
        OperationWatch {
            states: self.states.subscribe(),
            operation: Arc::clone(self),
        }
    }

    pub(super) fn touch(&self) {
        *self
            .last_interest
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    pub(super) fn last_interest(&self) -> Instant {
        *self
            .last_interest
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn to_wire(&self) -> longrunning::Operation {
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

/// Somebody watches an operation, which keeps it going.
#[derive(Debug)]
pub(crate) struct OperationWatch {
    pub(super) states: watch::Receiver<State>,
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
