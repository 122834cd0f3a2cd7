use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures::Stream;
use regatta_wire::v1::runs_server::{Runs, RunsServer};
use tokio::sync::Notify;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use super::super::recorded;
use super::*;

/// A coordinator that shows a recorded run, in pieces if it is told to.
#[derive(Debug, Clone, Default)]
struct RecordedRuns {
    events: Vec<v1::RunEvent>,
    /// How many events come before the connection breaks.
    piece: Option<usize>,
    /// The run ends only once it is cancelled.
    wait: bool,
    cancelled: Arc<Notify>,
    asked_after: Arc<Mutex<Vec<u64>>>,
    cancels: Arc<AtomicUsize>,
}

type EventStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Runs for RecordedRuns {
    type WatchRunStream = EventStream<v1::RunEvent>;
    type ReadLogsStream = EventStream<v1::LogChunk>;
    type GetVerdictStream = EventStream<v1::BundlePiece>;

    async fn submit_run(
        &self,
        _: Request<v1::SubmitRunRequest>,
    ) -> Result<Response<v1::SubmitRunResponse>, Status> {
        Err(Status::unimplemented("not recorded"))
    }

    async fn watch_run(
        &self,
        request: Request<v1::WatchRunRequest>,
    ) -> Result<Response<Self::WatchRunStream>, Status> {
        let after = request.into_inner().after_sequence;
        self.asked_after.lock().expect("whole").push(after);
        let rest: Vec<_> = self
            .events
            .iter()
            .filter(|event| event.sequence > after)
            .cloned()
            .map(Ok)
            .collect();
        let Some(piece) = self.piece else {
            let last = rest.len().saturating_sub(usize::from(self.wait));
            let (now, later) = rest.split_at(last);
            let (now, later) = (now.to_vec(), later.to_vec());
            let cancelled = Arc::clone(&self.cancelled);
            let waited = futures::StreamExt::flat_map(
                futures::stream::once(async move { cancelled.notified().await }),
                move |()| tokio_stream::iter(later.clone()),
            );
            return Ok(Response::new(match self.wait {
                true => Box::pin(tokio_stream::iter(now).chain(waited)),
                false => Box::pin(tokio_stream::iter(now)),
            }));
        };
        let broken = rest
            .into_iter()
            .take(piece)
            .chain([Err(Status::unavailable("broken"))]);
        Ok(Response::new(Box::pin(tokio_stream::iter(
            broken.collect::<Vec<_>>(),
        ))))
    }

    async fn plan_run(
        &self,
        _: Request<v1::PlanRunRequest>,
    ) -> Result<Response<v1::PlanRunResponse>, Status> {
        Err(Status::unimplemented("not needed here"))
    }

    async fn cancel_run(
        &self,
        _: Request<v1::CancelRunRequest>,
    ) -> Result<Response<v1::CancelRunResponse>, Status> {
        self.cancels.fetch_add(1, Ordering::SeqCst);
        self.cancelled.notify_one();
        Ok(Response::new(v1::CancelRunResponse {}))
    }

    async fn list_runs(
        &self,
        _: Request<v1::ListRunsRequest>,
    ) -> Result<Response<v1::ListRunsResponse>, Status> {
        Err(Status::unimplemented("not recorded"))
    }

    async fn read_logs(
        &self,
        _: Request<v1::ReadLogsRequest>,
    ) -> Result<Response<Self::ReadLogsStream>, Status> {
        Err(Status::unimplemented("not recorded"))
    }

    async fn list_verdicts(
        &self,
        _: Request<v1::ListVerdictsRequest>,
    ) -> Result<Response<v1::ListVerdictsResponse>, Status> {
        Err(Status::unimplemented("not recorded"))
    }

    async fn get_verdict(
        &self,
        _: Request<v1::GetVerdictRequest>,
    ) -> Result<Response<Self::GetVerdictStream>, Status> {
        Err(Status::unimplemented("not recorded"))
    }

    async fn get_verdict_key(
        &self,
        _: Request<v1::GetVerdictKeyRequest>,
    ) -> Result<Response<v1::GetVerdictKeyResponse>, Status> {
        Err(Status::unimplemented("not recorded"))
    }
}

async fn client_of(runs: RecordedRuns) -> RunsClient<Channel> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(RunsServer::new(runs))
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );
    RunsClient::connect(format!("http://{address}"))
        .await
        .expect("it answers")
}

#[derive(Debug, Default)]
struct Seen {
    sequences: Vec<u64>,
    finished: bool,
}

impl EventSink for Seen {
    fn event(&mut self, event: &v1::RunEvent) -> io::Result<()> {
        self.sequences.push(event.sequence);
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        self.finished = true;
        Ok(())
    }
}

