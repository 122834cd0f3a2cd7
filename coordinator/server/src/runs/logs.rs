//! What a run's jobs and tests printed, from what its events say.

use futures::StreamExt as _;
use regatta_cas::{BlobRange, BlobStore};
use regatta_model::Digest;
use regatta_wire::v1::run_event::Event;
use regatta_wire::{reapi, v1};
use tokio::sync::mpsc;
use tonic::Status;

use crate::status;

/// What was asked for is not known. Ask for something else, or later.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum UnknownLogError {
    #[error("run `{run}` has no job `{job}`")]
    Job { run: String, job: String },
    #[error("no output of test `{test}` is known")]
    Test { test: String },
}

/// Looks for what a request asks for in the events of its run.
pub(super) struct LogSearch<'a> {
    request: &'a v1::ReadLogsRequest,
    logs: Vec<Log>,
    /// Whether the job that is asked for has been met.
    known: bool,
}

impl<'a> LogSearch<'a> {
    pub(super) fn new(request: &'a v1::ReadLogsRequest) -> Self {
        Self {
            request,
            logs: Vec::new(),
            known: request.job.is_empty(),
        }
    }

    pub(super) fn take(&mut self, event: Event) {
        match event {
            Event::JobStarted(started) => self.known |= started.job == self.request.job,
            Event::TestsFinished(finished) => {
                for result in finished.results {
                    self.attempt(result, false);
                }
            }
            Event::TestRetried(retried) => {
                if let Some(result) = retried.result {
                    self.attempt(result, true);
                }
            }
            Event::BuildRetried(retried) => {
                if let Some(attempt) = retried.attempt {
                    self.job(attempt, true);
                }
            }
            Event::JobFinished(finished) => self.job(finished, false),
            Event::RunStarted(_)
            | Event::JobLeased(_)
            | Event::SuitePlanned(_)
            | Event::TestSlow(_)
            | Event::JobOutput(_)
            | Event::RunFinished(_)
            | Event::InfrastructureRetry(_)
            | Event::HitsAudited(_)
            | Event::HitsExecuted(_)
            | Event::RunResumed(_)
            | Event::CancelRequested(_)
            | Event::SuiteComplained(_)
            | Event::BatchUnexplained(_)
            | Event::Warning(_) => {}
        }
    }

    pub(super) fn logs(self) -> Result<Vec<Log>, UnknownLogError> {
        let request = self.request;
        if !self.known {
            return Err(UnknownLogError::Job {
                run: request.run_id.clone(),
                job: request.job.clone(),
            });
        }
        if self.logs.is_empty() && !request.test_id.is_empty() {
            return Err(UnknownLogError::Test {
                test: request.test_id.clone(),
            });
        }
        Ok(self.logs)
    }

    fn wants_job(&self, job: &str) -> bool {
        self.request.job.is_empty() || self.request.job == job
    }

    fn job(&mut self, finished: v1::JobFinished, retried: bool) {
        self.known |= finished.job == self.request.job;
        if !self.wants_job(&finished.job) || !self.request.test_id.is_empty() {
            return;
        }
        if finished.attempts > 1 || retried {
            self.logs
                .push(Log::head_of(&attempt_of(&finished), retried));
        }
        self.logs.extend(Log::of_job(finished));
    }

    fn attempt(&mut self, result: v1::TestResult, retried: bool) {
        let named = !self.request.test_id.is_empty();
        if !self.wants_job(&result.job) || named && self.request.test_id != result.test_id {
            return;
        }
        self.logs.push(Log::head_of(&result, retried));
        let has_failed = matches!(
            result.status(),
            v1::TestStatus::Failed | v1::TestStatus::Quarantined
        );
        if named || self.request.all || has_failed {
            self.logs.extend(Log::of_test(result));
        }
    }
}

/// An attempt of a build, told as one of a test.
fn attempt_of(finished: &v1::JobFinished) -> v1::TestResult {
    let status = match finished.status() {
        v1::JobStatus::Passed if finished.attempts > 1 => v1::TestStatus::Flaky,
        v1::JobStatus::Passed => v1::TestStatus::Passed,
        v1::JobStatus::Failed => v1::TestStatus::Failed,
        v1::JobStatus::Cancelled | v1::JobStatus::NotRun => v1::TestStatus::NotRun,
        v1::JobStatus::Unknown | v1::JobStatus::Unspecified => v1::TestStatus::Unspecified,
    };
    v1::TestResult {
        job: finished.job.clone(),
        status: status.into(),
        failure_class: finished.failure_class,
        duration: finished.duration,
        attempts: finished.attempts,
        r#where: finished.r#where.clone(),
        exit_code: finished.result.as_ref().map(|result| result.exit_code),
        // What follows quotes the output, which follows itself.
        message: finished.message.lines().next().unwrap_or_default().into(),
        ..Default::default()
    }
}

/// One output, or what heads it.
pub(super) struct Log {
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

    fn head_of(result: &v1::TestResult, retried: bool) -> Self {
        let attempt = v1::TestResult {
            stdout_tail: bytes::Bytes::new(),
            stderr_tail: bytes::Bytes::new(),
            ..result.clone()
        };
        let head = v1::LogChunk {
            job: result.job.clone(),
            test_id: result.test_id.clone(),
            attempt: Some(attempt),
            retried,
            ..Default::default()
        };
        Self {
            head,
            digest: None,
            inline: bytes::Bytes::new(),
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
    pub(super) async fn send(
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
            return data.is_empty() && self.head.attempt.is_none()
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
