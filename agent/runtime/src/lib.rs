//! The port between an agent and whatever runs commands, and its adapters.
//!
//! Responsibility: warm containers. Starting one is slow and done ahead; running a command in one is a
//! mount, a message, a fork and an exec.
//!
//! Invariants:
//! - No process, mount, container or file outlives its agent by more than its init takes to notice:
//!   everything hangs on one Unix stream between agent and init, which a `kill -9` closes as well.
//! - No mount ever appears in the agent's mount namespace: views are made detached and moved into the
//!   container's namespace, which takes them along when it ends.
//! - Nothing a command does changes the tree that its view shows (`ProcessRuntime` without privileges
//!   isolates nothing else: there a command is a process of the agent's user).
//! - Every call to an engine and every wait for an init has a named bound; none hangs.
//! - Docker is named nowhere outside of [`docker`], and this crate knows no lease, task or digest.

#[cfg(feature = "testing")]
pub mod conformance;
mod control;
pub mod docker;
mod engine_error;
mod execution;
#[cfg(feature = "testing")]
pub mod fake;
mod init_binary;
mod memory_events;
mod own_user;
mod port;
pub mod process;
mod run_directory;
mod view;

pub use docker::{DockerOptions, DockerRuntime};
pub use init_binary::INIT_BINARY;
#[cfg(feature = "testing")]
pub use init_binary::TESTEE_BINARY;
pub use port::{
    Container, ContainerCommand, ContainerRuntime, ContainerShape, Exit, ExitStatus, RuntimeError,
    Usage,
};
pub use process::{ProcessIsolation, ProcessOptions, ProcessRuntime};
pub use view::ViewStrategy;
