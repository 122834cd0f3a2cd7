//! The service itself: from a request to a stream of operations.

use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use futures::{Stream, StreamExt as _};
use prost::Message as _;
use regatta_model::{Digest, RunId, TenantId, Timestamp};
use regatta_wire::reapi::execution_server;
use regatta_wire::reapi::execution_stage::Value as Stage;
use regatta_wire::{longrunning, reapi};
use tonic::{Request, Response, Status};
use tracing::Instrument as _;

use super::ExecutionParts;
use super::driver::Execution;
use super::fair_gate::FairGate;
use super::load::load_action;
use super::publications::{Announced, AwaitedPublication, Submission};
use crate::action_cache::{InlineRequest, inline_outputs, tenant_of};
use crate::action_plan::{ActionPlanError, ActionRequest, LegacyOutputs, plan_action};
use crate::dispatch::Work;
use crate::operations::{OperationWatch, unknown_operation};
use crate::status::{self, Failure};

/// The header that tells on whose behalf a request is made (REAPI, `RequestMetadata`).
const REQUEST_METADATA: &str = "build.bazel.remote.execution.v2.requestmetadata-bin";

/// How often a call waits for somebody else's result before it has its action run in any case.
const MAX_WAITS: u32 = 3;

/// How many actions are looked up and read at once. It hides what storage takes; what a call holds meanwhile
/// is several times what one holds that waits, and clients begin tens of thousands of calls together.
const MAX_PREPARED_AT_ONCE: usize = 256;

/// Executes actions.
#[derive(Debug, Clone)]
pub(crate) struct ExecutionService {
    parts: Arc<ExecutionParts>,
    /// Whoever prepares an action is inside.
    preparing: Arc<FairGate<TenantId, RunId>>,
}

impl ExecutionService {
    /// Executes actions with the given parts.
    pub(crate) fn new(parts: Arc<ExecutionParts>) -> Self {
        Self {
            parts,
            preparing: FairGate::new(MAX_PREPARED_AT_ONCE),
        }
    }

    async fn start(&self, call: Call) -> Result<OperationWatch, Failure> {
        let mut waits = 0;
        loop {
            let planned = match self.prepare(&call).await? {
                Prepared::Planned(planned) => *planned,
                Prepared::Ended(watch) => return Ok(watch),
            };
            let may_wait = !call.skip_cache_lookup && waits < MAX_WAITS;
            match self.submit(&call, planned, may_wait)? {
                Started::Operation(watch) => return Ok(watch),
                Started::Awaited(publication) => publication.ended().await,
            }
            waits += 1;
        }
    }

    /// Looks an action up, or finds out how to run it.
    async fn prepare(&self, call: &Call) -> Result<Prepared, Failure> {
        let _pass = self
            .preparing
            .enter(call.tenant.clone(), call.run.clone())
            .await;
        // Apart, so that those who wait for their turn are small.
        Box::pin(self.prepare_at_once(call)).await
    }

    async fn prepare_at_once(&self, call: &Call) -> Result<Prepared, Failure> {
        if !call.skip_cache_lookup
            && let Some(watch) = self.cached(call).await?
        {
            return Ok(Prepared::Ended(watch));
        }
        match self.plan(call).await {
            Ok(planned) => Ok(Prepared::Planned(Box::new(planned))),
            // What does not fit into a trailer goes into the response of an operation.
            Err(failure) if failure.outgrows_trailer() => {
                Ok(Prepared::Ended(self.failed(call, failure)))
            }
            Err(failure) => Err(failure),
        }
    }

