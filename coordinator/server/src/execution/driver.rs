//! Follows one action from the queue to its result.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use regatta_model::{AgentId, Digest, TenantId, Timestamp};
use regatta_wire::convert::{timestamp_from_wire, timestamp_to_wire};
use regatta_wire::reapi::execution_stage::Value as Stage;
use regatta_wire::{reapi, v1};

use super::ExecutionParts;
use super::conclusion::{Conclusion, conclude};
use crate::action_cache::{InlineRequest, inline_outputs};
use crate::dispatch::{TaskEvent, TaskHandle};
use crate::operations::ActiveOperation;
use crate::status::{self, Failure};

/// An action that was submitted.
#[derive(Debug)]
pub(super) struct Execution {
    pub(super) parts: Arc<ExecutionParts>,
    pub(super) tenant: TenantId,
    pub(super) action: Digest,
    pub(super) is_cacheable: bool,
    pub(super) inline: InlineRequest,
    pub(super) queued: Timestamp,
}

impl Execution {
    /// Follows the task until it is answered, or not wanted any more, and ends the operation with it.
    /// Dropping the task cancels it.
    pub(super) async fn drive(self, mut task: TaskHandle, operation: ActiveOperation) {
        let outcome = tokio::select! {
            outcome = self.follow(&mut task, &operation) => outcome,
            () = self.parts.stopping.cancelled() => Err(stopping()),
            () = operation.cancelled() => Err(status::cancelled("the operation was cancelled")),
            () = operation.abandoned() => {
                Err(status::cancelled("nobody watched the operation any more"))
            }
        };
        let response = match outcome {
            Ok(answer) => self.publish(answer).await,
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
        operation.complete(response);
    }

    async fn follow(
        &self,
        task: &mut TaskHandle,
        operation: &ActiveOperation,
    ) -> Result<Answer, Failure> {
        let mut granted = None;
        while let Some(event) = task.next().await {
            match event {
                TaskEvent::Granted { agent, .. } => {
                    granted = Some(Timestamp::from(SystemTime::now()));
                    operation.advance(Stage::Executing, self.metadata(&agent));
                }
                TaskEvent::Answered { outcome, agent, .. } => {
                    return Ok(Answer {
                        outcome,
                        agent,
                        granted,
                        at: Instant::now(),
                    });
                }
                TaskEvent::Failed { error, .. } => return Err(status::of_unit(&error)),
                TaskEvent::Retried { agent, reason, .. } => {
                    tracing::warn!(action = %self.action, %agent, reason, "an action is tried again");
                }
                TaskEvent::Output { .. } => {}
                TaskEvent::Finished => break,
            }
        }
        Err(stopping())
    }

    fn metadata(&self, agent: &AgentId) -> reapi::ExecutedActionMetadata {
        reapi::ExecutedActionMetadata {
            worker: agent.to_string(),
            queued_timestamp: Some(timestamp_to_wire(self.queued)),
            ..Default::default()
        }
    }

    async fn publish(&self, answer: Answer) -> reapi::ExecuteResponse {
        answer.record();
        let queued = Some(timestamp_to_wire(self.queued));
        let conclusion = conclude(answer.outcome, &answer.agent, queued);
        if conclusion.lost_inputs {
            self.parts.inputs.forget();
        }
        self.remember(&conclusion).await;
        let mut response = conclusion.response;
        if let Some(result) = &mut response.result {
            inline_outputs(self.parts.blobs.as_ref(), &self.inline, result).await;
        }
        metrics::histogram!("regatta_publish_seconds").record(answer.at.elapsed().as_secs_f64());
        response
    }

    /// Stores a good result in the action cache. If that fails, the next such action runs again.
    async fn remember(&self, conclusion: &Conclusion) {
        let Some(result) = conclusion.response.result.as_ref() else {
            return;
        };
        if !conclusion.is_success || !self.is_cacheable {
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

fn stopping() -> Failure {
    status::unavailable("the coordinator is stopping", status::DEFAULT_RETRY_DELAY)
}

/// The one outcome that counts.
#[derive(Debug)]
struct Answer {
    outcome: v1::ExecutionOutcome,
    agent: AgentId,
    granted: Option<Timestamp>,
    at: Instant,
}

impl Answer {
    /// Records how long its parts took, as far as the agent tells. Its clock may differ from ours by
    /// more than the first of them takes.
    fn record(&self) {
        let metadata = self
            .outcome
            .result
            .as_ref()
            .and_then(|it| it.execution_metadata.as_ref());
        let Some(metadata) = metadata else { return };
        let time = |message: &Option<prost_types::Timestamp>| {
            message
                .as_ref()
                .and_then(|time| timestamp_from_wire(time).ok())
        };
        let started = time(&metadata.execution_start_timestamp);
        let completed = time(&metadata.execution_completed_timestamp);
        record_span("regatta_lease_to_exec_seconds", self.granted, started);
        record_span("regatta_exec_seconds", started, completed);
    }
}

fn record_span(name: &'static str, from: Option<Timestamp>, to: Option<Timestamp>) {
    if let (Some(from), Some(to)) = (from, to) {
        let span: Duration = to.since(from);
        metrics::histogram!(name).record(span.as_secs_f64());
    }
}
