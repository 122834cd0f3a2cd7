//! What whoever runs a coordinator may choose.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use regatta_ledger::{Inheritance, PostgresAddress};
use regatta_model::{ImageReference, Platform, Resources, TenantId};

use crate::retention::CacheSettings;
use crate::runs::AuditShare;
use crate::storage::url_of;

/// The port that REAPI servers commonly listen on.
pub const DEFAULT_GRPC_PORT: u16 = 8980;
/// The port for metrics and health.
pub const DEFAULT_HTTP_PORT: u16 = 8981;

/// How long runs are kept after they ended.
const DEFAULT_KEEP_RUNS: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// What comes after the URL in the name of a storage in which small blobs are stored apart.
pub(crate) const WITHOUT_PACKS: &str = " (without packs)";

/// The name of a storage that is in the same state directory as the ledger.
const STATE_DIRECTORY: &str = "the state directory";

/// A coordinator's settings. [`CoordinatorConfig::new`] has the defaults.
#[derive(Clone, Debug)]
pub struct CoordinatorConfig {
    /// Where gRPC is served; port 0 takes a free one. Default: 127.0.0.1:8980.
    pub listen: SocketAddr,
    /// Where metrics and health are served; nowhere if `None`. Default: 127.0.0.1:8981.
    pub http_listen: Option<SocketAddr>,
    /// Where everything is kept that must outlive the process. One coordinator at a time uses it.
    pub state_directory: PathBuf,
    /// The URL below which blobs (`cas`), action results (`ac`), packs of both and `assets` are stored: `file:///directory`,
    /// `s3://bucket/prefix`, `memory://`. Default: the state directory.
    pub storage: Option<String>,
    /// Whether small blobs and action results are packed in a bucket, in which each object costs requests. All
    /// coordinators that share a bucket must agree. In a directory nothing is packed. Default: yes.
    pub pack_small_blobs: bool,
    /// The database in which runs, and what was learnt of tests, are remembered; one coordinator at a time has it.
    /// Default: a file in the state directory.
    pub ledger: Option<PostgresAddress>,
    /// What becomes of a ledger with runs whose last coordinator had another storage or another key. Default: it is
    /// refused.
    pub inheritance: Inheritance,
    /// Whether it may be one of several that share a ledger and a storage: if it loses the ledger for a while, it
    /// ends, for another one may go on. Default: no.
    pub standby: bool,
    /// The image for work that names none. Default: none, which leaves it to the agent.
    pub default_image: Option<ImageReference>,
    /// What work uses that does not say so. Default: one CPU, and the agent's own share of memory.
    pub default_resources: Resources,
    /// How long a command may run that names no timeout. Default: one hour.
    pub default_timeout: Duration,
    /// The longest timeout that may be asked for. Default: 24 hours.
    pub maximum_timeout: Duration,
    /// How long an action goes on that nobody watches. Default: 30 s.
    pub unwatched_grace: Duration,
    /// How often agents report when nothing changes; silent for three times that, they are lost.
    /// Default: 5 s.
    pub heartbeat_interval: Duration,
    /// How many units of work may wait. One tenant may take up half of it. Default: 2,000,000.
    pub queue_limit_units: usize,
    /// The shares of tenants in the fleet, relative to each other; a tenant that is not named has a share
    /// of 1. Default: empty.
    pub tenant_weights: BTreeMap<TenantId, NonZeroU32>,
    /// Platform properties that the actions of a tenant's clients have as well, except for names that an
    /// action has itself. Results of before a change are not found after it. Default: empty.
    pub tenant_properties: BTreeMap<TenantId, Platform>,
    /// The file with the key that signs verdicts. Default: one in the state directory, which is made if it
    /// is not there.
    pub verdict_key: Option<PathBuf>,
    /// How long work that no agent of the fleet can run waits for one that can. Default: 10 s.
    pub unsatisfiable_grace: Duration,
    /// How long work waits while there is no agent at all. Default: 60 s.
    pub no_agent_grace: Duration,
    /// The tenants whose clients may write action results, which makes them as trusted as agents: what one
    /// of them writes, all of the tenant are served. Default: none.
    pub clients_may_write: BTreeSet<TenantId>,
    /// The share of cached passes that a run executes all the same, if it executes anything. Default: one of
    /// a hundred.
    pub audit_share: AuditShare,
    /// How much is kept of what can be made again. Default: as much as the disk holds.
    pub cache: CacheSettings,
    /// How long the ledger keeps runs after they ended; for ever if `None`. Default: 90 days.
    pub keep_runs: Option<Duration>,
}

impl CoordinatorConfig {
    /// The defaults, with everything kept in `state_directory`.
    #[must_use]
    pub fn new(state_directory: impl Into<PathBuf>) -> Self {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Self {
            listen: SocketAddr::new(loopback, DEFAULT_GRPC_PORT),
            http_listen: Some(SocketAddr::new(loopback, DEFAULT_HTTP_PORT)),
            state_directory: state_directory.into(),
            storage: None,
            pack_small_blobs: true,
            ledger: None,
            inheritance: Inheritance::default(),
            standby: false,
            default_image: None,
            default_resources: Resources {
                cpu_milli: 1000,
                memory_bytes: 0,
            },
            default_timeout: Duration::from_secs(60 * 60),
            maximum_timeout: Duration::from_secs(24 * 60 * 60),
            unwatched_grace: Duration::from_secs(30),
            heartbeat_interval: Duration::from_secs(5),
            queue_limit_units: 2_000_000,
            tenant_weights: BTreeMap::new(),
            tenant_properties: BTreeMap::new(),
            verdict_key: None,
            unsatisfiable_grace: Duration::from_secs(10),
            no_agent_grace: Duration::from_secs(60),
            clients_may_write: BTreeSet::new(),
            audit_share: AuditShare::DEFAULT,
            cache: CacheSettings::default(),
            keep_runs: Some(DEFAULT_KEEP_RUNS),
        }
    }

    /// Where a coordinator stores things, and how, as its ledger remembers it. `state` is its state directory.
    pub(crate) fn storage_name(&self, state: &Path) -> String {
        let packs = match self.pack_small_blobs {
            true => "",
            false => WITHOUT_PACKS,
        };
        match (&self.storage, &self.ledger) {
            (Some(url), _) => format!("{}{packs}", url.trim_end_matches('/')),
            (None, Some(_)) => url_of(state),
            // A ledger that lies there moves with it.
            (None, None) => STATE_DIRECTORY.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_that_clients_count_on() {
        let config = CoordinatorConfig::new("state");
        assert_eq!(config.unwatched_grace, Duration::from_secs(30));
        assert_eq!(config.listen.port(), 8980);
        assert!(config.listen.ip().is_loopback());
        assert!(config.clients_may_write.is_empty(), "only agents write");
        assert!(config.default_timeout <= config.maximum_timeout);
    }
}
