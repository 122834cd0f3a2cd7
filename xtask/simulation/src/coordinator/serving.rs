//! How agents' connections are served.

use futures::StreamExt as _;
use regatta_server::dispatch::ValidReport;
use regatta_server::fleet_service::serve_connection;
use regatta_wire::v1;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::Services;
use crate::said::{Link, Said, SaidQueue};

type Reports = UnboundedReceiverStream<Result<v1::AgentReport, tonic::Status>>;

/// Serves a connection as the fleet's service does.
pub(super) async fn serve_stream(
    services: Services,
    said: SaidQueue,
    link: Link,
    reports: Reports,
) {
    let (states, mut spoken) = mpsc::channel(1);
    let speaker = said.clone();
    let speaking = async move {
        while let Some(Ok(state)) = spoken.recv().await {
            speaker.say(Said::State(link, Box::new(state)));
        }
    };
    let serving = serve_connection(&services.dispatcher, reports, states);
    let (ended, ()) = tokio::join!(serving, speaking);
    if let Err(status) = ended {
        said.say(Said::HungUp(link, status.message().to_owned()));
    }
}

/// Serves a connection whose messages lose their order: the dispatcher has to cope by itself.
pub(super) async fn serve_datagrams(
    services: Services,
    said: SaidQueue,
    link: Link,
    reports: Reports,
) {
    let reports = reports.filter_map(async |report| {
        let report = report.ok()?;
        ValidReport::try_from(report).ok()
    });
    let mut reports = std::pin::pin!(reports);
    let Some(first) = reports.next().await else {
        return;
    };
    let connection = services
        .dispatcher
        .connect(&first.agent, &first.incarnation);
    if let Err(reason) = connection.report(first) {
        return said.say(Said::HungUp(link, reason.to_string()));
    }
    let (reporter, mut listener) = connection.split();
    let speaker = said.clone();
    let speaking = async move {
        loop {
            match listener.desired().await {
                Ok(state) => speaker.say(Said::State(link, Box::new(state))),
                Err(reason) => return speaker.say(Said::HungUp(link, reason.to_string())),
            }
        }
    };
    let listening = async move {
        while let Some(report) = reports.next().await {
            if reporter.report(report).is_err() {
                return;
            }
        }
    };
    tokio::select! {
        biased;
        () = speaking => {}
        () = listening => {}
    }
}
