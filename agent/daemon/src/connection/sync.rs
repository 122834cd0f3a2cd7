//! Connecting, exchanging reports for desired states, and connecting again.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use regatta_agent_core::{ConnectionId, Event};
use regatta_cas::ServerAddresses;
use regatta_model::{AgentId, Backoff};
use regatta_wire::v1;
use regatta_wire::v1::fleet_client::FleetClient;
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::translate::desired_from_wire;
use crate::error::AgentError;
use crate::lease_spec::LeaseDefaults;
use crate::occurrence::{Occurrence, OccurrenceSender};

/// The largest desired state that is taken, in bytes: as much as the coordinator sends. One that is
/// refused would be sent again on the next connection, and on every one after that.
const MAX_DESIRED_STATE_BYTES: usize = 64 << 20;
/// The largest report that is sent, in bytes: as much as the coordinator takes.
const MAX_REPORT_BYTES: usize = 32 << 20;
/// How long to wait before the first and between later attempts to connect again.
const RECONNECT_PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// What it takes to connect.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionSettings {
    pub(crate) coordinators: ServerAddresses,
    pub(crate) endpoint: Endpoint,
    pub(crate) agent: AgentId,
    pub(crate) defaults: LeaseDefaults,
}

/// The way out of an open connection: one report at a time.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    pub(crate) id: ConnectionId,
    pub(crate) reports: mpsc::Sender<v1::AgentReport>,
    /// Whether the coordinator has just refused a report, which may have said what only later releases know.
    pub(crate) in_first_words: bool,
    /// Told when the report has left.
    pub(crate) sent: Arc<Notify>,
}

/// Keeps a connection up until the driver is gone or the coordinator refuses this agent for good.
pub(crate) async fn keep_connected(settings: ConnectionSettings, driver: OccurrenceSender) {
    let (first, longest) = RECONNECT_PAUSES;
    let mut backoff = Backoff::new(first, longest);
    let mut was_refused = false;
    for number in 1.. {
        let id = ConnectionId(number);
        let connecting = settings.coordinators.connect(&settings.endpoint);
        match connecting.await {
            Ok(channel) => {
                let opened = (id, was_refused);
                let ended = connection(&settings, channel, opened, &driver, &mut backoff).await;
                if driver
                    .send(Occurrence::Core(Event::ConnectionLost(id)))
                    .await
                    .is_err()
                {
                    return;
                }
                if let Some(fatal) = fatal_error(&ended, &settings.agent) {
                    // If the driver is gone, nobody is left to tell.
                    driver.send(Occurrence::Refused(fatal)).await.ok();
                    return;
                }
                was_refused = ended.code() == Code::InvalidArgument;
                if was_refused {
                    tracing::warn!(
                        status = %ended,
                        "the coordinator does not understand this agent, and is told less from now on: upgrade it if it is of an earlier release"
                    );
                } else {
                    tracing::warn!(status = %ended, "the connection to the coordinator ended");
                }
            }
            Err(error) => {
                tracing::warn!(error = %chain(&error), "the coordinator cannot be reached");
            }
        }
        tokio::time::sleep(backoff.delay(randomness())).await;
    }
}

/// A number nobody else has.
pub(crate) fn randomness() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().0
}

/// One connection, from its first report to its end.
async fn connection(
    settings: &ConnectionSettings,
    channel: Channel,
    (id, in_first_words): (ConnectionId, bool),
    driver: &OccurrenceSender,
    backoff: &mut Backoff,
) -> Status {
    let (reports, outgoing) = mpsc::channel(1);
    let sent = Arc::new(Notify::new());
    let opened = Outgoing {
        id,
        reports,
        in_first_words,
        sent: Arc::clone(&sent),
    };
    if driver.send(Occurrence::Opened(opened)).await.is_err() {
        return Status::cancelled("the agent ends");
    }
    let outgoing = ReceiverStream::new(outgoing).inspect(move |_| sent.notify_one());
    let mut client = FleetClient::new(channel)
        .max_decoding_message_size(MAX_DESIRED_STATE_BYTES)
        .max_encoding_message_size(MAX_REPORT_BYTES);
    let mut incoming = match client.sync(outgoing).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => return status,
    };
    loop {
        match incoming.message().await {
            Ok(Some(state)) => {
                backoff.reset();
                let state = desired_from_wire(state, &settings.defaults);
                if driver
                    .send(Occurrence::Core(Event::Desired(id, state)))
                    .await
                    .is_err()
                {
                    return Status::cancelled("the agent ends");
                }
            }
            Ok(None) => return Status::unavailable("the coordinator ended the connection"),
            Err(status) => return status,
        }
    }
}

/// What connecting again cannot mend.
fn fatal_error(status: &Status, agent: &AgentId) -> Option<AgentError> {
    let detail = status.message().to_owned();
    match status.code() {
        Code::FailedPrecondition => Some(AgentError::Refused { detail }),
        Code::AlreadyExists => Some(AgentError::Superseded {
            agent: agent.clone(),
            detail,
        }),
        _ => None,
    }
}

/// An error with everything that caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
