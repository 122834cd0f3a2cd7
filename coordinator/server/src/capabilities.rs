//! REAPI `Capabilities`.

use std::collections::BTreeSet;
use std::sync::Arc;

use regatta_model::TenantId;
use regatta_wire::reapi::capabilities_server::Capabilities;
use regatta_wire::reapi::compressor::Value as Compressor;
use regatta_wire::reapi::digest_function::Value as DigestFunction;
use regatta_wire::reapi::priority_capabilities::PriorityRange;
use regatta_wire::reapi::symlink_absolute_path_strategy::Value as SymlinkStrategy;
use regatta_wire::{reapi, semver};
use tonic::{Request, Response, Status};

use crate::action_cache::tenant_of;
use crate::cas::{CHUNKING_PARAMS, MAX_BATCH_TOTAL_SIZE_BYTES};

/// Says what this coordinator can do for a tenant.
#[derive(Debug, Clone)]
pub(crate) struct CapabilitiesService {
    clients_may_write: Arc<BTreeSet<TenantId>>,
}

impl CapabilitiesService {
    /// What a coordinator can do where clients of some tenants may write action results.
    pub(crate) const fn new(clients_may_write: Arc<BTreeSet<TenantId>>) -> Self {
        Self { clients_may_write }
    }

    fn cache(&self, tenant: &TenantId) -> reapi::CacheCapabilities {
        reapi::CacheCapabilities {
            digest_functions: vec![DigestFunction::Sha256.into()],
            action_cache_update_capabilities: Some(reapi::ActionCacheUpdateCapabilities {
                update_enabled: self.clients_may_write.contains(tenant),
            }),
            max_batch_total_size_bytes: i64::try_from(MAX_BATCH_TOTAL_SIZE_BYTES)
                .unwrap_or(i64::MAX),
            supported_compressors: vec![Compressor::Zstd.into()],
            supported_batch_update_compressors: vec![Compressor::Zstd.into()],
            symlink_absolute_path_strategy: SymlinkStrategy::Allowed.into(),
            split_blob_support: true,
            splice_blob_support: true,
            fast_cdc_2020_params: Some(reapi::FastCdc2020Params {
                avg_chunk_size_bytes: CHUNKING_PARAMS.average_bytes() as u64,
                seed: CHUNKING_PARAMS.seed(),
            }),
            ..Default::default()
        }
    }
}

fn execution() -> reapi::ExecutionCapabilities {
    let every_priority = PriorityRange {
        min_priority: i32::MIN,
        max_priority: i32::MAX,
    };
    reapi::ExecutionCapabilities {
        digest_function: DigestFunction::Sha256.into(),
        digest_functions: vec![DigestFunction::Sha256.into()],
        exec_enabled: true,
        execution_priority_capabilities: Some(reapi::PriorityCapabilities {
            priorities: vec![every_priority],
        }),
        ..Default::default()
    }
}

fn version(major: i32, minor: i32) -> semver::SemVer {
    semver::SemVer {
        major,
        minor,
        ..Default::default()
    }
}

#[tonic::async_trait]
impl Capabilities for CapabilitiesService {
    async fn get_capabilities(
        &self,
        request: Request<reapi::GetCapabilitiesRequest>,
    ) -> Result<Response<reapi::ServerCapabilities>, Status> {
        let tenant = tenant_of(&request.into_inner().instance_name)?;
        Ok(Response::new(reapi::ServerCapabilities {
            cache_capabilities: Some(self.cache(&tenant)),
            execution_capabilities: Some(execution()),
            low_api_version: Some(version(2, 0)),
            high_api_version: Some(version(2, 12)),
            deprecated_api_version: None,
        }))
    }
}
