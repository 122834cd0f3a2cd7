//! What submitters hand in.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use regatta_cas::StoreError;
use regatta_model::{Digest, LeaseId, Platform, RunId, TenantId, UnitIndex};
use regatta_scheduler::{ExpectedUnit, FailedAt};
use regatta_wire::{reapi, v1};

/// Work for the fleet: an action, or the tests of a job whose batches the scheduler cuts.
#[derive(Clone, Debug)]
pub struct Work {
    /// Who pays.
    pub tenant: TenantId,
    /// On behalf of what.
    pub run: RunId,
    /// Lower runs sooner, among the work of one tenant.
    pub priority: i32,
    /// What an agent must offer: capability requirements, and nothing that `spec` says already.
    pub platform: Platform,
    /// What to do, its `executions` left empty: they are added for each lease.
    pub spec: v1::LeaseSpec,
    /// The parts that may be leased apart, in the submitter's order; an action has one.
    pub units: Vec<UnitPlan>,
    /// What starting a batch costs besides its units.
    pub batch_overhead: Duration,
    /// Work of one unit, of one tenant, with equal keys is done once; `None` is never merged.
    pub merge_key: Option<Digest>,
    /// Where the same has just failed, if it is tried again: another place is preferred.
    pub failed_at: Option<FailedAt>,
    /// How a lease's units become executions.
    pub shape: BatchShape,
    /// It is done so that other work begins sooner, and nobody reads its answers: it has no part in the metrics of
    /// leases and units.
    pub is_ahead: bool,
}

/// One unit of [`Work`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnitPlan {
    /// How long it is expected to take.
    pub expected: ExpectedUnit,
    /// Appended to the command's arguments; of no use to [`BatchShape::OneExecution`].
    pub extra_arguments: Vec<String>,
    /// Laid over the command's environment; of no use to [`BatchShape::OneExecution`].
    pub extra_environment: Vec<reapi::command::EnvironmentVariable>,
}

/// How the units of a lease become the executions of its [`v1::LeaseSpec`].
#[derive(Clone, Debug, Default)]
pub enum BatchShape {
    /// Each unit is an execution of its own, with an outcome of its own.
    #[default]
    ExecutionPerUnit,
    /// All units of a lease are one execution, whose outcome is that of each of them. Its
    /// specification is made, which may take I/O, before the lease is sent to its agent.
    OneExecution(Arc<dyn BatchPreparer>),
}

/// Makes the specification of a lease whose units run together.
#[async_trait]
pub trait BatchPreparer: fmt::Debug + Send + Sync + 'static {
    /// `spec` with what makes it run exactly `units`: other arguments or another input root. Its
    /// `executions` are not this method's business.
    ///
    /// # Errors
    /// [`PrepareError`], after which the work's remaining units fail, or wait for room.
    async fn prepare(
        &self,
        lease: LeaseId,
        units: &[UnitIndex],
        spec: v1::LeaseSpec,
    ) -> Result<v1::LeaseSpec, PrepareError>;
}

/// Why a lease's specification could not be made.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PrepareError {
    /// The store takes nothing. If nothing is begun for that ([`Dispatcher::hold`](super::Dispatcher::hold)), the units
    /// wait with the rest until there is room.
    #[error("the batch could not be prepared: {detail}")]
    NoRoom {
        /// What was tried and what came back.
        detail: String,
    },
    /// Its work cannot run now. Trying again may help.
    #[error("the batch could not be prepared: {detail}")]
    Failed {
        /// What was tried and what came back.
        detail: String,
    },
}

impl From<&StoreError> for PrepareError {
    fn from(error: &StoreError) -> Self {
        let detail = error.to_string();
        match error {
            StoreError::Full { .. } | StoreError::Exhausted { .. } => Self::NoRoom { detail },
            StoreError::NotFound { .. }
            | StoreError::OutOfRange { .. }
            | StoreError::Corrupt { .. }
            | StoreError::Undecodable { .. }
            | StoreError::Away { .. }
            | StoreError::Unavailable { .. } => Self::Failed { detail },
        }
    }
}
