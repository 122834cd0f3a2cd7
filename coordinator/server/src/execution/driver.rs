//! Follows one action from the queue to its result.

use std::sync::Arc;

use prost::Message as _;
use regatta_model::{AgentId, Digest, TenantId, Timestamp};
use regatta_wire::convert::timestamp_to_wire;
use regatta_wire::reapi::execution_stage::Value as Stage;
use regatta_wire::{reapi, v1};

use super::ExecutionParts;
use super::conclusion::{Conclusion, conclude};
use super::publications::Publication;
use crate::action_cache::{InlineRequest, inline_outputs};
use crate::action_plan::LegacyOutputs;
use crate::dispatch::{TaskEvent, TaskHandle};
use crate::operations::ActiveOperation;
use crate::status::{self, Failure};

/// An action that was submitted.
#[derive(Debug)]
pub(super) struct Execution {
    pub(super) parts: Arc<ExecutionParts>,
    pub(super) tenant: TenantId,
    pub(super) action: Digest,
    /// Stays as long as the action may need it.
    pub(super) input_root: Digest,
    /// Its result may be remembered; kept until it is.
    pub(super) publication: Option<Publication>,
    pub(super) legacy: Option<LegacyOutputs>,
    pub(super) inline: InlineRequest,
    pub(super) queued: Timestamp,
}

impl Execution {
    /// Follows the task until it is answered, or not wanted any more, and ends the operation with it.
    /// Dropping the task cancels it.
    pub(super) async fn drive(self, mut task: TaskHandle, operation: ActiveOperation) {
        let outcome = tokio::select! {
            outcome = self.follow(&mut task, &operation) => outcome,
            () = self.parts.stopping.cancelled() => Err(status::stopping()),
            error = self.parts.dispatcher.stalled() => Err(status::unavailable(
                format!("nothing can be leased: {error}"),
                status::DEFAULT_RETRY_DELAY,
            )),
            () = self.parts.inputs.keep(self.input_root) => Err(status::stopping()),
            () = operation.cancelled() => Err(status::cancelled("the operation was cancelled")),
            () = operation.abandoned() => {
                Err(status::cancelled("nobody watched the operation any more"))
            }
        };
        let response = match outcome {
            // Apart, so that the many that wait for an answer are small.
            Ok(answer) => Box::pin(self.publish(answer)).await,
            Err(failure) => {
                tracing::info!(
                    action = %self.action,
                    operation = operation.name(),
                    reason = failure.message(),
                    "an action has no result"
                );
                let message = failure.message().to_owned();
                let status = Some(failure.into());
                reapi::ExecuteResponse {
                    status,
                    message,
                    ..Default::default()
                }
            }
        };
        // Whoever asks again as soon as the operation has ended finds the result.
        drop(self.publication);
        operation.complete(response);
    }

    async fn follow(
        &self,
        task: &mut TaskHandle,
        operation: &ActiveOperation,
    ) -> Result<Answer, Failure> {
        while let Some(event) = task.next().await {
            match event {
                TaskEvent::Granted { agent, .. } => {
                    operation.advance(Stage::Executing, self.metadata(&agent));
                }
                TaskEvent::Answered { outcome, agent, .. } => {
                    return Ok(Answer { outcome, agent });
                }
                TaskEvent::Failed { error, .. } => return Err(status::of_unit(&error)),
                TaskEvent::Retried { agent, reason, .. } => {
                    tracing::warn!(action = %self.action, %agent, reason, "an action is tried again");
                }
                TaskEvent::Output { .. } | TaskEvent::Returned { .. } => {}
                TaskEvent::Finished => break,
            }
        }
        Err(status::stopping())
    }

    fn metadata(&self, agent: &AgentId) -> reapi::ExecutedActionMetadata {
        reapi::ExecutedActionMetadata {
            worker: agent.to_string(),
            queued_timestamp: Some(timestamp_to_wire(self.queued)),
            ..Default::default()
        }
    }

    async fn publish(&self, answer: Answer) -> reapi::ExecuteResponse {
        let queued = Some(timestamp_to_wire(self.queued));
        let conclusion = conclude(answer.outcome, &answer.agent, queued, self.legacy.as_ref());
        if conclusion.lost_inputs {
            self.parts.inputs.forget();
        }
        self.remember(&conclusion).await;
        let mut response = conclusion.response;
        if let Some(mut result) = response.result.take() {
            let around_bytes = response.encoded_len();
            let blobs = self.parts.blobs.as_ref();
            inline_outputs(blobs, &self.inline, &mut result, around_bytes).await;
            response.result = Some(result);
        }
        response
    }

    /// Stores a good result in the action cache. If that fails, the next such action runs again.
    async fn remember(&self, conclusion: &Conclusion) {
        let Some(result) = conclusion.response.result.as_ref() else {
            return;
        };
        if !conclusion.is_success || self.publication.is_none() {
            return;
        }
        let put = self
            .parts
            .cache
            .put(&self.tenant, &self.action, result.clone())
            .await;
        if let Err(error) = put {
            let error = status::with_sources(&error);
            tracing::warn!(action = %self.action, error, "a result could not be remembered");
        }
    }
}

/// The one outcome that counts.
#[derive(Debug)]
struct Answer {
    outcome: v1::ExecutionOutcome,
    agent: AgentId,
}