    fn submit(&self, call: &Call, planned: Planned, may_wait: bool) -> Result<Started, Failure> {
        let parts = &self.parts;
        let dispatcher = &parts.dispatcher;
        let submitted = if planned.is_cacheable {
            let key = (call.tenant.clone(), call.action);
            let submit = |submission| match submission {
                // It was stored after this call had looked for it.
                Submission::Any if may_wait && parts.cache.remembers(&key.0, &key.1) => Ok(None),
                Submission::Any => dispatcher.submit(planned.work).map(Some),
                Submission::Merged => dispatcher.merge(planned.work),
            };
            match parts.publications.submit(&key, may_wait, submit) {
                Ok(Announced::Awaited(publication)) => return Ok(Started::Awaited(publication)),
                Ok(Announced::Submitted(task, publication)) => Ok((task, Some(publication))),
                Err(error) => Err(error),
            }
        } else {
            dispatcher.submit(planned.work).map(|task| (task, None))
        };
        let (task, publication) = submitted.map_err(|error| status::of_admission(&error))?;
        let (operation, watch) = parts
            .operations
            .begin(&call.tenant, call.action, Stage::Queued);
        tracing::debug!(
            action = %call.action, run = %call.run, task = %task.id(),
            operation = operation.name(), "an action is queued"
        );
        let span = tracing::info_span!(
            "execution", run = %call.run, action = %call.action, task = %task.id(),
            operation = operation.name()
        );
        let execution = Execution {
            parts: Arc::clone(parts),
            tenant: call.tenant.clone(),
            action: call.action,
            input_root: planned.input_root,
            publication,
            legacy: planned.legacy,
            inline: call.inline.clone(),
            queued: Timestamp::from(SystemTime::now()),
        };
        tokio::spawn(execution.drive(task, operation).instrument(span));
        Ok(Started::Operation(watch))
    }

    async fn cached(&self, call: &Call) -> Result<Option<OperationWatch>, Failure> {
        let found = self.parts.cache.get(&call.tenant, &call.action).await;
        let Some(result) = found.map_err(|error| status::of_read(&error))? else {
            return Ok(None);
        };
        let mut result = reapi::ActionResult::clone(&result);
        inline_outputs(self.parts.blobs.as_ref(), &call.inline, &mut result, 0).await;
        Ok(Some(self.ended(
            call,
            reapi::ExecuteResponse {
                result: Some(result),
                cached_result: true,
                status: Some(status::ok()),
                ..Default::default()
            },
        )))
    }

    fn failed(&self, call: &Call, failure: Failure) -> OperationWatch {
        let message = failure.message().to_owned();
        let status = Some(failure.into());
        self.ended(
            call,
            reapi::ExecuteResponse {
                status,
                message,
                ..Default::default()
            },
        )
    }

    /// An operation that has ended as soon as it begins.
    fn ended(&self, call: &Call, response: reapi::ExecuteResponse) -> OperationWatch {
        let operations = &self.parts.operations;
        let (operation, watch) = operations.begin(&call.tenant, call.action, Stage::CacheCheck);
        operation.complete(response);
        watch
    }

    async fn plan(&self, call: &Call) -> Result<Planned, Failure> {
        let parts = &self.parts;
        let room = parts.room.check_room();
        room.map_err(|error| status::of_write(&error))?;
        let loaded = load_action(parts.blobs.as_ref(), &parts.inputs, &call.action).await?;
        let request = ActionRequest {
            tenant: call.tenant.clone(),
            run: call.run.clone(),
            priority: call.priority,
            digest: call.action,
            action: &loaded.action,
            command: &loaded.command,
        };
        let mut work = plan_action(request, &parts.defaults).map_err(|error| of_plan(&error))?;
        if call.skip_cache_lookup {
            // What was begun before it was asked for is no answer.
            work.units
                .iter_mut()
                .for_each(|unit| unit.expected.key = None);
        }
        Ok(Planned {
            work,
            is_cacheable: !loaded.action.do_not_cache,
            legacy: LegacyOutputs::of(&loaded.command),
            input_root: loaded.input_root,
        })
    }
}

/// What is known of an action before it runs.
enum Prepared {
    /// How to run it.
    Planned(Box<Planned>),
    /// There is no more to it.
    Ended(OperationWatch),
}

