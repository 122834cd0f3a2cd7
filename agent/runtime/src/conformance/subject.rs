//! The runtime under test, and how cases use it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use regatta_model::{ImageReference, NetworkAccess, Resources, RootDirectory};
use tokio_util::sync::CancellationToken;

use crate::init_binary::{TESTEE_BINARY, install};
use crate::port::{
    Container, ContainerCommand, ContainerRuntime, ContainerShape, Exit, ExitStatus,
};

/// Long enough for any command of the suite on a machine under load.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a runtime claims to isolate.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Claims {
    /// Nothing but views.
    Views,
    /// Processes, network, IPC, scratch space and capabilities, too.
    Namespaces,
    /// And the root file system, and limits on memory and processes.
    Container,
}

/// A runtime under test.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The runtime.
    pub runtime: Arc<dyn ContainerRuntime>,
    /// An image without needs, for a runtime with images.
    pub image: Option<ImageReference>,
    /// What it claims.
    pub claims: Claims,
    /// The limit of processes per container, where it claims one.
    pub pids_limit: usize,
    /// A directory for input trees and outputs.
    pub directory: PathBuf,
    serial: Arc<AtomicUsize>,
}

/// A started container with an input tree that holds the testee.
#[derive(Debug)]
pub struct Warm {
    /// The container.
    pub container: Box<dyn Container>,
    /// The input tree, mounted.
    pub lower: PathBuf,
    /// The root of the view.
    pub view: Arc<OwnedFd>,
}

/// How a command ended, with its output.
#[derive(Debug)]
pub struct Outcome {
    /// How.
    pub exit: Exit,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
}

impl Outcome {
    /// Panics unless the command exited with this code.
    #[track_caller]
    pub fn expect_code(&self, code: i32) -> &Self {
        let errors = String::from_utf8_lossy(&self.stderr);
        assert_eq!(
            self.exit.status,
            ExitStatus::Code(code),
            "standard error: {errors}"
        );
        self
    }

    /// Standard output as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

impl Subject {
    /// A subject.
    #[must_use]
    pub fn new(
        runtime: Arc<dyn ContainerRuntime>,
        image: Option<ImageReference>,
        claims: Claims,
        pids_limit: usize,
        directory: PathBuf,
    ) -> Self {
        let serial = Arc::new(AtomicUsize::new(0));
        Self {
            runtime,
            image,
            claims,
            pids_limit,
            directory,
            serial,
        }
    }

    /// A path for a new file or directory of a case.
    pub(super) fn fresh_path(&self) -> PathBuf {
        let number = self.serial.fetch_add(1, Ordering::Relaxed);
        self.directory.join(format!("case-{number}"))
    }

    pub(super) fn shape(&self) -> ContainerShape {
        ContainerShape {
            image: self.image.clone(),
            image_id: None,
            work_path: PathBuf::from("/regatta/work"),
            root: RootDirectory::Image,
            resources: Resources {
                cpu_milli: 0,
                memory_bytes: 0,
            },
            network: NetworkAccess::Off,
        }
    }

    pub(super) async fn warm(&self) -> Warm {
        self.warm_with(&self.shape()).await
    }

    pub(super) async fn warm_with(&self, shape: &ContainerShape) -> Warm {
        let lower = self.fresh_path();
        fs::create_dir_all(&lower).expect("a directory for the input tree");
        install(TESTEE_BINARY, &lower.join("testee")).expect("the testee");
        let mut container = self.runtime.start(shape).await.expect("a container");
        let view = container.mount(&lower).await.expect("a view");
        Warm {
            container,
            lower,
            view,
        }
    }
}

/// A command of the testee with an empty environment.
pub(super) fn command(words: &[&str], stdout: OwnedFd, stderr: OwnedFd) -> ContainerCommand {
    let arguments = ["./testee"]
        .iter()
        .chain(words)
        .map(|word| (*word).to_owned())
        .collect();
    ContainerCommand {
        arguments,
        environment: BTreeMap::new(),
        working_directory: PathBuf::new(),
        stdout,
        stderr,
        stdin: None,
        timeout: PATIENCE,
    }
}

impl Warm {
    /// Runs the testee.
    pub(super) async fn run(&mut self, words: &[&str]) -> Outcome {
        self.run_changed(words, |_| {}).await
    }

    /// Runs a command that begins as one of the testee.
    pub(super) async fn run_changed(
        &mut self,
        words: &[&str],
        change: impl FnOnce(&mut ContainerCommand),
    ) -> Outcome {
        let (out, out_file) = output();
        let (err, err_file) = output();
        let mut command = command(words, out, err);
        change(&mut command);
        let exit = self
            .container
            .execute(command, CancellationToken::new())
            .await;
        let exit = exit.expect("the container works");
        Outcome {
            exit,
            stdout: contents(out_file),
            stderr: contents(err_file),
        }
    }

    /// Empties the container and mounts the same tree again.
    pub(super) async fn renew(&mut self) {
        self.container.wipe().await.expect("a wipe");
        self.view = self.container.mount(&self.lower).await.expect("a view");
    }

    pub(super) async fn stop(self) {
        self.container.stop().await.expect("a stop");
    }

    /// A path inside the container.
    pub(super) fn inside(&self, path: &str) -> String {
        self.container.work_path().join(path).display().to_string()
    }

    /// Reads a file through the view's root, as an agent collects outputs.
    pub(super) fn collect(&self, path: &str) -> Option<Vec<u8>> {
        use std::os::fd::AsRawFd;
        let root = PathBuf::from(format!("/proc/self/fd/{}", self.view.as_raw_fd()));
        fs::read(root.join(path)).ok()
    }
}

/// A file without a name, twice: for the command, and to read what it wrote.
pub(super) fn output() -> (OwnedFd, fs::File) {
    let flags =
        rustix::fs::OFlags::TMPFILE | rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC;
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    let file = rustix::fs::open(std::env::temp_dir(), flags, mode).expect("a temporary file");
    let copy = file.try_clone().expect("a copy");
    (file, copy.into())
}

fn contents(mut file: fs::File) -> Vec<u8> {
    use std::io::Seek;
    let mut bytes = Vec::new();
    file.rewind().expect("a seekable file");
    file.read_to_end(&mut bytes).expect("a readable file");
    bytes
}

/// Reads a pipe to its end, which comes when the last process that holds the other end is gone.
pub(super) async fn drain(pipe: OwnedFd, limit: Duration) -> Vec<u8> {
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        fs::File::from(pipe).read_to_end(&mut bytes).map(|_| bytes)
    });
    let read = tokio::time::timeout(limit, read)
        .await
        .expect("no process holds the pipe any more");
    read.expect("a thread").expect("a readable pipe")
}

/// Everything below a directory: names, and contents or targets.
pub(super) fn snapshot(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut pending = vec![root.to_path_buf()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            let metadata = fs::symlink_metadata(&path).expect("metadata");
            let content = if metadata.is_dir() {
                pending.push(path.clone());
                Vec::new()
            } else if metadata.is_symlink() {
                fs::read_link(&path)
                    .expect("a link")
                    .into_os_string()
                    .into_encoded_bytes()
            } else {
                fs::read(&path).expect("a file")
            };
            found.insert(path, content);
        }
    }
    found
}
