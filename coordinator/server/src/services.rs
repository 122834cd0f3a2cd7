//! Every gRPC service, put together.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use regatta_cas::{BlobStore, ChunkedBlobStore};
use regatta_ledger::Ledger;
use regatta_model::TenantId;
use regatta_verdict::SigningKey;
use regatta_wire::asset::fetch_server::FetchServer;
use regatta_wire::asset::push_server::PushServer;
use regatta_wire::health::health_server::HealthServer;
use regatta_wire::longrunning::operations_server::OperationsServer;
use regatta_wire::reapi::action_cache_server::ActionCacheServer;
use regatta_wire::reapi::capabilities_server::CapabilitiesServer;
use regatta_wire::reapi::content_addressable_storage_server::ContentAddressableStorageServer;
use regatta_wire::reapi::execution_server::ExecutionServer;
use regatta_wire::v1::fleet_server::FleetServer;
use regatta_wire::v1::runs_server::RunsServer;
use regatta_wire::v1::suites_server::SuitesServer;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::action_cache::ActionCacheService;
use crate::assets::{AssetStore, FetchService, PushService};
use crate::capabilities::CapabilitiesService;
use crate::cas::{
    ByteStreamService, CompressedBlobs, ContentAddressableStorageService, TenantViews,
    UploadRegistry,
};
use crate::ending_calls::end_calls;
use crate::execution::{ExecutionParts, ExecutionService};
use crate::fleet_service::FleetService;
use crate::health::HealthService;
use crate::operations::OperationsService;
use crate::request_metrics::{RequestMetrics, count_requests};
use crate::runs::{RunRegistry, RunsService};
use crate::suites::SuitesService;
use crate::sure_answers::{SureAnswers, hold_back};

/// The largest message that is taken, in bytes. Batches are limited to 4 MiB; a little more lets a batch
/// that exceeds that be refused in words, and a client upload in larger pieces.
const MAX_MESSAGE_SIZE_BYTES: usize = 8 << 20;

/// The largest report of an agent, in bytes: a thousand outcomes with small outputs inside.
const MAX_AGENT_REPORT_SIZE_BYTES: usize = 32 << 20;

/// The largest desired state that is sent to an agent, in bytes; agents take as much.
const MAX_DESIRED_STATE_SIZE_BYTES: usize = 64 << 20;

/// What the services are made of.
pub(crate) struct ServiceParts {
    pub(crate) execution: Arc<ExecutionParts>,
    pub(crate) blobs: TenantViews<dyn BlobStore>,
    pub(crate) chunked: TenantViews<ChunkedBlobStore>,
    pub(crate) uploads: Arc<UploadRegistry>,
    pub(crate) assets: Arc<AssetStore>,
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) runs: Arc<RunRegistry>,
    pub(crate) verdict_key: Arc<SigningKey>,
    /// Whether what is answered of the storage is true.
    pub(crate) answers: SureAnswers,
    pub(crate) serving: watch::Receiver<bool>,
    /// Ends the calls that are under way.
    pub(crate) ending: CancellationToken,
    pub(crate) clients_may_write: Arc<BTreeSet<TenantId>>,
    /// How long runs are kept after they ended; for ever if `None`.
    pub(crate) keep_runs: Option<Duration>,
}

/// All services behind one router.
pub(crate) fn routes(parts: ServiceParts) -> Routes {
    let ServiceParts {
        execution,
        blobs: views,
        chunked,
        uploads,
        assets,
        ledger,
        runs,
        verdict_key,
        answers,
        serving,
        ending,
        clients_may_write,
        keep_runs,
    } = parts;
    let blobs = Arc::clone(&execution.blobs);
    let compressed = CompressedBlobs::new();
    let storage = ContentAddressableStorageService::new(views.clone(), chunked, compressed.clone());
    let room = Arc::clone(&execution.room);
    let streams = ByteStreamService::new(views, room, compressed, uploads);
    let cache = Arc::clone(&execution.cache);
    let cache = ActionCacheService::new(cache, blobs, Arc::clone(&clients_may_write));
    let capabilities = CapabilitiesService::new(clients_may_write);
    let operations = OperationsService::new(Arc::clone(&execution.operations));
    let fleet = FleetService::new(Arc::clone(&execution.dispatcher));
    let mut routes = Routes::builder();
    routes
        .add_service(
            ContentAddressableStorageServer::new(storage)
                .max_decoding_message_size(MAX_MESSAGE_SIZE_BYTES),
        )
        .add_service(streams.into_server(MAX_MESSAGE_SIZE_BYTES))
        .add_service(
            ActionCacheServer::new(cache).max_decoding_message_size(MAX_MESSAGE_SIZE_BYTES),
        )
        .add_service(CapabilitiesServer::new(capabilities))
        .add_service(FetchServer::new(FetchService::new(Arc::clone(&assets))))
        .add_service(
            PushServer::new(PushService::new(assets))
                .max_decoding_message_size(MAX_MESSAGE_SIZE_BYTES),
        )
        .add_service(OperationsServer::new(operations))
        .add_service(ExecutionServer::new(ExecutionService::new(Arc::clone(
            &execution,
        ))))
        .add_service(
            FleetServer::new(fleet)
                .max_decoding_message_size(MAX_AGENT_REPORT_SIZE_BYTES)
                .max_encoding_message_size(MAX_DESIRED_STATE_SIZE_BYTES),
        )
        .add_service(
            RunsServer::new(RunsService::new(runs, verdict_key))
                .max_decoding_message_size(MAX_MESSAGE_SIZE_BYTES),
        )
        .add_service(SuitesServer::new(SuitesService::new(ledger, keep_runs)))
        .add_service(HealthServer::new(HealthService::new(serving)));
    let sure = axum::middleware::from_fn_with_state(answers, hold_back);
    let ended = axum::middleware::from_fn_with_state(ending, end_calls);
    let counted = axum::middleware::from_fn_with_state(RequestMetrics::new(), count_requests);
    let router = routes.routes().prepare().into_axum_router();
    Routes::from(router.layer(sure).layer(ended).layer(counted))
}
