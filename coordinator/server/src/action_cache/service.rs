//! REAPI `ActionCache`.

use std::collections::BTreeSet;
use std::sync::Arc;

use regatta_cas::BlobStore;
use regatta_model::{Digest, TenantId};
use regatta_wire::reapi;
use regatta_wire::reapi::action_cache_server;
use regatta_wire::resource_name::parse_instance_name;
use tonic::{Request, Response, Status};

use super::{ActionCache, InlineRequest, PutResultError, inline_outputs};
use crate::cas::find_missing;
use crate::status::{self, Failure};

/// Serves an action cache.
#[derive(Debug, Clone)]
pub(crate) struct ActionCacheService {
    cache: Arc<ActionCache>,
    blobs: Arc<dyn BlobStore>,
    clients_may_write: Arc<BTreeSet<TenantId>>,
}

impl ActionCacheService {
    /// Serves `cache`, whose results refer to `blobs`. Clients of the tenants in `clients_may_write` may
    /// add to it.
    pub(crate) fn new(
        cache: Arc<ActionCache>,
        blobs: Arc<dyn BlobStore>,
        clients_may_write: Arc<BTreeSet<TenantId>>,
    ) -> Self {
        Self {
            cache,
            blobs,
            clients_may_write,
        }
    }

    /// The action must be there before its result (REAPI, `UpdateActionResult`).
    async fn check_action(&self, action: &Digest) -> Result<(), Failure> {
        let missing = find_missing(self.blobs.as_ref(), std::slice::from_ref(action))
            .await
            .map_err(|error| status::of_read(&error))?;
        if missing.is_empty() {
            return Ok(());
        }
        Err(status::missing_blobs("the action of the result", &missing))
    }
}

/// The tenant that an instance name stands for.
pub(crate) fn tenant_of(instance_name: &str) -> Result<TenantId, Failure> {
    parse_instance_name(instance_name)
        .map_err(|error| status::invalid_argument("instance_name", status::with_sources(&error)))
}

fn of_put(error: &PutResultError) -> Failure {
    match error {
        PutResultError::Invalid(_) | PutResultError::TooLarge { .. } => {
            status::invalid_argument("action_result", status::with_sources(error))
        }
        PutResultError::Store(error) => status::of_read(error),
    }
}

#[tonic::async_trait]
impl action_cache_server::ActionCache for ActionCacheService {
    async fn get_action_result(
        &self,
        request: Request<reapi::GetActionResultRequest>,
    ) -> Result<Response<reapi::ActionResult>, Status> {
        let request = request.into_inner();
        status::sha256_only(request.digest_function)?;
        let tenant = tenant_of(&request.instance_name)?;
        let action = status::digest_field(request.action_digest.as_ref(), "action_digest")?;
        let found = self.cache.get(&tenant, &action).await;
        let found = found.map_err(|error| status::of_read(&error))?;
        let Some(result) = found else {
            return Err(status::not_found(format!("no result of action {action} is known")).into());
        };
        let mut result = reapi::ActionResult::clone(&result);
        let inline = InlineRequest {
            stdout: request.inline_stdout,
            stderr: request.inline_stderr,
            files: request.inline_output_files.into_iter().collect(),
        };
        inline_outputs(self.blobs.as_ref(), &inline, &mut result, 0).await;
        Ok(Response::new(result))
    }

    async fn update_action_result(
        &self,
        request: Request<reapi::UpdateActionResultRequest>,
    ) -> Result<Response<reapi::ActionResult>, Status> {
        let request = request.into_inner();
        let tenant = tenant_of(&request.instance_name)?;
        if !self.clients_may_write.contains(&tenant) {
            return Err(status::permission_denied(
                "clients may not write action results here; let the action execute remotely",
            )
            .into());
        }
        status::sha256_only(request.digest_function)?;
        let action = status::digest_field(request.action_digest.as_ref(), "action_digest")?;
        let unset = || status::invalid_argument("action_result", "is not set");
        let result = request.action_result.ok_or_else(unset)?;
        self.check_action(&action).await?;
        self.cache
            .put(&tenant, &action, result.clone())
            .await
            .map_err(|error| of_put(&error))?;
        Ok(Response::new(result))
    }
}
