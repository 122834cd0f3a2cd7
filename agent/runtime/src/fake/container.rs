//! A container whose commands follow a script.

use std::fmt;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::{FakeCall, FakeRun, State, locked, take_one};
use crate::control::lost;
use crate::engine_error::io_error;
use crate::port::{Container, ContainerCommand, Exit, ExitStatus, RuntimeError, Usage};
use crate::run_directory::remove_tree;
use crate::view::copy_tree;

/// A container of [`FakeRuntime`](super::FakeRuntime); its views are copies.
pub struct FakeContainer {
    pub(super) state: Arc<State>,
    pub(super) image_id: String,
    pub(super) search_path: Option<String>,
    pub(super) work_path: PathBuf,
    pub(super) view: PathBuf,
}

impl FakeContainer {
    fn perform(&self, command: ContainerCommand) -> FakeRun {
        let call = FakeCall {
            arguments: command.arguments,
            environment: command.environment,
            working_directory: command.working_directory,
            view: self.view.clone(),
        };
        let run = (self.state.script)(&call);
        locked(&self.state.calls).push(call);
        if let (FakeRun::Serve(answer), Some(stdin)) = (&run, command.stdin) {
            serve(stdin, command.stdout, answer.clone());
            return run;
        }
        if let FakeRun::End {
            stdout,
            stderr,
            files,
            ..
        } = &run
        {
            // A reader may have gone, as it may with a real command.
            fs::File::from(command.stdout).write_all(stdout).ok();
            fs::File::from(command.stderr).write_all(stderr).ok();
            for (path, bytes) in files {
                let path = self.view.join(path);
                path.parent().map(fs::create_dir_all).transpose().ok();
                fs::write(path, bytes).ok();
            }
        }
        run
    }
}

impl fmt::Debug for FakeContainer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("FakeContainer")
            .field("view", &self.view)
            .finish_non_exhaustive()
    }
}

impl Drop for FakeContainer {
    fn drop(&mut self) {
        remove_tree(&self.view).ok();
        self.state.live.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Container for FakeContainer {
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
        let make = || {
            regatta_init::empty_directory(&self.view, None)?;
            copy_tree(lower, &self.view)?;
            fs::File::open(&self.view)
        };
        make()
            .map(|root| Arc::new(root.into()))
            .map_err(io_error("make a view"))
    }

    async fn execute(
        &mut self,
        command: ContainerCommand,
        cancel: CancellationToken,
    ) -> Result<Exit, RuntimeError> {
        let timeout = command.timeout;
        let (status, wall_time) = match self.perform(command) {
            FakeRun::End { status, .. } => (status, Duration::from_millis(1)),
            FakeRun::Lose => return Err(lost("the script says so")),
            FakeRun::Hang | FakeRun::Serve(_) => tokio::select! {
                () = tokio::time::sleep(timeout) => (ExitStatus::TimedOut, timeout),
                () = cancel.cancelled() => (ExitStatus::Cancelled, Duration::ZERO),
            },
        };
        Ok(Exit {
            status,
            usage: Usage::default(),
            wall_time,
        })
    }

    async fn wipe(&mut self) -> Result<(), RuntimeError> {
        if take_one(&self.state.hanging_wipes) {
            self.state.hang().await;
        }
        regatta_init::empty_directory(&self.view, None).map_err(io_error("wipe"))
    }

    async fn stop(self: Box<Self>) -> Result<(), RuntimeError> {
        Ok(())
    }
}

/// Answers lines until there are no more, or nobody reads.
fn serve(stdin: OwnedFd, stdout: OwnedFd, answer: String) {
    let (requests, mut answers) = (
        BufReader::new(fs::File::from(stdin)),
        fs::File::from(stdout),
    );
    std::thread::spawn(move || {
        for _ in requests.lines().map_while(Result::ok) {
            if writeln!(answers, "{answer}").is_err() {
                return;
            }
        }
    });
}
