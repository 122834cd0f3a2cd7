//! `google.longrunning.Operations`.

use std::sync::Arc;
use std::time::Duration;

use regatta_model::TenantId;
use regatta_wire::convert::duration_from_wire;
use regatta_wire::longrunning;
use regatta_wire::longrunning::operations_server;
use regatta_wire::resource_name::parse_instance_name;
use tonic::{Request, Response, Status};

use super::Operations;
use crate::status::{self, Failure};

/// What comes after the instance name in the name of a tenant's operations.
const COLLECTION: &str = "operations";
/// How many operations are listed at once.
const MAX_PAGE_SIZE: usize = 1000;
/// How long `WaitOperation` waits at most; clients ask again.
const MAX_WAIT: Duration = Duration::from_secs(10 * 60);

/// Serves the operations that executions are.
#[derive(Debug, Clone)]
pub(crate) struct OperationsService {
    operations: Arc<Operations>,
}

impl OperationsService {
    /// Serves `operations`.
    pub(crate) const fn new(operations: Arc<Operations>) -> Self {
        Self { operations }
    }
}

/// What to answer about an operation that is not known.
pub(crate) fn unknown_operation(name: &str) -> Failure {
    status::not_found(format!(
        "operation `{name}` is not known, or ended too long ago"
    ))
}

/// The tenant whose operations are listed: the name is that of their collection, `[instance/]operations`,
/// or the instance name alone.
fn listed_tenant(name: &str) -> Result<TenantId, Failure> {
    let instance = match name.strip_suffix(COLLECTION) {
        Some("") => "",
        Some(parent) => parent.strip_suffix('/').unwrap_or(name),
        None => name,
    };
    parse_instance_name(instance)
        .map_err(|error| status::invalid_argument("name", status::with_sources(&error)))
}

fn page_size_of(page_size: i32) -> Result<usize, Failure> {
    match usize::try_from(page_size) {
        Ok(0) => Ok(MAX_PAGE_SIZE),
        Ok(size) => Ok(size.min(MAX_PAGE_SIZE)),
        Err(_) => Err(status::invalid_argument(
            "page_size",
            "must not be negative",
        )),
    }
}

#[tonic::async_trait]
impl operations_server::Operations for OperationsService {
    async fn list_operations(
        &self,
        request: Request<longrunning::ListOperationsRequest>,
    ) -> Result<Response<longrunning::ListOperationsResponse>, Status> {
        let request = request.into_inner();
        if !request.filter.is_empty() {
            return Err(status::invalid_argument("filter", "is not supported").into());
        }
        let page_size = page_size_of(request.page_size)?;
        let tenant = listed_tenant(&request.name)?;
        let page = self
            .operations
            .list(&tenant, &request.page_token, page_size);
        let next_page_token = match page.operations.last() {
            Some(last) if !page.is_last => last.name.clone(),
            Some(_) | None => String::new(),
        };
        Ok(Response::new(longrunning::ListOperationsResponse {
            operations: page.operations,
            next_page_token,
            ..Default::default()
        }))
    }

    async fn get_operation(
        &self,
        request: Request<longrunning::GetOperationRequest>,
    ) -> Result<Response<longrunning::Operation>, Status> {
        let name = request.into_inner().name;
        let operation = self
            .operations
            .get(&name)
            .ok_or_else(|| unknown_operation(&name))?;
        Ok(Response::new(operation))
    }

    async fn delete_operation(
        &self,
        request: Request<longrunning::DeleteOperationRequest>,
    ) -> Result<Response<()>, Status> {
        let name = request.into_inner().name;
        if self.operations.forget(&name) {
            return Ok(Response::new(()));
        }
        if self.operations.get(&name).is_some() {
            let message = format!("operation `{name}` has not ended; cancel it");
            return Err(status::failed_precondition(message).into());
        }
        Err(unknown_operation(&name).into())
    }

    async fn cancel_operation(
        &self,
        request: Request<longrunning::CancelOperationRequest>,
    ) -> Result<Response<()>, Status> {
        let name = request.into_inner().name;
        if self.operations.cancel(&name) {
            return Ok(Response::new(()));
        }
        Err(unknown_operation(&name).into())
    }

    async fn wait_operation(
        &self,
        request: Request<longrunning::WaitOperationRequest>,
    ) -> Result<Response<longrunning::Operation>, Status> {
        let longrunning::WaitOperationRequest { name, timeout } = request.into_inner();
        let timeout = timeout
            .map(|timeout| duration_from_wire(&timeout))
            .transpose()
            .map_err(|error| status::invalid_argument("timeout", error))?
            .map_or(MAX_WAIT, |timeout| timeout.min(MAX_WAIT));
        let mut watch = self
            .operations
            .watch(&name)
            .ok_or_else(|| unknown_operation(&name))?;
        // Running out of time is no error here: the state is told in any case.
        drop(tokio::time::timeout(timeout, watch.ended()).await);
        Ok(Response::new(watch.now()))
    }
}
