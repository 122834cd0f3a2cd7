//! The port between an agent and whatever runs commands.

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use regatta_model::{ImageReference, NetworkAccess, Resources, RootDirectory};
use tokio_util::sync::CancellationToken;

/// Makes containers ready to run commands.
#[async_trait]
pub trait ContainerRuntime: fmt::Debug + Send + Sync + 'static {
    /// `docker` or `process`.
    fn name(&self) -> &'static str;

    /// Whom commands run as: user and group, by number.
    fn user(&self) -> (u32, u32);

    /// Whether a container can have [`RootDirectory::InputRoot`] here.
    fn can_change_root(&self) -> bool;

    /// Asks the engine whether it is there.
    ///
    /// # Errors
    /// It does not answer.
    async fn ping(&self) -> Result<(), RuntimeError>;

    /// The images that start without a pull, as (reference, content id).
    ///
    /// # Errors
    /// The engine does not answer.
    async fn images(&self) -> Result<Vec<(ImageReference, String)>, RuntimeError>;

    /// An item for everything from this call on that may change what [`images`](Self::images) tells. It ends, perhaps
    /// with an error, when the engine goes; that of a runtime whose images never change has no item and no end.
    fn image_changes(&self) -> BoxStream<'static, Result<(), RuntimeError>>;

    /// Makes sure that an image is here, pulling it if it must, and tells its content id, which is `id` if one is
    /// given: then the name may mean another one by now.
    ///
    /// # Errors
    /// [`RuntimeError::ImageUnavailable`] or [`RuntimeError::RegistryUnreachable`] if it cannot be had.
    async fn ensure_image(
        &self,
        image: &ImageReference,
        id: Option<&str>,
    ) -> Result<String, RuntimeError>;

    /// Starts a container whose init waits for commands.
    ///
    /// # Errors
    /// [`RuntimeError::ImageUnavailable`], or the engine failed.
    async fn start(&self, shape: &ContainerShape) -> Result<Box<dyn Container>, RuntimeError>;

    /// Removes whatever earlier processes of the same agent left behind, and what agents of this machine
    /// left that are gone; tells how many containers that were. What a live agent has is not touched.
    ///
    /// # Errors
    /// The engine does not answer.
    async fn reap(&self) -> Result<usize, RuntimeError>;
}

/// A warm container. Dropping it without [`Container::stop`] still ends its processes: its init ends
/// when its control connection does, and the engine then removes it.
#[async_trait]
pub trait Container: fmt::Debug + Send {
    /// The engine's content id of the image; empty without images.
    fn image_id(&self) -> &str;

    /// The `PATH` that the image gives to what runs in it, if it gives one.
    fn search_path(&self) -> Option<&str>;

    /// Where views appear inside: the shape's work path, or where a runtime without images has to put
    /// them instead.
    fn work_path(&self) -> &Path;

    /// Shows `lower` at the work path as a copy-on-write view that nothing was done through, and returns the view's root.
    /// Nothing written through the view reaches `lower`. At most one view exists at a time.
    ///
    /// # Errors
    /// The view could not be made.
    async fn mount(&mut self, lower: &Path) -> Result<Arc<OwnedFd>, RuntimeError>;

    /// Runs a command until it exits, exceeds its timeout or is cancelled; then no process of it is left.
    ///
    /// # Errors
    /// The engine or the container failed; the container is of no more use.
    async fn execute(
        &mut self,
        command: ContainerCommand,
        cancel: CancellationToken,
    ) -> Result<Exit, RuntimeError>;

    /// Kills every process but init, empties the scratch space, and drops the view with all that was done through it. A
    /// view that nothing was done through may stay for the next mount of the same tree.
    ///
    /// # Errors
    /// Something survived; the container must be stopped.
    async fn wipe(&mut self) -> Result<(), RuntimeError>;

    /// Ends the container and everything in it.
    ///
    /// # Errors
    /// The engine did not confirm it.
    async fn stop(self: Box<Self>) -> Result<(), RuntimeError>;
}

