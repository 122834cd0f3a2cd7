//! What a coordinator is made of, as its configuration has it.

use std::sync::Arc;
use std::time::Duration;

use regatta_ledger::Ledger;
use regatta_scheduler::SchedulerConfig;
use regatta_verdict::SigningKey;
use tokio_util::sync::CancellationToken;

use crate::action_cache::ActionCache;
use crate::action_plan::PlanDefaults;
use crate::assets::AssetStore;
use crate::cas::InputTrees;
use crate::config::CoordinatorConfig;
use crate::dispatch::{ClaimKey, DispatchConfig, Dispatcher};
use crate::execution::ExecutionParts;
use crate::operations::{OperationSettings, Operations};
use crate::retention::{Retention, RoomAwaitingBlobStore};
use crate::runs::RunServices;
use crate::storage::Storage;

/// How long an operation that ended can be asked for.
const COMPLETED_RETENTION: Duration = Duration::from_secs(10 * 60);
/// How much memory operations that ended may take, in bytes.
const COMPLETED_BYTES: usize = 8 << 20;
/// What the key of claims is derived for.
const CLAIMS: &str = "regatta claims of leases";

pub(super) fn dispatch_config(config: &CoordinatorConfig, key: &SigningKey) -> DispatchConfig {
    DispatchConfig {
        scheduler: SchedulerConfig {
            heartbeat_interval: config.heartbeat_interval,
            queue_limit_units: config.queue_limit_units,
            tenant_weights: config.tenant_weights.clone(),
            unsatisfiable_grace: config.unsatisfiable_grace,
            no_agent_grace: config.no_agent_grace,
            ..SchedulerConfig::default()
        },
        claim_key: ClaimKey::new(key.derive(CLAIMS)),
        ..DispatchConfig::default()
    }
}

pub(super) fn plan_defaults(config: &CoordinatorConfig) -> PlanDefaults {
    PlanDefaults {
        image: config.default_image.clone(),
        resources: config.default_resources,
        timeout: config.default_timeout.min(config.maximum_timeout),
        maximum_timeout: config.maximum_timeout,
        tenant_properties: config.tenant_properties.clone(),
    }
}

pub(super) fn execution_parts(
    config: &CoordinatorConfig,
    storage: &Storage,
    room: Arc<Retention>,
    dispatcher: Arc<Dispatcher>,
    stopping: CancellationToken,
) -> ExecutionParts {
    let blobs = Arc::clone(storage.blobs.shared());
    let inputs = InputTrees::new(Arc::clone(&blobs));
    ExecutionParts {
        cache: Arc::new(ActionCache::new(
            storage.results.clone(),
            storage.blobs.clone(),
            plan_defaults(config),
        )),
        publications: Arc::default(),
        inputs: Arc::new(inputs.renewing_every(config.cache.renewal_interval())),
        blobs,
        room,
        dispatcher,
        operations: operations(config),
        defaults: plan_defaults(config),
        stopping,
    }
}

pub(super) fn asset_store(storage: &Storage, execution: &ExecutionParts) -> Arc<AssetStore> {
    Arc::new(AssetStore::new(
        storage.assets.clone(),
        storage.blobs.clone(),
        Arc::clone(&execution.inputs),
    ))
}

pub(super) fn run_services(
    execution: &ExecutionParts,
    storage: &Storage,
    ledger: Arc<dyn Ledger>,
    config: &CoordinatorConfig,
) -> RunServices {
    RunServices {
        dispatcher: Arc::clone(&execution.dispatcher),
        results: Arc::clone(&execution.cache),
        blobs: Arc::new(RoomAwaitingBlobStore::new(
            Arc::clone(&execution.blobs),
            Arc::clone(&execution.room),
        )),
        for_verdicts: storage.for_verdicts.clone(),
        durability: storage.durability.clone(),
        wrong_reads: storage.wrong_reads.clone(),
        trees: Arc::clone(&execution.inputs),
        ledger,
        defaults: execution.defaults.clone(),
        audit_share: config.audit_share,
    }
}

fn operations(config: &CoordinatorConfig) -> Arc<Operations> {
    Operations::new(OperationSettings {
        unwatched_grace: config.unwatched_grace,
        completed_retention: COMPLETED_RETENTION,
        completed_bytes: COMPLETED_BYTES,
    })
}
