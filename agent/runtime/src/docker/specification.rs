//! What a container looks like to Docker.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigLogConfig, Mount, MountType,
};
use regatta_model::{NetworkAccess, RootDirectory};

use super::options::DockerOptions;
use super::owner::Owner;
use crate::port::ContainerShape;
use crate::run_directory::ContainerDirectory;

/// Where the init is in every Docker container. It can be run there as a command, too:
/// `INIT_PATH probe-libraries NAME...` prints which shared libraries the image lacks.
pub const INIT_PATH: &str = "/.regatta/init";

/// The label that names the agent.
pub(crate) const AGENT_LABEL: &str = "dev.regatta.agent";

/// The label that names one life of the runtime.
pub(crate) const INSTANCE_LABEL: &str = "dev.regatta.instance";

/// The label that names the process, so that other agents can tell when it is gone.
pub(crate) const OWNER_LABEL: &str = "dev.regatta.owner";

/// Where the control directory is in a container.
const CONTROL_PATH: &str = "/.regatta";

/// Every container has the same name for itself, so that no result depends on it.
const HOSTNAME: &str = "regatta";

/// Scratch space that every container has, whatever its image.
const SCRATCH: [&str; 2] = ["/tmp", "/var/tmp"];

/// Scratch space that Docker itself makes.
const SCRATCH_OF_DOCKER: [&str; 2] = ["/dev/shm", "/dev/mqueue"];

/// Everything that goes into one container's specification.
pub(crate) struct Specification<'a> {
    pub(crate) options: &'a DockerOptions,
    pub(crate) shape: &'a ContainerShape,
    pub(crate) image_id: &'a str,
    /// Directories that the image wants to be writable.
    pub(crate) volumes: &'a [String],
    pub(crate) directory: &'a ContainerDirectory,
    pub(crate) instance: &'a str,
    /// The agent's process, if it could be made out.
    pub(crate) owner: Option<&'a Owner>,
    /// Who runs the init and the commands.
    pub(crate) user: (u32, u32),
}

impl Specification<'_> {
    /// What Docker is asked for.
    pub(crate) fn body(&self) -> ContainerCreateBody {
        let owner = self
            .owner
            .map(|owner| (OWNER_LABEL.to_owned(), owner.label()));
        let labels = [
            (AGENT_LABEL.to_owned(), self.options.agent.to_string()),
            (INSTANCE_LABEL.to_owned(), self.instance.to_owned()),
        ];
        ContainerCreateBody {
            hostname: Some(HOSTNAME.to_owned()),
            user: Some(format!("{}:{}", self.user.0, self.user.1)),
            entrypoint: Some(vec![INIT_PATH.to_owned()]),
            cmd: Some(vec!["serve".to_owned(), format!("{CONTROL_PATH}/socket")]),
            image: Some(self.image_id.to_owned()),
            working_dir: Some("/".to_owned()),
            // An image's health check would start processes behind the init's back.
            healthcheck: Some(HealthConfig {
                test: Some(vec!["NONE".to_owned()]),
                ..HealthConfig::default()
            }),
            labels: Some(labels.into_iter().chain(owner).collect()),
            host_config: Some(self.host_config()),
            ..ContainerCreateBody::default()
        }
    }

    /// Directories to empty between commands.
    pub(crate) fn scratch(&self) -> Vec<PathBuf> {
        let of_docker = SCRATCH_OF_DOCKER.iter().map(PathBuf::from);
        self.temporary()
            .map(PathBuf::from)
            .chain(of_docker)
            .collect()
    }

    fn temporary(&self) -> impl Iterator<Item = &str> {
        SCRATCH
            .into_iter()
            .chain(self.volumes.iter().map(String::as_str))
    }

    fn host_config(&self) -> HostConfig {
        let resources = self.shape.resources;
        let memory = limit(resources.memory_bytes);
        HostConfig {
            memory,
            // Equal to memory: no swap.
            memory_swap: memory,
            nano_cpus: limit(resources.cpu_milli.saturating_mul(1_000_000)),
            pids_limit: Some(i64::from(self.options.pids_limit)),
            mounts: Some(vec![
                bind(&self.directory.control(), Path::new(CONTROL_PATH), true),
                bind(&self.directory.work(), &self.shape.work_path, false),
            ]),
            tmpfs: Some(self.tmpfs()),
            shm_size: limit(self.options.shared_memory_bytes),
            auto_remove: Some(true),
            readonly_rootfs: Some(true),
            cap_drop: Some(vec!["ALL".to_owned()]),
            cap_add: self.capabilities(),
            security_opt: Some(vec!["no-new-privileges".to_owned()]),
            network_mode: Some(network(self.shape.network).to_owned()),
            ipc_mode: Some("private".to_owned()),
            log_config: Some(HostConfigLogConfig {
                typ: Some("none".to_owned()),
                ..HostConfigLogConfig::default()
            }),
            ..HostConfig::default()
        }
    }

    /// The init changes the root directory of commands, and takes the capability for it from them.
    fn capabilities(&self) -> Option<Vec<String>> {
        match self.shape.root {
            RootDirectory::Image => None,
            RootDirectory::InputRoot => Some(vec!["SYS_CHROOT".to_owned()]),
        }
    }

    fn tmpfs(&self) -> HashMap<String, String> {
        let options = format!(
            "rw,exec,nosuid,nodev,mode=1777,size={}",
            self.options.scratch_bytes
        );
        self.temporary()
            .map(|path| (path.to_owned(), options.clone()))
            .collect()
    }
}

fn bind(source: &Path, target: &Path, read_only: bool) -> Mount {
    Mount {
        typ: Some(MountType::BIND),
        source: Some(source.to_string_lossy().into_owned()),
        target: Some(target.to_string_lossy().into_owned()),
        read_only: Some(read_only),
        ..Mount::default()
    }
}

fn network(access: NetworkAccess) -> &'static str {
    match access {
        NetworkAccess::Off => "none",
        NetworkAccess::On => "default",
    }
}

/// Zero means no limit, to the port; to Docker, absence does.
fn limit(value: u64) -> Option<i64> {
    if value == 0 {
        None
    } else {
        Some(i64::try_from(value).unwrap_or(i64::MAX))
    }
}