/// What containers must agree in to be interchangeable.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ContainerShape {
    /// The image; `None` for a runtime without images.
    pub image: Option<ImageReference>,
    /// The content id that the image has to have; `None` for whatever its name means.
    pub image_id: Option<String>,
    /// Where views of input trees appear in the container; absolute.
    pub work_path: PathBuf,
    /// What commands see at `/`.
    pub root: RootDirectory,
    /// Limits; zero means no limit.
    pub resources: Resources,
    /// Whether there is a network beyond loopback.
    pub network: NetworkAccess,
}

impl ContainerShape {
    /// Whether this is the same but for what the image's name has to mean.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        let image_id = self.image_id.clone();
        *self
            == Self {
                image_id,
                ..other.clone()
            }
    }
}

/// A command for a container.
#[derive(Debug)]
pub struct ContainerCommand {
    /// `argv`, not empty. `argv[0]` without a slash is looked up in the `PATH` of `environment`;
    /// a relative one with a slash begins at the working directory.
    pub arguments: Vec<String>,
    /// The whole environment.
    pub environment: BTreeMap<String, String>,
    /// Relative to the work path, or to `/` where that is the input root; empty for that itself. It exists.
    pub working_directory: PathBuf,
    /// Where standard output goes: a file or pipe, handed to the command as it is.
    pub stdout: OwnedFd,
    /// Where standard error goes.
    pub stderr: OwnedFd,
    /// Where standard input comes from; without it, there is none to read.
    pub stdin: Option<OwnedFd>,
    /// How long it may run, from exec to exit.
    pub timeout: Duration,
}

/// How a command ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Exit {
    /// Why it ended.
    pub status: ExitStatus,
    /// What it used, with its descendants.
    pub usage: Usage,
    /// From exec to exit.
    pub wall_time: Duration,
}

/// Why a command ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ExitStatus {
    /// It exited with this code.
    Code(i32),
    /// A signal ended it that nobody here sent.
    Signal(i32),
    /// It ran too long and was killed.
    TimedOut,
    /// The kernel killed it, or a descendant, for want of memory.
    OutOfMemory,
    /// It was killed because it was cancelled.
    Cancelled,
    /// It could not be started: there is no such program, or it is not executable.
    NotStarted {
        /// The errno of the exec.
        errno: i32,
    },
}

/// What a command used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// CPU time in user mode.
    pub user_cpu: Duration,
    /// CPU time in the kernel.
    pub system_cpu: Duration,
    /// The largest resident set of any one process, in bytes.
    pub peak_memory_bytes: u64,
}

/// What can go wrong between an agent and its runtime.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The image is not here, and whoever was asked for it says no. Fix its name or provide it; another
    /// machine may have it.
    #[error("image {image} cannot be had: {detail}")]
    ImageUnavailable {
        /// The image asked for.
        image: String,
        /// What was said, and what to do.
        detail: String,
    },
    /// The image is not here, and nobody could be asked for it. Trying again, or elsewhere, may help, and
    /// so does providing it.
    #[error("image {image} is not on this machine, and no registry gave it: {detail}")]
    RegistryUnreachable {
        /// The image asked for.
        image: String,
        /// What went wrong, and what to do.
        detail: String,
    },
    /// The engine does not answer or refuses. Trying again, or elsewhere, may help.
    #[error("{operation} failed: {detail}")]
    Engine {
        /// What was tried.
        operation: &'static str,
        /// What the engine said.
        detail: String,
    },
    /// The container died or its init does not answer. Start another.
    #[error("the container is gone: {detail}")]
    ContainerLost {
        /// What was seen.
        detail: String,
    },
    /// The input root cannot be a root directory: a file of it is in the way. Fix the tree.
    #[error("the input root cannot be the root directory: {detail}")]
    UnfitTree {
        /// What is in the way.
        detail: String,
    },
    /// The kernel refused something that the probe had allowed.
    #[error("{operation} failed")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}
