//! `regatta.v1.Runs` over gRPC.

use std::sync::Arc;

use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use regatta_cas::{BlobRange, BlobStore};
use regatta_ledger::RunRecord;
use regatta_model::{Digest, TenantId};
use regatta_wire::convert::timestamp_to_wire;
use regatta_wire::v1::run_event::Event;
use regatta_wire::v1::runs_server::Runs;
use regatta_wire::{reapi, v1};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::event;
use super::registry::{FindRunError, RunRegistry, SubmitRunError};
use crate::status::{self, Failure, with_sources};

/// Pieces of a log that wait for their reader.
const MAX_WAITING_CHUNKS: usize = 8;

/// The service.
#[derive(Clone, Debug)]
pub struct RunsService {
    registry: Arc<RunRegistry>,
}

impl RunsService {
    /// Serves these runs.
    #[must_use]
    pub const fn new(registry: Arc<RunRegistry>) -> Self {
        Self { registry }
    }
}

fn of_submit(error: &SubmitRunError) -> Failure {
    let text = with_sources(error);
    match error {
        SubmitRunError::Plan(plan) => status::invalid_argument(&plan.field(), text),
        SubmitRunError::MissingBlobs { missing } => status::missing_blobs("the run", missing),
        SubmitRunError::Inputs(_) => status::failed_precondition(text),
        SubmitRunError::TooMany { .. } => {
            status::resource_exhausted(text, status::DEFAULT_RETRY_DELAY)
        }
        SubmitRunError::Ledger(_) => status::unavailable(text, status::DEFAULT_RETRY_DELAY),
    }
}

fn of_find(error: &FindRunError) -> Failure {
    match error {
        FindRunError::Unknown { .. } => status::not_found(error.to_string()),
        FindRunError::Ledger(error) => of_ledger(error),
    }
}

/// The ledger's error for somebody who called.
pub(crate) fn of_ledger(error: &regatta_ledger::LedgerError) -> Failure {
    status::unavailable(error.to_string(), status::DEFAULT_RETRY_DELAY)
}

#[tonic::async_trait]
impl Runs for RunsService {
    type WatchRunStream = BoxStream<'static, Result<v1::RunEvent, Status>>;
    type ReadLogsStream = ReceiverStream<Result<v1::LogChunk, Status>>;

    async fn submit_run(
        &self,
        request: Request<v1::SubmitRunRequest>,
    ) -> Result<Response<v1::SubmitRunResponse>, Status> {
        let spec = request
            .into_inner()
            .spec
            .ok_or_else(|| Status::from(status::invalid_argument("spec", "is not set")))?;
        let (run, warnings) = self
            .registry
            .submit(spec)
            .await
            .map_err(|error| Status::from(of_submit(&error)))?;
        Ok(Response::new(v1::SubmitRunResponse {
            run_id: run.to_string(),
            warnings,
        }))
    }

    async fn watch_run(
        &self,
        request: Request<v1::WatchRunRequest>,
    ) -> Result<Response<Self::WatchRunStream>, Status> {
        let v1::WatchRunRequest {
            run_id,
            after_sequence,
        } = request.into_inner();
        let events = self
            .registry
            .watch(&run_id, after_sequence)
            .await
            .map_err(|error| Status::from(of_find(&error)))?;
        let events = events.map_err(|error| Status::from(of_ledger(&error)));
        Ok(Response::new(events.boxed()))
    }

    async fn cancel_run(
        &self,
        request: Request<v1::CancelRunRequest>,
    ) -> Result<Response<v1::CancelRunResponse>, Status> {
        let run = request.into_inner().run_id;
        self.registry
            .cancel(&run)
            .await
            .map_err(|error| Status::from(of_find(&error)))?;
        Ok(Response::new(v1::CancelRunResponse {}))
    }

    async fn list_runs(
        &self,
        request: Request<v1::ListRunsRequest>,
    ) -> Result<Response<v1::ListRunsResponse>, Status> {
        let v1::ListRunsRequest {
            instance_name,
            limit,
            active_only,
        } = request.into_inner();
        let tenant: TenantId = instance_name
            .parse()
            .map_err(|error| Status::from(status::invalid_argument("instance_name", error)))?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let found = self
            .registry
            .list(tenant, limit, active_only)
            .await
            .map_err(|error| Status::from(of_ledger(&error)))?;
        Ok(Response::new(v1::ListRunsResponse {
            runs: found.iter().map(summary).collect(),
        }))
    }