/// What became of an action that can run.
enum Started {
    /// It is under way.
    Operation(OperationWatch),
    /// Its result is being stored: look it up after that.
    Awaited(AwaitedPublication),
}

/// An action that can run.
struct Planned {
    work: Work,
    input_root: Digest,
    /// Its result may be remembered.
    is_cacheable: bool,
    /// The client reads the older fields of the result.
    legacy: Option<LegacyOutputs>,
}

/// An `ExecuteRequest` whose parts are all valid.
#[derive(Debug)]
struct Call {
    tenant: TenantId,
    run: RunId,
    action: Digest,
    priority: i32,
    skip_cache_lookup: bool,
    inline: InlineRequest,
}

impl Call {
    fn parse(request: Request<reapi::ExecuteRequest>) -> Result<Self, Failure> {
        let run = run_of(&request)?;
        let request = request.into_inner();
        status::sha256_only(request.digest_function)?;
        Ok(Self {
            tenant: tenant_of(&request.instance_name)?,
            run,
            action: status::digest_field(request.action_digest.as_ref(), "action_digest")?,
            priority: request.execution_policy.map_or(0, |policy| policy.priority),
            skip_cache_lookup: request.skip_cache_lookup,
            inline: InlineRequest {
                stdout: request.inline_stdout,
                stderr: request.inline_stderr,
                files: request.inline_output_files.into_iter().collect(),
            },
        })
    }
}

/// The invocation that a request belongs to. For one that does not say it is that of its connection: a
/// client without invocations makes one connection for a build, and a run of its own for each action would
/// take a fresh container each.
fn run_of(request: &Request<reapi::ExecuteRequest>) -> Result<RunId, Failure> {
    let bad = |error: &dyn std::fmt::Display| {
        status::invalid_argument(REQUEST_METADATA, format!("cannot be understood: {error}"))
    };
    let invocation = match request.metadata().get_bin(REQUEST_METADATA) {
        None => String::new(),
        Some(value) => {
            let bytes = value.to_bytes().map_err(|error| bad(&error))?;
            let message = reapi::RequestMetadata::decode(bytes).map_err(|error| bad(&error))?;
            message.tool_invocation_id
        }
    };
    let run = match (invocation.as_str(), request.remote_addr()) {
        ("", Some(peer)) => format!("connection-{peer}"),
        ("", None) => uuid::Uuid::new_v4().to_string(),
        // Any text is an invocation's id to REAPI; what is none to us has a digest that is one.
        (text, _) if text.parse::<RunId>().is_err() => {
            format!("invocation-{}", Digest::of(text.as_bytes()).hash_hex())
        }
        (text, _) => text.to_owned(),
    };
    run.parse().map_err(|error| bad(&error))
}

fn of_plan(error: &ActionPlanError) -> Failure {
    status::invalid_argument(&error.field(), status::with_sources(error))
}

type OperationStream = Pin<Box<dyn Stream<Item = Result<longrunning::Operation, Status>> + Send>>;

fn respond(watch: OperationWatch) -> Response<OperationStream> {
    Response::new(watch.into_stream().map(Ok).boxed())
}

#[tonic::async_trait]
impl execution_server::Execution for ExecutionService {
    type ExecuteStream = OperationStream;

    async fn execute(
        &self,
        request: Request<reapi::ExecuteRequest>,
    ) -> Result<Response<OperationStream>, Status> {
        let call = Call::parse(request)?;
        Ok(respond(self.start(call).await?))
    }

    type WaitExecutionStream = OperationStream;

    async fn wait_execution(
        &self,
        request: Request<reapi::WaitExecutionRequest>,
    ) -> Result<Response<OperationStream>, Status> {
        let name = request.into_inner().name;
        let watch = self
            .parts
            .operations
            .resume(&name)
            .ok_or_else(|| unknown_operation(&name))?;
        Ok(respond(watch))
    }
}
