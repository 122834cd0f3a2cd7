//! What an agent is told at its start.

use std::path::PathBuf;
use std::time::Duration;

use regatta_model::{AgentId, ImageReference, Resources};

/// Where input trees appear in a container when a lease does not say.
const DEFAULT_WORK_PATH: &str = "/work";
const GIB: u64 = 1 << 30;

/// The settings of an agent. [`AgentConfig::new`] has the defaults.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// The coordinator's gRPC address, as a URI: `http://host:port`; several are separated by commas, and tried in
    /// turn.
    pub coordinator: String,
    /// Where everything of this agent lives: its identity, blobs, trees and scratch space. One agent at
    /// a time uses it.
    pub state_directory: PathBuf,
    /// The agent's name; by default one that is made once and kept in the state directory.
    pub agent_id: Option<AgentId>,
    /// How many leases at once; by default one for each CPU.
    pub slots: u32,
    /// How much of the machine, for all leases together; by default all of it.
    pub resources: Resources,
    /// What actions may ask for besides the operating system, architecture, hostname and runtime.
    pub properties: Vec<(String, String)>,
    /// How much the blobs and input trees of all tenants together may take up, in bytes.
    pub cache_quota_bytes: u64,
    /// How much of the file system must stay free, in bytes; below it nothing new is taken.
    pub minimum_free_bytes: u64,
    /// What leases that name no image run in, and what containers are started ahead of.
    pub default_image: Option<ImageReference>,
    /// Where input trees appear when a lease does not say; absolute.
    pub work_path: String,
    /// How long a drain may take before what still runs is killed.
    pub drain_timeout: Duration,
    /// How much of each output stream of an execution is kept, in bytes.
    pub max_stream_bytes: u64,
    /// How large the outputs that one execution leaves behind may be together, in bytes, holes in sparse
    /// files included: they are read whole.
    pub max_output_bytes: u64,
}

impl AgentConfig {
    /// The defaults for this machine.
    #[must_use]
    pub fn new(coordinator: impl Into<String>, state_directory: impl Into<PathBuf>) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let slots = u32::try_from(cpus).unwrap_or(u32::MAX);
        let system = rustix::system::sysinfo();
        let memory_bytes = system.totalram.saturating_mul(u64::from(system.mem_unit));
        Self {
            coordinator: coordinator.into(),
            state_directory: state_directory.into(),
            agent_id: None,
            slots,
            resources: Resources {
                cpu_milli: u64::from(slots) * 1000,
                memory_bytes,
            },
            properties: Vec::new(),
            cache_quota_bytes: 20 * GIB,
            minimum_free_bytes: GIB,
            default_image: None,
            work_path: DEFAULT_WORK_PATH.to_owned(),
            drain_timeout: Duration::from_secs(300),
            max_stream_bytes: 64 << 20,
            max_output_bytes: 16 * GIB,
        }
    }

    /// Why not all slots work at once, for people; `None` if jobs that ask for one CPU, as they do by default, can.
    pub(crate) fn concurrency_limit(&self) -> Option<String> {
        let (slots, at_once) = (self.slots, self.resources.cpu_milli / 1000);
        (at_once < u64::from(slots)).then(|| {
            format!(
                "of {slots} slots {at_once} work at once where jobs ask for 1 CPU each, as they do by default, for the \
                 agent offers no more; let jobs ask for less in their `resources`, or offer more with `--cpus`"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_without_a_cpu_are_told_of() {
        let limit = |slots, cpu_milli| {
            let plain = AgentConfig::new("http://localhost:1", "state");
            let resources = Resources {
                cpu_milli,
                ..plain.resources
            };
            let config = AgentConfig {
                slots,
                resources,
                ..plain
            };
            config.concurrency_limit()
        };
        assert_eq!(limit(2, 2000), None);
        assert_eq!(limit(2, 8000), None);
        let told = limit(4, 2500).expect("not all slots work at once");
        assert!(told.starts_with("of 4 slots 2 work at once"), "{told}");
    }
}
