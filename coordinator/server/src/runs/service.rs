//! `regatta.v1.Runs` over gRPC.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use regatta_ledger::VerdictQuery;
use regatta_model::{Digest, TenantId};
use regatta_verdict::{SigningKey, sign_bundle};
use regatta_wire::v1::runs_server::Runs;
use regatta_wire::{reapi, v1};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::given::{Listed, ReadVerdictError};
use super::logs::{Log, LogSearch};
use super::record::summary;
use super::registry::{FindRunError, RunRegistry, SubmitRunError};
use super::verdict::FindVerdictError;
use crate::status::{self, Failure, with_sources};

/// Pieces of a log that wait for their reader.
const MAX_WAITING_CHUNKS: usize = 8;
/// How much of a bundle goes into one message, in bytes.
const BUNDLE_PIECE_BYTES: usize = 256 << 10;

/// The service.
#[derive(Clone, Debug)]
pub struct RunsService {
    registry: Arc<RunRegistry>,
    key: Arc<SigningKey>,
}

impl RunsService {
    /// Serves these runs, and signs what they say with this key.
    #[must_use]
    pub const fn new(registry: Arc<RunRegistry>, key: Arc<SigningKey>) -> Self {
        Self { registry, key }
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
        SubmitRunError::Taken { .. } | SubmitRunError::Forgotten { .. } => {
            status::already_exists(text)
        }
        SubmitRunError::NeverBegan { .. } => status::aborted(text),
        SubmitRunError::Undecided { .. } | SubmitRunError::Ledger(_) => {
            status::unavailable(text, status::DEFAULT_RETRY_DELAY)
        }
    }
}

fn of_find(error: &FindRunError) -> Failure {
    match error {
        FindRunError::Unknown { .. } | FindRunError::Forgotten { .. } => {
            status::not_found(error.to_string())
        }
        FindRunError::NotResumed { .. } | FindRunError::NotDurable(_) => {
            status::unavailable(error.to_string(), status::DEFAULT_RETRY_DELAY)
        }
        FindRunError::Ledger(error) => of_ledger(error),
    }
}

fn of_verdict(error: &FindVerdictError) -> Failure {
    match error {
        FindVerdictError::Run(error) => of_find(error),
        FindVerdictError::NoRun { .. } | FindVerdictError::Forgotten { .. } => {
            status::not_found(error.to_string())
        }
        FindVerdictError::GoesOn { .. }
        | FindVerdictError::Incomplete { .. }
        | FindVerdictError::TooManyRuns { .. } => status::failed_precondition(with_sources(error)),
    }
}

fn of_given(error: &ReadVerdictError) -> Failure {
    let text = with_sources(error);
    match error {
        ReadVerdictError::Ledger(error) => of_ledger(error),
        ReadVerdictError::NeverGiven { .. } | ReadVerdictError::Gone { .. } => {
            status::not_found(text)
        }
        ReadVerdictError::Store(_) => status::unavailable(text, status::DEFAULT_RETRY_DELAY),
    }
}

/// The ledger's error for somebody who called.
pub(crate) fn of_ledger(error: &regatta_ledger::LedgerError) -> Failure {
    status::unavailable(error.to_string(), status::DEFAULT_RETRY_DELAY)
}

#[tonic::async_trait]
impl Runs for RunsService {
    type WatchRunStream = BoxStream<'static, Result<v1::RunEvent, Status>>;
    type GetVerdictStream = BundleStream;
    type ReadLogsStream = ReceiverStream<Result<v1::LogChunk, Status>>;

    async fn submit_run(
        &self,
        request: Request<v1::SubmitRunRequest>,
    ) -> Result<Response<v1::SubmitRunResponse>, Status> {
        let v1::SubmitRunRequest { spec, run_id } = request.into_inner();
        let spec =
            spec.ok_or_else(|| Status::from(status::invalid_argument("spec", "is not set")))?;
        let chosen = (!run_id.is_empty()).then(|| run_id.parse());
        let chosen = chosen
            .transpose()
            .map_err(|error| Status::from(status::invalid_argument("run_id", error)))?;
        let (run, warnings) = self
            .registry
            .submit(chosen, spec)
            .await
            .map_err(|error| Status::from(of_submit(&error)))?;
        Ok(Response::new(v1::SubmitRunResponse {
            run_id: run.to_string(),
            warnings,
        }))
    }

