//! Containers of a Docker engine: the only place that knows of one.

mod container;
mod engine;
mod options;
mod owner;
mod pull_failure;
mod runtime;
mod specification;
mod unclaimed;

pub use container::DockerContainer;
pub use engine::ConnectError;
pub use options::DockerOptions;
pub use runtime::DockerRuntime;
pub use specification::INIT_PATH;
