//! What a coordinator has before it has its ledger.

use regatta_ledger::CoordinatorIdentity;
use regatta_verdict::SigningKey;

use super::parts::plan_defaults;
use crate::config::CoordinatorConfig;
use crate::listeners::Listeners;
use crate::metrics_recorder::recorder;
use crate::start_error::StartError;
use crate::state_directory::StateDirectory;
use crate::verdict_key::{self, VerdictKeyError};

/// The file in the state directory with the key that signs verdicts.
const VERDICT_KEY: &str = "verdict-key.pem";

/// What a coordinator has before it has its ledger.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) config: CoordinatorConfig,
    pub(crate) listeners: Listeners,
    pub(crate) state: StateDirectory,
    pub(super) verdict_key: SigningKey,
}

impl Prepared {
    /// Binds the addresses and takes the state directory.
    pub(crate) async fn new(config: CoordinatorConfig) -> Result<Self, StartError> {
        let checked = plan_defaults(&config).check_tenant_properties();
        checked.map_err(|(tenant, source)| StartError::TenantProperties { tenant, source })?;
        let listeners = Listeners::bind(&config).await?;
        // Before anything asks for a counter: those that exist earlier count nowhere.
        recorder();
        let state = StateDirectory::take(&config.state_directory)?;
        let verdict_key = verdict_key(&config, &state)?;
        Ok(Self {
            config,
            listeners,
            state,
            verdict_key,
        })
    }

    /// As others know it.
    pub(crate) fn identity(&self) -> CoordinatorIdentity {
        CoordinatorIdentity {
            url: format!("http://{}", self.listeners.grpc.address),
            verdict_key: self.verdict_key.public().id(),
            storage: self.config.storage_name(self.state.path()),
        }
    }
}

fn verdict_key(
    config: &CoordinatorConfig,
    state: &StateDirectory,
) -> Result<SigningKey, VerdictKeyError> {
    match &config.verdict_key {
        Some(path) => verdict_key::read(path),
        None => verdict_key::read_or_make(&state.path().join(VERDICT_KEY)),
    }
}
