//! One warm Docker container.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use regatta_model::RootDirectory;
use rustix::process::{Gid, Uid};
use tokio_util::sync::CancellationToken;

use super::engine::Engine;
use crate::control::InitConnection;
use crate::engine_error::{io_error, view_error};
use crate::execution::{self, Executed, Place};
use crate::memory_events::MemoryEvents;
use crate::port::{
    Container, ContainerCommand, ContainerShape, Exit, ExitStatus, RuntimeError, Usage,
};
use crate::run_directory::ContainerDirectory;
use crate::view::{SlotPaths, ViewSlot, Views};

/// A container whose init is connected. Dropped, it ends by itself.
#[derive(Debug)]
pub struct DockerContainer {
    engine: Engine,
    id: String,
    image_id: String,
    search_path: Option<String>,
    connection: InitConnection,
    work_path: PathBuf,
    root: RootDirectory,
    scratch: Vec<PathBuf>,
    view: ViewSlot,
    memory_events: MemoryEvents,
    /// Goes last: the connection must be closed when the files go.
    directory: ContainerDirectory,
}

/// A container whose init has called back.
pub(super) struct Launched {
    pub(super) engine: Engine,
    pub(super) id: String,
    pub(super) image_id: String,
    pub(super) search_path: Option<String>,
    pub(super) connection: InitConnection,
    pub(super) directory: ContainerDirectory,
}

impl DockerContainer {
    /// Prepares views and counters.
    pub(super) async fn adopt(
        launched: Launched,
        views: &Views,
        shape: &ContainerShape,
        scratch: Vec<PathBuf>,
        user: (u32, u32),
    ) -> Result<Self, RuntimeError> {
        let Launched {
            engine,
            id,
            image_id,
            search_path,
            connection,
            directory,
        } = launched;
        let process = connection.process();
        let memory_events = process.map_or_else(MemoryEvents::unknown, |process| {
            MemoryEvents::of_process(process.pid)
        });
        let paths = SlotPaths {
            target: shape.work_path.clone(),
            layers: directory.views(),
            shown: directory.work(),
            root: shape.root,
        };
        let owner = (Uid::from_raw(user.0), Gid::from_raw(user.1));
        let handle = process.map(|process| Arc::clone(&process.handle));
        let view = ViewSlot::new(views, handle, paths, Some(owner));
        view.protect_devices()
            .await
            .map_err(io_error("make /dev read-only"))?;
        Ok(Self {
            engine,
            id,
            image_id,
            search_path,
            connection,
            work_path: shape.work_path.clone(),
            root: shape.root,
            scratch,
            view,
            memory_events,
            directory,
        })
    }

    /// What the kernel killed for want of memory fails for that reason, however its parent took it.
    fn judge(&mut self, mut exit: Exit) -> Exit {
        let killed = self.memory_events.has_killed();
        let blamed = !matches!(exit.status, ExitStatus::Code(0) | ExitStatus::Cancelled);
        if killed && blamed {
            exit.status = ExitStatus::OutOfMemory;
        }
        exit
    }

    /// The connection broke: if that was the kernel for want of memory, the command did it.
    async fn explain(&mut self, error: RuntimeError) -> Result<Exit, RuntimeError> {
        let RuntimeError::ContainerLost { .. } = error else {
            return Err(error);
        };
        let inspected = self.engine.was_killed_for_memory(&self.id).await;
        if inspected == Some(true) || self.memory_events.has_killed() {
            let wall_time = std::time::Duration::ZERO;
            return Ok(Exit {
                status: ExitStatus::OutOfMemory,
                usage: Usage::default(),
                wall_time,
            });
        }
        Err(error)
    }
}

#[async_trait]
impl Container for DockerContainer {
    fn image_id(&self) -> &str {
        &self.image_id
    }

    fn search_path(&self) -> Option<&str> {
        self.search_path.as_deref()
    }

    fn work_path(&self) -> &Path {
        &self.work_path
    }

    async fn mount(&mut self, lower: &Path) -> Result<Arc<OwnedFd>, RuntimeError> {
        self.view.mount(lower).await.map_err(view_error)
    }

    async fn execute(
        &mut self,
        command: ContainerCommand,
        cancel: CancellationToken,
    ) -> Result<Exit, RuntimeError> {
        let place = Place {
            work_path: &self.work_path,
            root: self.root,
        };
        match execution::execute(&mut self.connection, place, command, &cancel).await {
            Ok(Executed::Ended(exit)) => Ok(self.judge(exit)),
            Ok(Executed::Stuck(exit)) => {
                tracing::warn!(container = %self.id, "the init did not confirm a kill");
                self.engine.remove(&self.id).await?;
                Ok(exit)
            }
            Err(error) => self.explain(error).await,
        }
    }

    async fn wipe(&mut self) -> Result<(), RuntimeError> {
        let emptied = execution::wipe(&mut self.connection, &self.scratch);
        self.view.wipe(emptied).await
    }

    async fn stop(self: Box<Self>) -> Result<(), RuntimeError> {
        let Self {
            engine,
            id,
            connection,
            directory,
            mut view,
            ..
        } = *self;
        drop(connection);
        view.settle().await;
        engine.remove(&id).await?;
        directory
            .remove()
            .await
            .map_err(io_error("remove a container's directory"))
    }
}