#[tokio::test]
async fn a_broken_connection_loses_and_repeats_nothing() {
    let events = recorded::mixed_run();
    let runs = RecordedRuns {
        events: events.clone(),
        piece: Some(3),
        ..RecordedRuns::default()
    };
    let (_keep, mut interrupts) = Interrupts::channel();
    let mut seen = Seen::default();
    let client = client_of(runs.clone()).await;
    let ended = follow(client, "r", &mut [&mut seen], &mut interrupts)
        .await
        .expect("it ends");
    assert_eq!(ended.exit_code(&Tally::default()), ExitCode::TestsFailed);
    assert_eq!(
        seen.sequences,
        (1..=events.len() as u64).collect::<Vec<_>>()
    );
    assert!(seen.finished);
    assert_eq!(*runs.asked_after.lock().expect("whole"), [0, 3, 6, 9]);
}

#[tokio::test]
async fn the_first_interrupt_cancels_and_waits_for_the_last_event() {
    let mut events = recorded::cached_run();
    if let Some(Event::RunFinished(finished)) =
        events.last_mut().and_then(|last| last.event.as_mut())
    {
        finished.cancelled = true;
        finished.verdict = v1::Verdict::Unknown.into();
    }
    let runs = RecordedRuns {
        events,
        wait: true,
        ..RecordedRuns::default()
    };
    let (interrupt, mut interrupts) = Interrupts::channel();
    interrupt.send(()).await.expect("somebody listens");
    let client = client_of(runs.clone()).await;
    let ended = follow(client, "r", &mut [], &mut interrupts)
        .await
        .expect("it ends");
    assert_eq!(ended.exit_code(&Tally::default()), ExitCode::Cancelled);
    assert_eq!(runs.cancels.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn the_second_interrupt_leaves_at_once() {
    // The run never ends: it is cancelled only through a handle that nobody notifies.
    let mut events = recorded::cached_run();
    events.pop();
    let runs = RecordedRuns {
        events,
        wait: true,
        ..RecordedRuns::default()
    };
    let (interrupt, mut interrupts) = Interrupts::channel();
    let client = client_of(runs).await;
    let mut sinks: [&mut dyn EventSink; 0] = [];
    let (ended, ()) = tokio::join!(follow(client, "r", &mut sinks, &mut interrupts), async {
        for _ in 0..2 {
            interrupt.send(()).await.expect("somebody listens");
        }
    });
    let ended = ended.expect("it ends");
    assert_eq!(ended, Ended::Left);
    assert_eq!(ended.exit_code(&Tally::default()), ExitCode::Cancelled);
}

#[tokio::test]
async fn a_gap_in_the_events_is_an_error() {
    let mut events = recorded::mixed_run();
    events.remove(2);
    let runs = RecordedRuns {
        events,
        ..RecordedRuns::default()
    };
    let (_keep, mut interrupts) = Interrupts::channel();
    let mut seen = Seen::default();
    let client = client_of(runs).await;
    let ended = follow(client, "r", &mut [&mut seen], &mut interrupts).await;
    let error = ended.expect_err("event 3 is missing");
    assert!(seen.finished, "what is known must be written down");
    assert!(
        matches!(
            error,
            WatchError::Gap {
                expected: 3,
                found: 4
            }
        ),
        "{error}"
    );
}

#[test]
fn every_ending_has_its_exit_code() {
    let code = |verdict: v1::Verdict, cancelled, failed| {
        Ended::Finished(v1::RunFinished {
            verdict: verdict.into(),
            cancelled,
            counts: Some(v1::Counts {
                failed,
                ..v1::Counts::default()
            }),
            ..v1::RunFinished::default()
        })
        .exit_code(&Tally::default())
    };
    assert_eq!(code(v1::Verdict::Releasable, false, 0), ExitCode::Good);
    assert_eq!(
        code(v1::Verdict::NotReleasable, false, 1),
        ExitCode::TestsFailed
    );
    assert_eq!(
        code(v1::Verdict::NotReleasable, true, 1),
        ExitCode::TestsFailed
    );
    assert_eq!(
        code(v1::Verdict::NotReleasable, true, 0),
        ExitCode::Cancelled
    );
    assert_eq!(code(v1::Verdict::Unknown, true, 0), ExitCode::Cancelled);
    assert_eq!(
        code(v1::Verdict::Unknown, false, 0),
        ExitCode::Infrastructure
    );
}

#[test]
fn a_failed_build_is_told_from_failed_tests() {
    let code = |events: Vec<v1::RunEvent>| {
        let mut tally = Tally::default();
        for event in &events {
            tally.event(event);
        }
        let finished = tally.finished.clone().expect("it ended");
        Ended::Finished(finished).exit_code(&tally)
    };
    assert_eq!(code(recorded::build_run()), ExitCode::BuildFailed);
    assert_eq!(code(recorded::mixed_run()), ExitCode::TestsFailed);
    let mut both = recorded::mixed_run();
    both.extend(recorded::build_run().into_iter().skip(1));
    assert_eq!(code(both), ExitCode::TestsFailed);
}