    async fn read_logs(
        &self,
        request: Request<v1::ReadLogsRequest>,
    ) -> Result<Response<Self::ReadLogsStream>, Status> {
        let request = request.into_inner();
        let logs = self.find_logs(&request).await?;
        let blobs = self.registry.blobs();
        let (sender, receiver) = mpsc::channel(MAX_WAITING_CHUNKS);
        tokio::spawn(async move {
            for log in logs {
                // Nobody reads any more.
                if !log.send(blobs.as_ref(), &sender).await {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

impl RunsService {
    /// The outputs that a request asks for, from what the run's events say so far.
    async fn find_logs(&self, request: &v1::ReadLogsRequest) -> Result<Vec<Log>, Status> {
        let mut logs = Vec::new();
        let mut known = request.job.is_empty();
        let mut last = 0;
        loop {
            let events = self.registry.events_so_far(&request.run_id, last).await;
            let events = events.map_err(|error| Status::from(of_find(&error)))?;
            let Some(event) = events.last() else { break };
            last = event.sequence;
            for event in events.into_iter().filter_map(|event| event.event) {
                known |= take_logs(request, event, &mut logs);
            }
        }
        if !known {
            let text = format!("run `{}` has no job `{}`", request.run_id, request.job);
            return Err(status::not_found(text).into());
        }
        if logs.is_empty() && !request.test_id.is_empty() {
            let text = format!("no output of test `{}` is known", request.test_id);
            return Err(status::not_found(text).into());
        }
        Ok(logs)
    }
}

/// Takes the outputs that an event tells of; whether it tells of the job that is asked for.
fn take_logs(request: &v1::ReadLogsRequest, event: Event, logs: &mut Vec<Log>) -> bool {
    match event {
        Event::JobStarted(started) => started.job == request.job,
        Event::TestsFinished(finished) => {
            let wanted = finished
                .results
                .into_iter()
                .filter(|it| wants_test(request, it));
            logs.extend(wanted.flat_map(Log::of_test));
            false
        }
        Event::JobFinished(finished) => {
            let known = finished.job == request.job;
            if wants_job(request, &finished) {
                logs.extend(Log::of_job(finished));
            }
            known
        }
        Event::RunStarted(_)
        | Event::SuitePlanned(_)
        | Event::TestRetried(_)
        | Event::JobOutput(_)
        | Event::RunFinished(_)
        | Event::InfrastructureRetry(_) => false,
    }
}

fn wants_test(request: &v1::ReadLogsRequest, result: &v1::TestResult) -> bool {
    let job = request.job.is_empty() || request.job == result.job;
    let test = if request.test_id.is_empty() {
        result.status() == v1::TestStatus::Failed
    } else {
        request.test_id == result.test_id
    };
    job && test
}

fn wants_job(request: &v1::ReadLogsRequest, finished: &v1::JobFinished) -> bool {
    request.test_id.is_empty() && (request.job.is_empty() || request.job == finished.job)
}

/// One output.
struct Log {
    head: v1::LogChunk,
    digest: Option<reapi::Digest>,
    inline: bytes::Bytes,
}

impl Log {
    fn new(
        (job, test_id): (&str, &str),
        stream: v1::OutputStream,
        digest: Option<reapi::Digest>,
        inline: bytes::Bytes,
    ) -> Self {
        let head = v1::LogChunk {
            job: job.to_owned(),
            test_id: test_id.to_owned(),
            stream: stream.into(),
            ..Default::default()
        };
        Self {
            head,
            digest,
            inline,
        }
    }

    fn of_test(result: v1::TestResult) -> [Self; 2] {
        let name = (result.job.as_str(), result.test_id.as_str());
        let (out, err) = (v1::OutputStream::Stdout, v1::OutputStream::Stderr);
        [
            Self::new(
                name,
                out,
                result.stdout_digest.clone(),
                result.stdout_tail.clone(),
            ),
            Self::new(
                name,
                err,
                result.stderr_digest.clone(),
                result.stderr_tail.clone(),
            ),
        ]
    }

    fn of_job(finished: v1::JobFinished) -> Vec<Self> {
        let Some(result) = finished.result else {
            return Vec::new();
        };
        let name = (finished.job.as_str(), "");
        let (out, err) = (v1::OutputStream::Stdout, v1::OutputStream::Stderr);
        vec![
            Self::new(name, out, result.stdout_digest, result.stdout_raw),
            Self::new(name, err, result.stderr_digest, result.stderr_raw),
        ]
    }

    /// Sends it piece by piece, from the store if it is there; whether anybody reads.
    async fn send(
        self,
        blobs: &dyn BlobStore,
        reader: &mpsc::Sender<Result<v1::LogChunk, Status>>,
    ) -> bool {
        let digest = self
            .digest
            .as_ref()
            .and_then(|digest| Digest::try_from(digest).ok());
        let Some(digest) = digest.filter(|digest| !digest.is_empty_blob()) else {
            let data = self.inline;
            return data.is_empty()
                || reader
                    .send(Ok(v1::LogChunk { data, ..self.head }))
                    .await
                    .is_ok();
        };
        let mut body = match blobs.get(&digest, BlobRange::ALL).await {
            Ok(body) => body,
            Err(error) => {
                return reader
                    .send(Err(status::of_read(&error).into()))
                    .await
                    .is_ok();
            }
        };
        while let Some(piece) = body.next().await {
            let chunk = piece
                .map(|data| v1::LogChunk {
                    data,
                    ..self.head.clone()
                })
                .map_err(|error| status::of_read(&error).into());
            if reader.send(chunk).await.is_err() {
                return false;
            }
        }
        true
    }
}

fn summary(record: &RunRecord) -> v1::RunSummary {
    let (new, end) = (&record.new, record.end.as_ref());
    v1::RunSummary {
        run_id: new.run.to_string(),
        description: new.description.clone(),
        commit: new.commit.clone(),
        branch: new.branch.clone(),
        submitted_at: Some(timestamp_to_wire(new.submitted_at)),
        finished_at: end.map(|end| timestamp_to_wire(end.finished_at)),
        verdict: end
            .map_or(v1::Verdict::Unspecified, |end| event::verdict(end.verdict))
            .into(),
        counts: end.map(|end| event::counts(&end.counts)),
    }
}
