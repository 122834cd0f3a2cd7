//! A runtime that follows a script, for tests of what uses runtimes.

use std::fmt;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use regatta_model::ImageReference;
use tokio_util::sync::CancellationToken;

use crate::control::lost;
use crate::engine_error::io_error;
use crate::own_user::own_user;
use crate::port::{
    Container, ContainerCommand, ContainerRuntime, ContainerShape, Exit, ExitStatus, RuntimeError,
    Usage,
};
use crate::run_directory::remove_tree;
use crate::view::copy_tree;

/// What a fake command is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FakeCall {
    /// The command's arguments.
    pub arguments: Vec<String>,
    /// Its environment.
    pub environment: std::collections::BTreeMap<String, String>,
    /// Its working directory, below the work path.
    pub working_directory: PathBuf,
    /// The view's directory on this machine: the script may look into it.
    pub view: PathBuf,
}

/// What a fake command does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FakeRun {
    /// It writes and ends.
    End {
        /// Bytes for standard output.
        stdout: Vec<u8>,
        /// Bytes for standard error.
        stderr: Vec<u8>,
        /// Files to write, relative to the work path.
        files: Vec<(PathBuf, Vec<u8>)>,
        /// How it ends.
        status: ExitStatus,
    },
    /// It runs until its timeout or its cancellation.
    Hang,
    /// The same, and it answers each line of its standard input with this one.
    Serve(String),
    /// Its container is lost.
    Lose,
}

impl FakeRun {
    /// It ends with this code and no output.
    #[must_use]
    pub fn exit(code: i32) -> Self {
        let (stdout, stderr, files) = (Vec::new(), Vec::new(), Vec::new());
        Self::End {
            stdout,
            stderr,
            files,
            status: ExitStatus::Code(code),
        }
    }
}

type Script = dyn Fn(&FakeCall) -> FakeRun + Send + Sync;

/// A scripted runtime. Clones share everything.
#[derive(Clone)]
pub struct FakeRuntime(Arc<State>);

struct State {
    directory: PathBuf,
    script: Box<Script>,
    images: Mutex<Vec<(ImageReference, String)>>,
    search_path: Mutex<Option<String>>,
    calls: Mutex<Vec<FakeCall>>,
    started: AtomicUsize,
    live: AtomicUsize,
    away: AtomicBool,
    failing_starts: AtomicUsize,
    hanging_starts: AtomicUsize,
    hanging: AtomicUsize,
}

/// A start that never ends, while somebody waits for it.
struct Hanging<'a>(&'a AtomicUsize);

