//! The runtime of plain processes.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt as _};
use regatta_model::{ImageReference, NetworkAccess};
use tokio::process::{Child, Command};

use super::container::ProcessContainer;
use crate::control::{ControlListener, InitConnection, lost};
use crate::engine_error::io_error;
use crate::own_user::own_user;
use crate::port::{Container, ContainerRuntime, ContainerShape, RuntimeError};
use crate::run_directory::{ContainerDirectory, RunDirectory};
use crate::view::{ViewStrategy, Views, probe};

/// How a process runtime works.
#[derive(Clone, Debug)]
pub struct ProcessOptions {
    /// A directory of this agent alone.
    pub run_directory: PathBuf,
    /// Directories that commands see as empty, such as the agent's state and cache. Works with
    /// namespaces alone.
    pub hidden: Vec<PathBuf>,
}

/// What separates commands from the machine, found out by trying.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ProcessIsolation {
    /// Namespaces for mounts, processes, IPC and, unless the job asks for it, the network; no
    /// capabilities; private scratch space. The machine's files are visible, and limits do not apply.
    Namespaces,
    /// Nothing but their sessions: commands are processes of the agent's user.
    Nothing {
        /// Why, for people.
        reason: String,
    },
}

impl fmt::Display for ProcessIsolation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespaces => formatter.write_str("namespaces"),
            Self::Nothing { reason } => write!(formatter, "nothing, because {reason}"),
        }
    }
}

/// Runs commands without a container engine.
#[derive(Debug)]
pub struct ProcessRuntime {
    options: ProcessOptions,
    run_directory: Arc<RunDirectory>,
    isolation: ProcessIsolation,
    views: Views,
}

impl ProcessRuntime {
    /// Makes the run directory, and finds out what isolation and views can be had.
    ///
    /// # Errors
    /// The run directory cannot be made.
    pub async fn new(options: ProcessOptions) -> Result<Self, RuntimeError> {
        Self::with_isolation(options, true).await
    }

    /// As [`ProcessRuntime::new`], but without the namespaces that only root can have.
    ///
    /// # Errors
    /// The run directory cannot be made.
    pub async fn without_namespaces(options: ProcessOptions) -> Result<Self, RuntimeError> {
        Self::with_isolation(options, false).await
    }

    async fn with_isolation(options: ProcessOptions, wanted: bool) -> Result<Self, RuntimeError> {
        let run_directory = RunDirectory::create(&options.run_directory)
            .map_err(io_error("make the run directory"))?;
        let reason = if wanted {
            "it was not tried yet"
        } else {
            "it was asked to use no namespaces"
        };
        let isolation = ProcessIsolation::Nothing {
            reason: reason.to_owned(),
        };
        let views = Views::Copy {
            reason: "there is no mount namespace".to_owned(),
        };
        let mut runtime = Self {
            options,
            run_directory,
            isolation,
            views,
        };
        if wanted {
            runtime.isolate().await;
        }
        Ok(runtime)
    }

    /// What separates commands from the machine.
    #[must_use]
    pub fn isolation(&self) -> &ProcessIsolation {
        &self.isolation
    }

    /// How views are made here, and why not better.
    #[must_use]
    pub fn view_strategy(&self) -> ViewStrategy {
        self.views.strategy()
    }

    /// Uses namespaces if a trial container with all of them starts.
    async fn isolate(&mut self) {
        if !rustix::process::geteuid().is_root() {
            let reason = "namespaces need root".to_owned();
            self.isolation = ProcessIsolation::Nothing { reason };
            return;
        }
        self.isolation = ProcessIsolation::Namespaces;
        match self.launch(NetworkAccess::Off).await {
            Ok(trial) => {
                self.views = probe(&self.run_directory.path());
                trial.end().await;
            }
            Err(error) => {
                self.isolation = ProcessIsolation::Nothing {
                    reason: error.to_string(),
                };
            }
        }
    }

