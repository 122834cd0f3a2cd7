//! Why an agent cannot go on.

use std::io;
use std::path::PathBuf;

use regatta_cas::ParseServerAddressesError;
use regatta_model::{AgentId, InvalidIdError};
use regatta_runtime::RuntimeError;

/// Why an agent does not start, or ends by itself.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The coordinator's address cannot be used. Fix the configuration.
    #[error("the coordinator's address cannot be used")]
    InvalidCoordinator {
        /// What is wrong with it.
        source: ParseServerAddressesError,
    },
    /// A setting that cannot work. Fix the configuration.
    #[error("{setting} must be {requirement}")]
    InvalidSetting {
        /// Which setting.
        setting: &'static str,
        /// What it must be.
        requirement: &'static str,
    },
    /// The state directory cannot be used. Fix its permissions, or choose another.
    #[error("cannot use state directory {}: {operation} failed", path.display())]
    StateDirectory {
        /// What was tried.
        operation: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Another agent uses the state directory. Stop it, or choose another directory.
    #[error("another agent uses state directory {}: stop it, or give this one its own", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// The name kept in the state directory is not one. Remove the file, or give a name.
    #[error("the agent id in {} is not valid", path.display())]
    InvalidAgentId {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: InvalidIdError,
    },
    /// The coordinator speaks another version of the protocol. Upgrade the older of the two.
    #[error("the coordinator refuses this agent: {detail}")]
    Refused {
        /// What the coordinator said.
        detail: String,
    },
    /// Another process has taken over this agent's name. One of the two must go.
    #[error("a newer process is connected as agent {agent}: {detail}")]
    Superseded {
        /// The name.
        agent: AgentId,
        /// What the coordinator said.
        detail: String,
    },
    /// What earlier processes left could not be removed, or the engine does not answer.
    #[error("the container runtime is not usable")]
    Runtime(#[from] RuntimeError),
}
