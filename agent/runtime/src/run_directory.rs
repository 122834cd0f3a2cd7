//! Where a runtime keeps what its containers need on the host's side.
//!
//! `ROOT/INSTANCE/init` is the init; `ROOT/INSTANCE/NUMBER/` belongs to one container. An instance is one
//! life of one runtime: what other instances left under the same root is stale.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use crate::control::SOCKET_NAME;
use crate::init_binary::{INIT_BINARY, install};
use crate::view::on_thread;

/// The init's name in control directories.
pub(crate) const INIT_NAME: &str = "init";

/// Distinguishes runtimes of one process.
static INSTANCES: AtomicU64 = AtomicU64::new(0);

/// The directory of one runtime; removed with it and its last container.
#[derive(Debug)]
pub(crate) struct RunDirectory {
    root: PathBuf,
    instance: String,
    serial: AtomicU64,
}

/// The directory of one container; removed when dropped.
#[derive(Debug)]
pub(crate) struct ContainerDirectory {
    path: PathBuf,
    name: String,
    _run_directory: Arc<RunDirectory>,
}

impl RunDirectory {
    /// Makes the directory of a new instance below `root`.
    pub(crate) fn create(root: &Path) -> io::Result<Arc<Self>> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(root)?;
        let root = root.canonicalize()?;
        let time = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let number = INSTANCES.fetch_add(1, Ordering::Relaxed);
        let instance = format!("{:x}-{}-{number}", time.as_micros(), std::process::id());
        let directory = Self {
            root,
            instance,
            serial: AtomicU64::new(0),
        };
        make_private(&directory.path())?;
        install(INIT_BINARY, &directory.init())?;
        Ok(Arc::new(directory))
    }

    /// Names this life of the runtime.
    pub(crate) fn instance(&self) -> &str {
        &self.instance
    }

    /// Whether another instance began before this one. The name of an instance begins with its time.
    pub(crate) fn is_earlier(&self, instance: &str) -> bool {
        // What has no time was made by no release that has agents running.
        began_at(instance).is_none_or(|began| began_at(&self.instance) > Some(began))
            && instance != self.instance
    }

    /// Where the init is.
    pub(crate) fn init(&self) -> PathBuf {
        self.path().join(INIT_NAME)
    }

    /// The directory of this instance.
    pub(crate) fn path(&self) -> PathBuf {
        self.root.join(&self.instance)
    }

    /// Makes a directory for a container.
    pub(crate) fn container(self: &Arc<Self>) -> io::Result<ContainerDirectory> {
        let number = self.serial.fetch_add(1, Ordering::Relaxed);
        let path = self.path().join(number.to_string());
        make_private(&path)?;
        let name = format!("{}-{number}", self.instance);
        let container = ContainerDirectory {
            path,
            name,
            _run_directory: Arc::clone(self),
        };
        fs::create_dir(container.control())?;
        fs::create_dir(container.work())?;
        fs::hard_link(self.init(), container.control().join(INIT_NAME))?;
        Ok(container)
    }

    /// Removes what other instances left, and tells how many there were.
    pub(crate) fn remove_stale(&self) -> io::Result<usize> {
        let mut removed = 0;
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            if entry.file_name() != self.instance.as_str() {
                remove_tree(&entry.path())?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

impl Drop for RunDirectory {
    fn drop(&mut self) {
        remove_tree(&self.path()).ok();
        // Succeeds only if nobody else uses it.
        fs::remove_dir(&self.root).ok();
    }
}

impl ContainerDirectory {
    /// A name for the container, unique on this machine.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Holds the init and, until it is connected, the socket.
    pub(crate) fn control(&self) -> PathBuf {
        self.path.join("control")
    }

    /// The socket for the init.
    pub(crate) fn socket(&self) -> PathBuf {
        self.control().join(SOCKET_NAME)
    }

    /// What the container shows at its work path without a view, and a copied view's place.
    pub(crate) fn work(&self) -> PathBuf {
        self.path.join("work")
    }

    /// Removes it now, and returns when it is gone.
    pub(crate) async fn remove(self) -> io::Result<()> {
        let path = self.path.clone();
        on_thread(move || remove_tree(&path)).await
    }

    /// For the layers of views.
    pub(crate) fn views(&self) -> PathBuf {
        self.path.join("views")
    }
}

impl Drop for ContainerDirectory {
    fn drop(&mut self) {
        // A command may have written a lot; only a plain directory is worth no thread.
        let path = self.path.clone();
        if holds_something(&self.views()) || holds_something(&self.work()) {
            let run_directory = Arc::clone(&self._run_directory);
            let removal = move || {
                remove_tree(&path).ok();
                drop(run_directory);
            };
            std::thread::Builder::new()
                .name("remove-container".into())
                .spawn(removal)
                .ok();
        } else {
            remove_tree(&path).ok();
        }
    }
}

fn holds_something(directory: &Path) -> bool {
    fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some())
}

/// Removes a file or a directory with everything in it, however deep.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => {
            regatta_init::empty_directory(path, None)?;
            fs::remove_dir(path)
        }
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// When an instance began, in microseconds since the epoch, with its number in its process.
fn began_at(instance: &str) -> Option<(u128, u64)> {
    let (time, rest) = instance.split_once('-')?;
    let (_, number) = rest.split_once('-')?;
    Some((u128::from_str_radix(time, 16).ok()?, number.parse().ok()?))
}

fn make_private(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_are_ordered_by_their_beginning() {
        let parent = tempfile::tempdir().expect("a directory");
        let first = RunDirectory::create(&parent.path().join("run")).expect("created");
        let second = RunDirectory::create(&parent.path().join("run")).expect("created");
        assert!(second.is_earlier(first.instance()) && !first.is_earlier(second.instance()));
        assert!(!first.is_earlier(first.instance()) && first.is_earlier("no instance"));
    }

    #[test]
    fn stale_instances_go_and_the_own_one_stays() {
        let parent = tempfile::tempdir().expect("a directory");
        let root = parent.path().join("run");
        fs::create_dir_all(root.join("old/0/views/1/upper")).expect("new");
        fs::write(root.join("stray"), "").expect("written");
        let directory = RunDirectory::create(&root).expect("created");
        let container = directory.container().expect("created");
        assert!(container.control().join(INIT_NAME).exists());
        assert_eq!(directory.remove_stale().expect("removed"), 2);
        assert_eq!(directory.remove_stale().expect("removed"), 0);
        assert!(container.work().exists());
        let path = container.path.clone();
        drop(container);
        assert!(!path.exists());
        drop(directory);
        assert!(!root.exists());
    }
}
