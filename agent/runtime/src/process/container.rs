//! One init as a process of this machine.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use regatta_model::RootDirectory;
use tokio::process::Child;
use tokio_util::sync::CancellationToken;

use super::runtime::Launched;
use crate::control::{InitConnection, lost};
use crate::engine_error::{io_error, view_error};
use crate::execution::{self, Executed, Place};
use crate::port::{Container, ContainerCommand, Exit, RuntimeError};
use crate::run_directory::ContainerDirectory;
use crate::view::{SlotPaths, ViewSlot, Views};

/// How long an init may take to end after its agent hung up.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Scratch space to empty between commands, where it is the container's own.
const SCRATCH: [&str; 4] = ["/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue"];

/// A container without an engine. Dropped, it ends by itself.
#[derive(Debug)]
pub struct ProcessContainer {
    connection: InitConnection,
    init: Child,
    work_path: PathBuf,
    root: RootDirectory,
    scratch: Vec<PathBuf>,
    view: ViewSlot,
    /// Goes last: the connection must be closed when the files go.
    directory: ContainerDirectory,
}

impl ProcessContainer {
    pub(super) fn new(
        launched: Launched,
        views: &Views,
        root: RootDirectory,
        namespaces: bool,
    ) -> Self {
        let Launched {
            directory,
            init,
            connection,
        } = launched;
        let work_path = directory.work();
        let paths = SlotPaths {
            target: work_path.clone(),
            layers: directory.views(),
            shown: work_path.clone(),
            root,
        };
        let process = connection.process().filter(|_| namespaces);
        let view = ViewSlot::new(
            views,
            process.map(|process| Arc::clone(&process.handle)),
            paths,
            None,
        );
        // Without a namespace these are everybody's.
        let scratch = if namespaces {
            SCRATCH.map(PathBuf::from).to_vec()
        } else {
            Vec::new()
        };
        Self {
            connection,
            init,
            work_path,
            root,
            scratch,
            view,
            directory,
        }
    }

    /// Kills the init; in a PID namespace everything goes with it.
    async fn kill(&mut self) -> Result<(), RuntimeError> {
        if let Some(process) = self.connection.process() {
            process.kill();
        }
        self.init.start_kill().ok();
        let ended = tokio::time::timeout(STOP_TIMEOUT, self.init.wait()).await;
        ended
            .map_err(|_| lost("its init cannot be killed"))?
            .map_err(io_error("wait for the init"))?;
        Ok(())
    }
}

#[async_trait]
impl Container for ProcessContainer {
    fn image_id(&self) -> &'static str {
        ""
    }

    fn search_path(&self) -> Option<&str> {
        None
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
        match execution::execute(&mut self.connection, place, command, &cancel).await? {
            Executed::Ended(exit) => Ok(exit),
            Executed::Stuck(exit) => {
                self.kill().await?;
                Ok(exit)
            }
        }
    }

    async fn wipe(&mut self) -> Result<(), RuntimeError> {
        let emptied = execution::wipe(&mut self.connection, &self.scratch);
        self.view.wipe(emptied).await
    }

    async fn stop(self: Box<Self>) -> Result<(), RuntimeError> {
        let Self {
            connection,
            mut init,
            directory,
            mut view,
            ..
        } = *self;
        let process = connection.process().cloned();
        drop(connection);
        view.settle().await;
        let ended = tokio::time::timeout(STOP_TIMEOUT, init.wait()).await;
        if ended.is_err() {
            if let Some(process) = process {
                process.kill();
            }
            init.start_kill().ok();
            let killed = tokio::time::timeout(STOP_TIMEOUT, init.wait()).await;
            killed
                .map_err(|_| lost("its init cannot be killed"))?
                .map_err(io_error("stop"))?;
        }
        directory
            .remove()
            .await
            .map_err(io_error("remove a container's directory"))
    }
}
