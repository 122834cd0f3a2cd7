//! What whoever runs a coordinator may choose.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use regatta_model::{ImageReference, Resources};

/// The port that REAPI servers commonly listen on.
pub const DEFAULT_GRPC_PORT: u16 = 8980;
/// The port for metrics and health.
pub const DEFAULT_HTTP_PORT: u16 = 8981;

/// A coordinator's settings. [`CoordinatorConfig::new`] has the defaults.
#[derive(Clone, Debug)]
pub struct CoordinatorConfig {
    /// Where gRPC is served; port 0 takes a free one. Default: 127.0.0.1:8980.
    pub listen: SocketAddr,
    /// Where metrics and health are served; nowhere if `None`. Default: 127.0.0.1:8981.
    pub http_listen: Option<SocketAddr>,
    /// Where everything is kept that must outlive the process. One coordinator at a time uses it.
    pub state_directory: PathBuf,
    /// The URL below which blobs (`cas`) and action results (`ac`) are stored: `file:///directory`,
    /// `s3://bucket/prefix`, `memory://`. Default: the state directory.
    pub storage: Option<String>,
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
    /// How many units of work may wait. Default: 2,000,000.
    pub queue_limit_units: usize,
    /// How long work that no agent of the fleet can run waits for one that can. Default: 10 s.
    pub unsatisfiable_grace: Duration,
    /// How long work waits while there is no agent at all. Default: 60 s.
    pub no_agent_grace: Duration,
    /// Whether clients may write action results, which makes whoever reaches the coordinator as
    /// trusted as an agent. Default: no.
    pub clients_may_write_action_results: bool,
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
            unsatisfiable_grace: Duration::from_secs(10),
            no_agent_grace: Duration::from_secs(60),
            clients_may_write_action_results: false,
        }
    }
}
