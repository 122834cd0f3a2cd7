//! What runs stand on.

use std::sync::Arc;

use regatta_cas::{BlobStore, Durability, WrongReads};
use regatta_ledger::Ledger;

use super::audit::AuditShare;
use crate::action_cache::ActionCache;
use crate::action_plan::PlanDefaults;
use crate::cas::{InputTrees, TenantViews};
use crate::dispatch::Dispatcher;

/// What runs stand on.
#[derive(Clone, Debug)]
pub struct RunServices {
    /// Gives work to agents.
    pub dispatcher: Arc<Dispatcher>,
    /// Known results.
    pub results: Arc<ActionCache>,
    /// All blobs.
    pub blobs: Arc<dyn BlobStore>,
    /// The blobs, which stay for as long as a tenant's verdicts are kept once they were asked for here.
    pub for_verdicts: TenantViews<dyn BlobStore>,
    /// What makes them safe from a loss of power, if that can take them.
    pub durability: Option<Arc<dyn Durability>>,
    /// When the store sent wrong bytes.
    pub wrong_reads: WrongReads,
    /// Tells whether input roots are complete.
    pub trees: Arc<InputTrees>,
    /// What must be remembered.
    pub ledger: Arc<dyn Ledger>,
    /// What applies where a job says nothing.
    pub defaults: PlanDefaults,
    /// Which cached passes are executed all the same.
    pub audit_share: AuditShare,
}