    async fn launch(&self, network: NetworkAccess) -> Result<Launched, RuntimeError> {
        let directory = self
            .run_directory
            .container()
            .map_err(io_error("make a container's directory"))?;
        let listener =
            ControlListener::bind(&directory.control()).map_err(io_error("listen for the init"))?;
        let mut init = self
            .spawn(&directory, network)
            .map_err(io_error("start the init"))?;
        let connection = tokio::select! {
            connection = listener.accept() => connection?,
            status = init.wait() => {
                let status = status.map_or_else(|error| error.to_string(), |s| s.to_string());
                return Err(lost(format!("its init ended before it called back: {status}")));
            }
        };
        Ok(Launched {
            directory,
            init,
            connection,
        })
    }

    fn spawn(&self, directory: &ContainerDirectory, network: NetworkAccess) -> io::Result<Child> {
        let mut command = Command::new(self.run_directory.init());
        match &self.isolation {
            ProcessIsolation::Nothing { .. } => {
                command.arg("serve").arg(directory.socket());
            }
            ProcessIsolation::Namespaces => {
                command
                    .arg("enclose")
                    .arg(directory.socket())
                    .arg(directory.work());
                if network == NetworkAccess::Off {
                    command.arg("--isolate-network");
                }
                for hidden in &self.options.hidden {
                    command.arg("--hide").arg(hidden);
                }
            }
        }
        command
            .env_clear()
            .current_dir("/")
            // A Ctrl-C at the agent's terminal is for the agent to handle.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
    }
}

/// An init that has called back.
pub(super) struct Launched {
    /// Of the container.
    pub(super) directory: ContainerDirectory,
    /// What was spawned: the init, or its parent outside of the namespaces.
    pub(super) init: Child,
    /// To the init.
    pub(super) connection: InitConnection,
}

impl Launched {
    async fn end(mut self) {
        drop(self.connection);
        if let Err(error) = self.init.wait().await {
            tracing::debug!(%error, "the trial container did not end");
        }
    }
}

#[async_trait]
impl ContainerRuntime for ProcessRuntime {
    fn name(&self) -> &'static str {
        "process"
    }

    fn user(&self) -> (u32, u32) {
        own_user()
    }

    fn can_change_root(&self) -> bool {
        matches!(self.views, Views::Overlay(_)) && self.isolation == ProcessIsolation::Namespaces
    }

    async fn ping(&self) -> Result<(), RuntimeError> {
        // There is none: whoever asks is there.
        Ok(())
    }

    async fn images(&self) -> Result<Vec<(ImageReference, String)>, RuntimeError> {
        Ok(Vec::new())
    }

    fn image_changes(&self) -> BoxStream<'static, Result<(), RuntimeError>> {
        stream::pending().boxed()
    }

    async fn ensure_image(
        &self,
        image: &ImageReference,
        _: Option<&str>,
    ) -> Result<String, RuntimeError> {
        Err(RuntimeError::ImageUnavailable {
            image: image.to_string(),
            detail:
                "the process runtime has no images; run the agent with docker, or leave the image \
                     out"
                .to_owned(),
        })
    }

    async fn start(&self, shape: &ContainerShape) -> Result<Box<dyn Container>, RuntimeError> {
        if let Some(image) = &shape.image {
            self.ensure_image(image, None).await?;
        }
        let launched = self.launch(shape.network).await?;
        let namespaces = self.isolation == ProcessIsolation::Namespaces;
        Ok(Box::new(ProcessContainer::new(
            launched,
            &self.views,
            shape.root,
            namespaces,
        )))
    }

    async fn reap(&self) -> Result<usize, RuntimeError> {
        let run_directory = Arc::clone(&self.run_directory);
        let removed = tokio::task::spawn_blocking(move || run_directory.remove_stale()).await;
        let removed = removed.unwrap_or_else(|error| Err(io::Error::other(error)));
        removed.map_err(io_error("remove stale directories"))
    }
}
