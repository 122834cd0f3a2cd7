//! `regatta.v1.Fleet` over gRPC: agents on one side, the dispatcher on the other.

use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use regatta_wire::v1;
use regatta_wire::v1::fleet_server::Fleet;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::dispatch::{CloseReason, Dispatcher, InvalidReportError, ValidChunk, ValidReport};
use crate::status::{self, Failure};

/// How long an agent may take to say who it is.
const FIRST_REPORT_TIMEOUT: Duration = Duration::from_secs(30);
/// Desired states that wait for an agent: only the latest matters, so the queue is in the dispatcher.
const MAX_WAITING_STATES: usize = 1;

type StateSender = mpsc::Sender<Result<v1::DesiredState, Status>>;

/// The service.
#[derive(Clone, Debug)]
pub struct FleetService {
    dispatcher: Arc<Dispatcher>,
}

impl FleetService {
    /// Serves this dispatcher.
    #[must_use]
    pub const fn new(dispatcher: Arc<Dispatcher>) -> Self {
        Self { dispatcher }
    }
}

fn of_report(error: &InvalidReportError) -> Failure {
    match error {
        InvalidReportError::WrongVersion { .. } => status::failed_precondition(error.to_string()),
        InvalidReportError::Field { field, problem } => status::invalid_argument(field, problem),
    }
}

fn of_close(reason: CloseReason) -> Failure {
    match reason {
        CloseReason::Superseded => status::already_exists(reason.to_string()),
        CloseReason::Silent => status::deadline_exceeded(reason.to_string()),
    }
}

#[tonic::async_trait]
impl Fleet for FleetService {
    type SyncStream = ReceiverStream<Result<v1::DesiredState, Status>>;

    async fn sync(
        &self,
        request: Request<Streaming<v1::AgentReport>>,
    ) -> Result<Response<Self::SyncStream>, Status> {
        let mut reports = request.into_inner();
        let (sender, receiver) = mpsc::channel(MAX_WAITING_STATES);
        let dispatcher = Arc::clone(&self.dispatcher);
        // The headers go out at once: an agent may wait for them before it reports.
        tokio::spawn(async move {
            if let Err(failure) = serve(&dispatcher, &mut reports, &sender).await {
                tracing::warn!(
                    reason = failure.message(),
                    "an agent's connection was ended"
                );
                // An agent that is gone needs no reason.
                drop(sender.send(Err(failure.into())).await);
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn stream_output(
        &self,
        request: Request<Streaming<v1::OutputChunk>>,
    ) -> Result<Response<v1::StreamOutputResponse>, Status> {
        let mut chunks = request.into_inner();
        let broken = |status| Status::from(status::broken_stream(&status));
        while let Some(chunk) = chunks.message().await.map_err(broken)? {
            let chunk = ValidChunk::try_from(chunk)
                .map_err(|error| Status::from(status::invalid_argument("stream", error)))?;
            self.dispatcher.output(chunk);
        }
        Ok(Response::new(v1::StreamOutputResponse {}))
    }

    async fn list_agents(
        &self,
        _request: Request<v1::ListAgentsRequest>,
    ) -> Result<Response<v1::ListAgentsResponse>, Status> {
        Ok(Response::new(v1::ListAgentsResponse {
            agents: self.dispatcher.list_agents(),
        }))
    }

    async fn drain_agent(
        &self,
        request: Request<v1::DrainAgentRequest>,
    ) -> Result<Response<v1::DrainAgentResponse>, Status> {
        let v1::DrainAgentRequest { agent_id, drain } = request.into_inner();
        let agent = agent_id
            .parse()
            .map_err(|error| Status::from(status::invalid_argument("agent_id", error)))?;
        if !self.dispatcher.drain_agent(&agent, drain) {
            return Err(status::not_found(format!("no agent `{agent_id}` is known")).into());
        }
        Ok(Response::new(v1::DrainAgentResponse {}))
    }
}

/// Serves one connection over whatever transport carries its messages, until the agent ends it.
///
/// # Errors
/// What to tell the agent.
#[cfg(feature = "testing")]
pub async fn serve_connection(
    dispatcher: &Arc<Dispatcher>,
    mut reports: impl Stream<Item = Result<v1::AgentReport, Status>> + Unpin,
    states: mpsc::Sender<Result<v1::DesiredState, Status>>,
) -> Result<(), Status> {
    Ok(serve(dispatcher, &mut reports, &states).await?)
}

/// Serves one connection until the agent ends it; an error is what to tell the agent.
async fn serve(
    dispatcher: &Arc<Dispatcher>,
    reports: &mut (impl Stream<Item = Result<v1::AgentReport, Status>> + Unpin),
    states: &StateSender,
) -> Result<(), Failure> {
    let first = tokio::time::timeout(FIRST_REPORT_TIMEOUT, reports.next())
        .await
        .map_err(|_| {
            status::deadline_exceeded(format!("no report came within {FIRST_REPORT_TIMEOUT:?}"))
        })?;
    let Some(first) = first else {
        return Ok(());
    };
    let first = first.map_err(|status| status::broken_stream(&status))?;
    let first = ValidReport::try_from(first).map_err(|error| of_report(&error))?;
    if !first.has_offer() {
        return Err(status::invalid_argument(
            "offer",
            "must be set in the first report",
        ));
    }
    let identity = (first.agent.clone(), first.incarnation.clone());
    let connection = dispatcher.connect(&identity.0, &identity.1);
    let mut sequence = first.sequence;
    connection.report(first).map_err(of_close)?;
    let (reporter, mut listener) = connection.split();
    let sending = async {
        loop {
            let state = listener.desired().await.map_err(of_close)?;
            if states.send(Ok(state)).await.is_err() {
                return Ok(());
            }
        }
    };
    let receiving = async {
        while let Some(report) = reports.next().await {
            let report = report.map_err(|status| status::broken_stream(&status))?;
            let report = ValidReport::try_from(report).map_err(|error| of_report(&error))?;
            if (&report.agent, &report.incarnation) != (&identity.0, &identity.1) {
                let text = "must stay the same for a connection";
                return Err(status::invalid_argument("agent_id", text));
            }
            if report.sequence <= sequence {
                let text = format!("{} does not follow {sequence}", report.sequence);
                return Err(status::invalid_argument("sequence", text));
            }
            sequence = report.sequence;
            reporter.report(report).map_err(of_close)?;
        }
        Ok(())
    };
    // Whichever ends first ends the connection; `reporter` tells the scheduler when it is dropped. Why it
    // was ended from here is known to `sending` alone, so that one is asked first.
    tokio::select! {
        biased;
        ended = sending => ended,
        ended = receiving => ended,
    }
}

#[cfg(test)]
mod tests;