    async fn plan_run(
        &self,
        request: Request<v1::PlanRunRequest>,
    ) -> Result<Response<v1::PlanRunResponse>, Status> {
        let spec = request
            .into_inner()
            .spec
            .ok_or_else(|| Status::from(status::invalid_argument("spec", "is not set")))?;
        let plan = self.registry.plan(spec).await;
        plan.map(Response::new)
            .map_err(|error| Status::from(of_submit(&error)))
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
        let events = events.map_err(|error| Status::from(of_find(&error)));
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
        let tenant = tenant(&instance_name)?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let found = self
            .registry
            .list(tenant, limit, active_only)
            .await
            .map_err(|error| Status::from(of_ledger(&error)))?;
        Ok(Response::new(v1::ListRunsResponse {
            runs: found.iter().map(summary).collect(),
            held: self.registry.held().unwrap_or_default(),
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

    async fn get_verdict(
        &self,
        request: Request<v1::GetVerdictRequest>,
    ) -> Result<Response<Self::GetVerdictStream>, Status> {
        use v1::get_verdict_request::Subject;
        let request = request.into_inner();
        let tenant = tenant(&request.instance_name)?;
        let found = match request.subject {
            Some(Subject::RunId(run)) => self.registry.judgement_of_run(&run).await,
            Some(Subject::Commit(commit)) if commit.is_empty() => {
                return Err(status::invalid_argument("commit", "is empty").into());
            }
            Some(Subject::Commit(commit)) => {
                let of_commit = self.registry.judgement_of_commit(tenant.clone(), commit);
                of_commit.await
            }
            Some(Subject::Bundle(bundle)) => return self.read_given(tenant, &bundle).await,
            None => return Err(status::invalid_argument("subject", "is not set").into()),
        };
        let judgement = found.map_err(|error| Status::from(of_verdict(&error)))?;
        let bundle = Bytes::from(sign_bundle(&judgement, &self.key));
        let signed = (&bundle, &self.key.public());
        let kept = self
            .registry
            .keep_verdict(&tenant, &judgement, signed)
            .await;
        let unkept_reason = kept.err().map(|error| {
            let reason = with_sources(&error);
            tracing::warn!(reason, "a verdict that is given is not kept");
            metrics::counter!("regatta_verdicts_unkept_total").increment(1);
            reason
        });
        Ok(Response::new(in_pieces(
            bundle,
            unkept_reason.unwrap_or_default(),
        )))
    }

    async fn list_verdicts(
        &self,
        request: Request<v1::ListVerdictsRequest>,
    ) -> Result<Response<v1::ListVerdictsResponse>, Status> {
        use v1::list_verdicts_request::Subject;
        let request = request.into_inner();
        let (mut commit, mut run) = (None, None);
        match request.subject {
            Some(Subject::RunId(id)) => {
                let parsed = id.parse();
                let parsed = parsed.map_err(|error| status::invalid_argument("run_id", error));
                run = Some(parsed.map_err(Status::from)?);
            }
            Some(Subject::Commit(id)) if !id.is_empty() => commit = Some(id),
            Some(Subject::Commit(_)) => {
                return Err(status::invalid_argument("commit", "is empty").into());
            }
            None => return Err(status::invalid_argument("subject", "is not set").into()),
        }
        let query = VerdictQuery {
            tenant: Some(tenant(&request.instance_name)?),
            commit,
            run,
            bundle: None,
            limit: usize::try_from(request.limit).unwrap_or(usize::MAX),
        };
        let listed = self.registry.given_verdicts(query).await;
        let listed = listed.map_err(|error| Status::from(of_given(&error)))?;
        Ok(Response::new(v1::ListVerdictsResponse {
            verdicts: listed.iter().map(Listed::to_wire).collect(),
        }))
    }

    async fn get_verdict_key(
        &self,
        _request: Request<v1::GetVerdictKeyRequest>,
    ) -> Result<Response<v1::GetVerdictKeyResponse>, Status> {
        Ok(Response::new(v1::GetVerdictKeyResponse {
            public_key: self.key.public().to_pem(),
        }))
    }
}

type BundleStream = BoxStream<'static, Result<v1::BundlePiece, Status>>;

/// A bundle, as one message cannot hold all of it.
fn in_pieces(bundle: Bytes, unkept_reason: String) -> BundleStream {
    let places = (0..bundle.len()).step_by(BUNDLE_PIECE_BYTES);
    let piece = move |from: usize| {
        let to = bundle.len().min(from + BUNDLE_PIECE_BYTES);
        let is_first = from == 0;
        Ok(v1::BundlePiece {
            data: bundle.slice(from..to),
            unkept_reason: match is_first {
                true => unkept_reason.clone(),
                false => String::new(),
            },
        })
    };
    stream::iter(places.map(piece)).boxed()
}

fn tenant(instance_name: &str) -> Result<TenantId, Status> {
    let tenant = instance_name.parse();
    tenant.map_err(|error| status::invalid_argument("instance_name", error).into())
}

impl RunsService {
    /// A verdict that was given before.
    async fn read_given(
        &self,
        tenant: TenantId,
        bundle: &reapi::Digest,
    ) -> Result<Response<BundleStream>, Status> {
        let bundle = Digest::try_from(bundle);
        let bundle = bundle.map_err(|error| status::invalid_digest("bundle", &error))?;
        let body = self.registry.read_given(tenant, bundle).await;
        let body = body.map_err(|error| Status::from(of_given(&error)))?;
        let pieces = body.map(|piece| match piece {
            Ok(data) => Ok(v1::BundlePiece {
                data,
                unkept_reason: String::new(),
            }),
            Err(error) => Err(of_given(&ReadVerdictError::Store(error)).into()),
        });
        Ok(Response::new(pieces.boxed()))
    }

    /// The outputs that a request asks for, from what the run's events say so far.
    async fn find_logs(&self, request: &v1::ReadLogsRequest) -> Result<Vec<Log>, Status> {
        let mut found = LogSearch::new(request);
        let mut last = 0;
        loop {
            let events = self.registry.events_so_far(&request.run_id, last).await;
            let events = events.map_err(|error| Status::from(of_find(&error)))?;
            let Some(event) = events.last() else { break };
            last = event.sequence;
            for event in events.into_iter().filter_map(|event| event.event) {
                found.take(event);
            }
        }
        found
            .logs()
            .map_err(|unknown| status::not_found(unknown.to_string()).into())
    }
}
