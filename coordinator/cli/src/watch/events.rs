//! The events of a run, across broken connections.

use regatta_wire::v1::runs_client::RunsClient;
use regatta_wire::v1::{self, run_event::Event};
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use crate::patience::{GIVE_UP_AFTER, Patience};

/// Why there are no more events though the run has not ended.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The coordinator has not answered for long, or cannot store what it is to show. The run may go on: watch it
    /// again later.
    #[error(
        "nothing of the run could be had from the coordinator for {} s: {detail}", GIVE_UP_AFTER.as_secs()
    )]
    Unreachable {
        /// The last error.
        detail: String,
    },
    /// The coordinator knows no such run, or no longer. Where somebody named it, name another.
    #[error("the coordinator has no such run: {detail}")]
    Unknown {
        /// What it said.
        detail: String,
    },
    /// The coordinator refuses. Fix the request.
    #[error("the coordinator refuses to show the run: {detail}")]
    Refused {
        /// What it said.
        detail: String,
    },
    /// Events are missing. Report it.
    #[error("event {expected} of the run is missing, {found} came instead; please report this")]
    Gap {
        /// The number that was due.
        expected: u64,
        /// The number that came.
        found: u64,
    },
    /// Something cannot be written here.
    #[error("the report cannot be written: {0}")]
    Report(#[from] std::io::Error),
}

/// The events of one run in order, each once; it reconnects by itself.
#[derive(Debug)]
pub struct RunEvents {
    client: RunsClient<Channel>,
    run_id: String,
    seen: u64,
    ended: bool,
    stream: Option<Streaming<v1::RunEvent>>,
    /// With a coordinator from which nothing comes.
    patience: Patience,
}

impl RunEvents {
    /// The events of `run_id` from its first.
    #[must_use]
    pub fn new(client: RunsClient<Channel>, run_id: String) -> Self {
        Self {
            client,
            run_id,
            seen: 0,
            ended: false,
            stream: None,
            patience: Patience::default(),
        }
    }

    /// The next event; `None` after the run's last. Dropping the future loses nothing.
    ///
    /// # Errors
    /// The coordinator does not answer for long, knows no such run, or refuses.
    pub async fn next(&mut self) -> Result<Option<v1::RunEvent>, WatchError> {
        while !self.ended {
            match self.receive().await {
                Ok(Some(event)) => {
                    if let Some(event) = self.accept(event)? {
                        return Ok(Some(event));
                    }
                }
                Ok(None) => {
                    self.wait_after(&Status::unavailable("the stream ended early"))
                        .await?
                }
                Err(status) => self.wait_after(&status).await?,
            }
        }
        Ok(None)
    }

    async fn receive(&mut self) -> Result<Option<v1::RunEvent>, Status> {
        let stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.connect().await?,
        };
        self.stream.insert(stream).message().await
    }

    async fn connect(&mut self) -> Result<Streaming<v1::RunEvent>, Status> {
        let request = v1::WatchRunRequest {
            run_id: self.run_id.clone(),
            after_sequence: self.seen,
        };
        Ok(self.client.watch_run(request).await?.into_inner())
    }

    /// Takes an event if it is the next one; one that is known already is left out.
    fn accept(&mut self, event: v1::RunEvent) -> Result<Option<v1::RunEvent>, WatchError> {
        if event.sequence <= self.seen {
            return Ok(None);
        }
        if event.sequence != self.seen + 1 {
            return Err(WatchError::Gap {
                expected: self.seen + 1,
                found: event.sequence,
            });
        }
        self.seen = event.sequence;
        self.patience = Patience::default();
        self.ended = matches!(event.event, Some(Event::RunFinished(_)));
        Ok(Some(event))
    }

    async fn wait_after(&mut self, status: &Status) -> Result<(), WatchError> {
        self.stream = None;
        let detail = status.message().to_owned();
        if status.code() == Code::NotFound {
            return Err(WatchError::Unknown { detail });
        }
        if !is_transient(status.code()) {
            return Err(WatchError::Refused { detail });
        }
        if self.patience.is_over() {
            return Err(WatchError::Unreachable { detail });
        }
        if self.patience.is_whole() {
            tracing::warn!(
                run = self.run_id,
                detail,
                "the coordinator is away or cannot go on; the run is followed again once it can"
            );
        }
        self.patience.pause().await;
        Ok(())
    }
}

/// Whether trying again may help.
fn is_transient(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable
            | Code::Unknown
            | Code::Internal
            | Code::Cancelled
            | Code::ResourceExhausted
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic::transport::Endpoint;

    use super::*;
    use crate::exit_code::ExitCode;
    use crate::session::{watch_failure, watch_failure_of_named};

    fn events_from_nowhere() -> RunEvents {
        let nowhere = Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
        RunEvents::new(RunsClient::new(nowhere), "r".to_owned())
    }

    #[tokio::test]
    async fn a_run_that_is_not_known_is_its_namers_mistake() {
        let gone = || async {
            let status = Status::not_found("no run `r`");
            let waited = events_from_nowhere().wait_after(&status).await;
            waited.expect_err("nothing comes of waiting")
        };
        let failure = watch_failure_of_named("r", gone().await);
        assert_eq!(failure.code, ExitCode::BadConfiguration);
        assert_eq!(failure.to_string(), "cannot read the run: no run `r`");
        let failure = watch_failure("r", gone().await);
        assert_eq!(failure.code, ExitCode::Infrastructure, "it was submitted");
    }

    #[tokio::test]
    async fn a_coordinator_that_shows_nothing_for_long_is_left_with_what_it_said() {
        let mut events = events_from_nowhere();
        events.patience = Patience::of(Duration::ZERO);
        let why = Status::unavailable("the disk is full");
        let waited = events.wait_after(&why).await;
        assert!(waited.is_ok(), "it may recover: {waited:?}");
        let error = events.wait_after(&why).await.expect_err("it is enough");
        assert!(error.to_string().contains("the disk is full"), "{error}");
        let failure = watch_failure("r", error);
        assert_eq!(failure.code, ExitCode::CoordinatorUnreachable);
        let text = failure.to_string();
        assert!(text.contains("`regatta logs r`"), "{text}");
    }
}
