//! What the core is told at its start, and what it holds itself to.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::container::Shape;

/// How often to report before the coordinator has said how often.
pub const DEFAULT_HEARTBEAT_INTERVAL: Duration = Duration::from_secs(2);
/// What intervals the coordinator may ask for; others are moved to the nearer end.
pub const HEARTBEAT_INTERVAL_LIMITS: RangeInclusive<Duration> =
    Duration::from_millis(50)..=Duration::from_secs(60);
/// How long the report that a lease has started may wait for something more important to say.
pub const STARTED_REPORT_DELAY: Duration = Duration::from_millis(100);
/// How long a container waits for the next lease of its run before an unused one takes its place.
pub const RUN_CONTAINER_IDLE_LIMIT: Duration = Duration::from_secs(10);
/// How long to wait after a container that was to be started ahead was lost.
pub const WARM_RETRY_DELAY: Duration = Duration::from_secs(30);
/// How long a draining agent that runs nothing waits for its last outcomes to be acknowledged.
pub const UNACKNOWLEDGED_EXIT_LIMIT: Duration = Duration::from_secs(10);

/// What the core is told at its start.
#[derive(Clone, Debug)]
pub struct CoreConfig {
    /// How many leases at once.
    pub slots: u32,
    /// The containers to start ahead before anything is known of the work; none if `None`.
    pub default_shape: Option<Shape>,
    /// How long a drain may take.
    pub drain_timeout: Duration,
}
