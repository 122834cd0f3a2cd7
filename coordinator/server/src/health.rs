//! gRPC's own health checks.

use std::collections::BTreeMap;
use std::pin::Pin;

use futures::{Stream, StreamExt as _};
use regatta_wire::health;
use regatta_wire::health::health_check_response::ServingStatus;
use regatta_wire::health::health_server::Health;
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status};

use crate::status;

/// The services that are served, all of which live and die together.
pub(crate) const SERVICES: [&str; 13] = [
    "build.bazel.remote.asset.v1.Fetch",
    "build.bazel.remote.asset.v1.Push",
    "build.bazel.remote.execution.v2.ActionCache",
    "build.bazel.remote.execution.v2.Capabilities",
    "build.bazel.remote.execution.v2.ContentAddressableStorage",
    "build.bazel.remote.execution.v2.Execution",
    "google.bytestream.ByteStream",
    "google.longrunning.Operations",
    "grpc.health.v1.Health",
    "regatta.v1.Fleet",
    "regatta.v1.Runs",
    "regatta.v1.Suites",
    "",
];

/// Tells whether the coordinator serves: from its start until it is told to stop.
#[derive(Debug, Clone)]
pub(crate) struct HealthService {
    serving: watch::Receiver<bool>,
}

impl HealthService {
    /// Tells what `serving` says.
    pub(crate) const fn new(serving: watch::Receiver<bool>) -> Self {
        Self { serving }
    }

    fn now(&self) -> health::HealthCheckResponse {
        response(*self.serving.borrow())
    }
}

fn response(serving: bool) -> health::HealthCheckResponse {
    let status = if serving {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    };
    health::HealthCheckResponse {
        status: status.into(),
    }
}

type WatchResponses =
    Pin<Box<dyn Stream<Item = Result<health::HealthCheckResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        request: Request<health::HealthCheckRequest>,
    ) -> Result<Response<health::HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        if !SERVICES.contains(&service.as_str()) {
            return Err(status::not_found(format!("service `{service}` is not served")).into());
        }
        Ok(Response::new(self.now()))
    }

    async fn list(
        &self,
        _: Request<health::HealthListRequest>,
    ) -> Result<Response<health::HealthListResponse>, Status> {
        let statuses: BTreeMap<String, health::HealthCheckResponse> = SERVICES
            .iter()
            .map(|service| ((*service).to_owned(), self.now()))
            .collect();
        Ok(Response::new(health::HealthListResponse { statuses }))
    }

    type WatchStream = WatchResponses;

    async fn watch(
        &self,
        request: Request<health::HealthCheckRequest>,
    ) -> Result<Response<WatchResponses>, Status> {
        let service = request.into_inner().service;
        if !SERVICES.contains(&service.as_str()) {
            let unknown = health::HealthCheckResponse {
                status: ServingStatus::ServiceUnknown.into(),
            };
            let states = futures::stream::iter([Ok(unknown)]).chain(futures::stream::pending());
            return Ok(Response::new(states.boxed()));
        }
        let states = WatchStream::new(self.serving.clone()).map(|serving| Ok(response(serving)));
        Ok(Response::new(states.boxed()))
    }
}