impl Drop for Hanging<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl FakeRuntime {
    /// A runtime that keeps views in `directory` and asks `script` what each command does.
    #[must_use]
    pub fn new(
        directory: PathBuf,
        script: impl Fn(&FakeCall) -> FakeRun + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(State {
            directory,
            script: Box::new(script),
            images: Mutex::default(),
            search_path: Mutex::default(),
            calls: Mutex::default(),
            started: AtomicUsize::new(0),
            live: AtomicUsize::new(0),
            away: AtomicBool::new(false),
            failing_starts: AtomicUsize::new(0),
            hanging_starts: AtomicUsize::new(0),
            hanging: AtomicUsize::new(0),
        }))
    }

    /// Makes an image available.
    pub fn add_image(&self, image: ImageReference, id: &str) {
        locked(&self.0.images).push((image, id.to_owned()));
    }

    /// Gives every image this `PATH`.
    pub fn set_search_path(&self, path: &str) {
        *locked(&self.0.search_path) = Some(path.to_owned());
    }

    /// Makes the next `count` starts fail as the engine's fault.
    pub fn fail_starts(&self, count: usize) {
        self.0.failing_starts.store(count, Ordering::SeqCst);
    }

    /// Makes the next `count` starts never end.
    pub fn hang_starts(&self, count: usize) {
        self.0.hanging_starts.store(count, Ordering::SeqCst);
    }

    /// How many starts that never end are waited for.
    #[must_use]
    pub fn hanging(&self) -> usize {
        self.0.hanging.load(Ordering::SeqCst)
    }

    /// Every command so far, in order.
    #[must_use]
    pub fn calls(&self) -> Vec<FakeCall> {
        locked(&self.0.calls).clone()
    }

    /// How many containers were started so far.
    #[must_use]
    pub fn started(&self) -> usize {
        self.0.started.load(Ordering::SeqCst)
    }

    /// How many containers are neither stopped nor dropped.
    #[must_use]
    pub fn live(&self) -> usize {
        self.0.live.load(Ordering::SeqCst)
    }

    /// Answers nothing from now on, or again.
    pub fn set_away(&self, away: bool) {
        self.0.away.store(away, Ordering::SeqCst);
    }

    fn answer(&self, operation: &'static str) -> Result<(), RuntimeError> {
        if self.0.away.load(Ordering::SeqCst) {
            let detail = "the engine is away".to_owned();
            return Err(RuntimeError::Engine { operation, detail });
        }
        Ok(())
    }

    fn image_id(&self, image: &ImageReference) -> Result<String, RuntimeError> {
        let images = locked(&self.0.images);
        let found = images.iter().find(|(reference, _)| reference == image);
        found
            .map(|(_, id)| id.clone())
            .ok_or_else(|| RuntimeError::ImageUnavailable {
                image: image.to_string(),
                detail: "the fake does not have it".to_owned(),
            })
    }
}

impl fmt::Debug for FakeRuntime {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("FakeRuntime")
            .field("live", &self.live())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl ContainerRuntime for FakeRuntime {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn user(&self) -> (u32, u32) {
        own_user()
    }

    fn can_change_root(&self) -> bool {
        true
    }

    async fn ping(&self) -> Result<(), RuntimeError> {
        self.answer("ping")
    }

    async fn images(&self) -> Result<Vec<(ImageReference, String)>, RuntimeError> {
        Ok(locked(&self.0.images).clone())
    }

    async fn ensure_image(&self, image: &ImageReference) -> Result<String, RuntimeError> {
        self.image_id(image)
    }

    async fn start(&self, shape: &ContainerShape) -> Result<Box<dyn Container>, RuntimeError> {
        if take_one(&self.0.hanging_starts) {
            self.0.hang().await;
        }
        self.answer("start a container")?;
        if take_one(&self.0.failing_starts) {
            let detail = "the script says so".to_owned();
            return Err(RuntimeError::Engine {
                operation: "start a container",
                detail,
            });
        }
        let image_id = shape
            .image
            .as_ref()
            .map_or(Ok(String::new()), |image| self.image_id(image))?;
        let number = self.0.started.fetch_add(1, Ordering::SeqCst);
        let view = self.0.directory.join(format!("view-{number}"));
        fs::create_dir_all(&view).map_err(io_error("make a fake container"))?;
        self.0.live.fetch_add(1, Ordering::SeqCst);
        let work_path = shape.work_path.clone();
        Ok(Box::new(FakeContainer {
            state: Arc::clone(&self.0),
            image_id,
            search_path: locked(&self.0.search_path).clone(),
            work_path,
            view,
        }))
    }

    async fn reap(&self) -> Result<usize, RuntimeError> {
        Ok(0)
    }
}

/// A container of [`FakeRuntime`]; its views are copies.
pub struct FakeContainer {
    state: Arc<State>,
    image_id: String,
    search_path: Option<String>,
    work_path: PathBuf,
    view: PathBuf,
}

impl State {
    async fn hang(&self) {
        self.hanging.fetch_add(1, Ordering::SeqCst);
        let _hanging = Hanging(&self.hanging);
        std::future::pending::<()>().await;
    }
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

/// Takes one of what is left; whether there was one.
fn take_one(left: &AtomicUsize) -> bool {
    let fewer = |count: usize| count.checked_sub(1);
    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fewer)
        .is_ok()
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
