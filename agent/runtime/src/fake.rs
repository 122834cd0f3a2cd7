//! A runtime that follows a script, for tests of what uses runtimes.

mod container;

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
pub use container::FakeContainer;
use futures::stream::{self, BoxStream, StreamExt as _};
use regatta_model::ImageReference;
use tokio::sync::watch;

use crate::engine_error::io_error;
use crate::own_user::own_user;
use crate::port::{Container, ContainerRuntime, ContainerShape, ExitStatus, RuntimeError};

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
    /// Told of whatever happens to images, and to the engine.
    changed: watch::Sender<()>,
    search_path: Mutex<Option<String>>,
    calls: Mutex<Vec<FakeCall>>,
    started: AtomicUsize,
    live: AtomicUsize,
    away: AtomicBool,
    failing_starts: AtomicUsize,
    hanging_starts: AtomicUsize,
    hanging_wipes: AtomicUsize,
    hanging: AtomicUsize,
}

/// A start or a wipe that never ends, while somebody waits for it.
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
            changed: watch::Sender::default(),
            search_path: Mutex::default(),
            calls: Mutex::default(),
            started: AtomicUsize::new(0),
            live: AtomicUsize::new(0),
            away: AtomicBool::new(false),
            failing_starts: AtomicUsize::new(0),
            hanging_starts: AtomicUsize::new(0),
            hanging_wipes: AtomicUsize::new(0),
            hanging: AtomicUsize::new(0),
        }))
    }

    /// Makes an image available.
    pub fn add_image(&self, image: ImageReference, id: &str) {
        locked(&self.0.images).push((image, id.to_owned()));
    }

    /// Gives an image's name to another one. What it meant before is not there any more, unless it has another name.
    pub fn move_image(&self, image: &ImageReference, id: &str) {
        let mut images = locked(&self.0.images);
        let moved = images.iter_mut().filter(|(name, _)| name == image);
        moved.for_each(|(_, meant)| id.clone_into(meant));
        drop(images);
        self.0.changed.send_replace(());
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

    /// Makes the next `count` wipes never end.
    pub fn hang_wipes(&self, count: usize) {
        self.0.hanging_wipes.store(count, Ordering::SeqCst);
    }

    /// How many starts and wipes that never end are waited for.
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
        self.0.changed.send_replace(());
    }

    fn answer(&self, operation: &'static str) -> Result<(), RuntimeError> {
        if self.0.away.load(Ordering::SeqCst) {
            let detail = "the engine is away".to_owned();
            return Err(RuntimeError::Engine { operation, detail });
        }
        Ok(())
    }

    fn image_id(&self, image: &ImageReference, id: Option<&str>) -> Result<String, RuntimeError> {
        let images = locked(&self.0.images);
        let found = images.iter().find(|(name, there)| match id {
            Some(id) => there == id,
            None => name == image,
        });
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

    /// The engine's going is an error at the end.
    fn image_changes(&self) -> BoxStream<'static, Result<(), RuntimeError>> {
        let state = (self.clone(), self.0.changed.subscribe());
        let changes = stream::unfold(Some(state), |state| async move {
            let (fake, mut changed) = state?;
            if let Err(error) = fake.answer("listen for changes of images") {
                return Some((Err(error), None));
            }
            changed.changed().await.ok()?;
            let told = fake.answer("listen for changes of images");
            let rest = told.is_ok().then_some((fake, changed));
            Some((told, rest))
        });
        changes.boxed()
    }

    async fn ensure_image(
        &self,
        image: &ImageReference,
        id: Option<&str>,
    ) -> Result<String, RuntimeError> {
        self.image_id(image, id)
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
        let image_id = shape.image.as_ref().map_or(Ok(String::new()), |image| {
            self.image_id(image, shape.image_id.as_deref())
        })?;
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

impl State {
    async fn hang(&self) {
        self.hanging.fetch_add(1, Ordering::SeqCst);
        let _hanging = Hanging(&self.hanging);
        std::future::pending::<()>().await;
    }
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
