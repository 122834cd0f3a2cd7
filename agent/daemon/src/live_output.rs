//! Output on its way to whoever watches. Losing some of it loses nothing: results have all of it.

use std::time::Duration;

use regatta_wire::v1;
use regatta_wire::v1::fleet_client::FleetClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

/// How many chunks wait to be sent; what does not fit is dropped.
const QUEUED_CHUNKS: usize = 64;
/// How long to send nothing after the coordinator did not take it.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Where live output goes in.
pub(crate) type LiveSender = mpsc::Sender<v1::OutputChunk>;

/// A queue for live output.
pub(crate) fn live_queue() -> (LiveSender, mpsc::Receiver<v1::OutputChunk>) {
    mpsc::channel(QUEUED_CHUNKS)
}

/// Sends what comes out of the queue until its senders are gone.
pub(crate) async fn send_live_output(channel: Channel, mut queue: mpsc::Receiver<v1::OutputChunk>) {
    while let Some(first) = queue.recv().await {
        if let Err(status) = send_stream(channel.clone(), first, &mut queue).await {
            tracing::debug!(%status, "live output is not taken");
            tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
            while queue.try_recv().is_ok() {}
        }
    }
}

/// One stream, from its first chunk until it fails or the queue ends.
async fn send_stream(
    channel: Channel,
    first: v1::OutputChunk,
    queue: &mut mpsc::Receiver<v1::OutputChunk>,
) -> Result<(), tonic::Status> {
    let (sender, stream) = mpsc::channel(1);
    let mut client = FleetClient::new(channel);
    let call = client.stream_output(ReceiverStream::new(stream));
    let feed = async move {
        let mut next = Some(first);
        while let Some(chunk) = next {
            if sender.send(chunk).await.is_err() {
                return;
            }
            next = queue.recv().await;
        }
    };
    tokio::pin!(call, feed);
    tokio::select! {
        answer = &mut call => answer.map(drop),
        () = &mut feed => call.await.map(drop),
    }
}
