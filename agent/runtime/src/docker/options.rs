//! What a person may choose about Docker containers.

use std::path::PathBuf;

use regatta_model::AgentId;

/// The default for [`DockerOptions::pids_limit`].
const PIDS_LIMIT: u32 = 4096;

/// The default for [`DockerOptions::scratch_bytes`].
const SCRATCH_BYTES: u64 = 4 * 1024 * 1024 * 1024;

/// The default for [`DockerOptions::shared_memory_bytes`].
const SHARED_MEMORY_BYTES: u64 = 256 * 1024 * 1024;

/// How an agent's containers are made.
#[derive(Clone, Debug)]
pub struct DockerOptions {
    /// Whose containers they are; labels them, so that they can be reaped.
    pub agent: AgentId,
    /// A directory of this agent alone, on this machine's disk, that Docker can bind-mount from.
    pub run_directory: PathBuf,
    /// `uid[:gid]`, in numbers. By default the agent's own, without any capability, so that commands can
    /// write where the agent can clean up.
    pub user: Option<(u32, u32)>,
    /// How many processes and threads a container may have at once.
    pub pids_limit: u32,
    /// How much `/tmp` and `/var/tmp` may hold each. It counts as memory.
    pub scratch_bytes: u64,
    /// How much `/dev/shm` may hold. It counts as memory.
    pub shared_memory_bytes: u64,
    /// The engine's socket, as `unix:///path`; by default `DOCKER_HOST`, or where Docker puts it.
    pub host: Option<String>,
}

impl DockerOptions {
    /// The defaults.
    #[must_use]
    pub fn new(agent: AgentId, run_directory: PathBuf) -> Self {
        Self {
            agent,
            run_directory,
            user: None,
            pids_limit: PIDS_LIMIT,
            scratch_bytes: SCRATCH_BYTES,
            shared_memory_bytes: SHARED_MEMORY_BYTES,
            host: None,
        }
    }
}
