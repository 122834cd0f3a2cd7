//! From a run's first event to its last, or to the second Ctrl-C.

use regatta_wire::v1::runs_client::RunsClient;
use regatta_wire::v1::{self, run_event::Event};
use tokio::task::JoinHandle;
use tonic::transport::Channel;

use super::{EventSink, RunEvents, Tally, WatchError};
use crate::exit_code::ExitCode;
use crate::interrupts::Interrupts;

/// How following a run ended.
#[derive(Clone, PartialEq, Debug)]
pub enum Ended {
    /// The run ended.
    Finished(v1::RunFinished),
    /// Somebody did not want to wait for that.
    Left,
}

impl Ended {
    /// What the process ends with, given how the run's jobs ended.
    #[must_use]
    pub fn exit_code(&self, tally: &Tally) -> ExitCode {
        let finished = match self {
            Self::Finished(finished) => finished,
            Self::Left => return ExitCode::Cancelled,
        };
        match finished.verdict() {
            v1::Verdict::NotReleasable if finished.cancelled && !has_failures(finished) => {
                ExitCode::Cancelled
            }
            v1::Verdict::NotReleasable if only_builds_failed(tally) => ExitCode::BuildFailed,
            v1::Verdict::NotReleasable => ExitCode::TestsFailed,
            v1::Verdict::Releasable => ExitCode::Good,
            v1::Verdict::Unknown | v1::Verdict::Unspecified if finished.cancelled => {
                ExitCode::Cancelled
            }
            v1::Verdict::Unknown | v1::Verdict::Unspecified => ExitCode::Infrastructure,
        }
    }
}

/// Whether a build job failed, and nothing that tests.
fn only_builds_failed(tally: &Tally) -> bool {
    tally.failed_builds > 0 && tally.failed_suites == 0
}

fn has_failures(finished: &v1::RunFinished) -> bool {
    finished.counts.is_some_and(|counts| counts.failed > 0)
}

/// Gives every event of a run to every sink. The first interrupt cancels the run and waits for its last
/// event, the second leaves at once.
///
/// # Errors
/// The coordinator does not answer for long or refuses, or a sink cannot write.
pub async fn follow(
    client: RunsClient<Channel>,
    run_id: &str,
    sinks: &mut [&mut dyn EventSink],
    interrupts: &mut Interrupts,
) -> Result<Ended, WatchError> {
    let ended = follow_events(client, run_id, sinks, interrupts).await;
    // However it ended: what is known of the run is written down, by every sink that can.
    let mut finished = Ok(());
    for sink in sinks {
        finished = finished.and(sink.finish());
    }
    let ended = ended?;
    finished?;
    Ok(ended)
}

async fn follow_events(
    client: RunsClient<Channel>,
    run_id: &str,
    sinks: &mut [&mut dyn EventSink],
    interrupts: &mut Interrupts,
) -> Result<Ended, WatchError> {
    let mut events = RunEvents::new(client.clone(), run_id.to_owned());
    let mut cancelling: Option<JoinHandle<bool>> = None;
    loop {
        let event = tokio::select! {
            event = events.next() => event?,
            () = interrupts.next() => {
                if let Some(cancelling) = cancelling {
                    let is_told = cancelling.is_finished() && cancelling.await.unwrap_or(false);
                    if !is_told {
                        tracing::warn!(
                            "the coordinator has not said that the run is cancelled, it may go on; \
                             `regatta cancel {run_id}` stops it"
                        );
                    }
                    return Ok(Ended::Left);
                }
                tracing::warn!(run = run_id, "cancelling; interrupt again to leave at once");
                cancelling = Some(cancel_in_background(client.clone(), run_id));
                continue;
            }
        };
        let Some(event) = event else {
            return Ok(Ended::Left);
        };
        for sink in sinks.iter_mut() {
            sink.event(&event)?;
        }
        if let Some(Event::RunFinished(finished)) = event.event {
            return Ok(Ended::Finished(finished));
        }
    }
}

/// Cancels without waiting, so that events and a second interrupt are still seen; whether it did.
fn cancel_in_background(mut client: RunsClient<Channel>, run_id: &str) -> JoinHandle<bool> {
    let request = v1::CancelRunRequest {
        run_id: run_id.to_owned(),
    };
    tokio::spawn(async move {
        let cancelled = client.cancel_run(request).await;
        if let Err(status) = &cancelled {
            tracing::error!("the run could not be cancelled: {}", status.message());
        }
        cancelled.is_ok()
    })
}

#[cfg(test)]
mod tests;
