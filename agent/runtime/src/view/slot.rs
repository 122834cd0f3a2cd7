//! The one place of a container where views appear.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use regatta_model::RootDirectory;
use rustix::fs::{AtFlags, unlinkat};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use tokio::sync::oneshot;

use super::copy::copy_tree;
use super::furnish::furnish;
use super::namespace::{attach, detach, enter, make_read_only, on_thread, on_thread_and_after};
use super::overlay::{Layers, OverlayFlavour, make_overlay};
use super::strategy::{Views, open};

/// Makes and unmakes the views of one container; cheap to clone for work on another thread.
#[derive(Debug)]
pub(crate) struct ViewSlot {
    place: Place,
    serial: u64,
    mounted: bool,
    /// Ends when the thread has ended that makes the view: it goes on though nobody waits for it any more.
    mounting: Option<oneshot::Receiver<()>>,
    removal: Option<oneshot::Receiver<()>>,
}

#[derive(Clone, Debug)]
enum Place {
    /// Overlays go into the mount namespace of a process.
    Namespace {
        process: Arc<OwnedFd>,
        target: PathBuf,
        layers: PathBuf,
        flavour: OverlayFlavour,
        owner: Option<(Uid, Gid)>,
        root: RootDirectory,
    },
    /// Copies go into a directory of the host that the container shows.
    Directory(PathBuf),
}

/// Where a slot puts what it makes.
pub(crate) struct SlotPaths {
    /// The work path inside.
    pub(crate) target: PathBuf,
    /// A directory on the host for the layers of overlays.
    pub(crate) layers: PathBuf,
    /// The directory of the host that the container shows at its work path.
    pub(crate) shown: PathBuf,
    /// Whether views become root directories.
    pub(crate) root: RootDirectory,
}

impl ViewSlot {
    /// `process` is needed for overlays; `owner` is who may write in a view's root.
    pub(crate) fn new(
        views: &Views,
        process: Option<Arc<OwnedFd>>,
        paths: SlotPaths,
        owner: Option<(Uid, Gid)>,
    ) -> Self {
        let SlotPaths {
            target,
            layers,
            shown,
            root,
        } = paths;
        let place = match (views, process) {
            (Views::Overlay(flavour), Some(process)) => Place::Namespace {
                process,
                target,
                layers,
                flavour: *flavour,
                owner,
                root,
            },
            (Views::Overlay(_), None) | (Views::Copy { .. }, _) => Place::Directory(shown),
        };
        Self {
            place,
            serial: 0,
            mounted: false,
            mounting: None,
            removal: None,
        }
    }

    /// Shows `lower`. A view that is still there goes first.
    pub(crate) async fn mount(&mut self, lower: &Path) -> io::Result<Arc<OwnedFd>> {
        self.unmount().await?;
        self.serial += 1;
        self.mounted = true;
        let (place, serial, lower) = (self.place.clone(), self.serial, lower.to_path_buf());
        let (done, mounting) = oneshot::channel();
        self.mounting = Some(mounting);
        let mount = move || {
            let view = place.mount(serial, &lower);
            done.send(()).ok();
            view
        };
        on_thread(mount).await.map(Arc::new)
    }

    /// Waits until nobody makes a view any more, and the files of earlier ones are removed: at most one view's are
    /// ever pending.
    pub(crate) async fn settle(&mut self) {
        let pending = [self.mounting.take(), self.removal.take()];
        for thread in pending.into_iter().flatten() {
            // An error means that the thread is gone, which is as good.
            thread.await.ok();
        }
    }

    /// Drops the view, if there is one, with all that was written through it.
    pub(crate) async fn unmount(&mut self) -> io::Result<()> {
        if !self.mounted {
            return Ok(());
        }
        self.settle().await;
        let (done, removal) = oneshot::channel();
        let (place, serial) = (self.place.clone(), self.serial);
        let remove = move |leftover: Option<Leftover>| {
            // What stays goes with the container's directory.
            if let Some(Err(error)) = leftover.map(|leftover| leftover.remove()) {
                tracing::warn!(%error, "a view's layers were not removed");
            }
            done.send(()).ok();
        };
        on_thread_and_after(move || place.unmount(serial), remove).await?;
        self.removal = Some(removal);
        self.mounted = false;
        Ok(())
    }

    /// Makes `/dev` read-only inside where that is possible; devices stay usable. What a command writes
    /// there would otherwise outlive it.
    pub(crate) async fn protect_devices(&self) -> io::Result<()> {
        let Place::Namespace { process, .. } = &self.place else {
            return Ok(());
        };
        let process = Arc::clone(process);
        on_thread(move || {
            enter(process.as_fd())?;
            Ok(make_read_only(Path::new("/dev"))?)
        })
        .await
    }
}

impl Place {
    fn mount(&self, serial: u64, lower: &Path) -> io::Result<OwnedFd> {
        match self {
            Self::Namespace {
                process,
                target,
                layers,
                flavour,
                owner,
                root: root_directory,
            } => {
                let own = layers.join(serial.to_string());
                let (upper, work) = (own.join("upper"), own.join("work"));
                fs::create_dir_all(&upper)?;
                fs::create_dir(&work)?;
                // The root of a view has the mode of its upper layer.
                fs::set_permissions(&upper, fs::Permissions::from_mode(0o755))?;
                if let Some((user, group)) = owner {
                    rustix::fs::chown(&upper, Some(*user), Some(*group))?;
                }
                let (lower, upper, work) = (open(lower)?, open(&upper)?, open(&work)?);
                let layers = Layers {
                    lower: lower.as_fd(),
                    upper: upper.as_fd(),
                    work: work.as_fd(),
                };
                let root = make_overlay(&layers, *flavour)?;
                enter(process.as_fd())?;
                attach(&root, target)?;
                match root_directory {
                    RootDirectory::InputRoot => furnish(&root)?,
                    RootDirectory::Image => {}
                }
                Ok(root)
            }
            Self::Directory(directory) => {
                copy_tree(lower, directory)?;
                open(directory)
            }
        }
    }

    /// Answers what is left to remove, which no later view uses.
    fn unmount(&self, serial: u64) -> io::Result<Option<Leftover>> {
        match self {
            Self::Namespace {
                process,
                target,
                layers,
                ..
            } => {
                // Opened first: the container's namespace does not show these.
                let own = fs::File::open(layers.join(serial.to_string()))?.into();
                let layers = fs::File::open(layers)?.into();
                enter(process.as_fd())?;
                match detach(target) {
                    // Making the view failed half-way.
                    Ok(()) | Err(Errno::INVAL) => Ok(Some(Leftover {
                        own,
                        layers,
                        serial,
                    })),
                    Err(errno) => Err(errno.into()),
                }
            }
            Self::Directory(directory) => {
                regatta_init::empty_directory(directory, None).map(|()| None)
            }
        }
    }
}

/// The layers of a view that is gone.
struct Leftover {
    own: OwnedFd,
    layers: OwnedFd,
    serial: u64,
}

impl Leftover {
    fn remove(&self) -> io::Result<()> {
        regatta_init::empty_open_directory(&self.own)?;
        match unlinkat(&self.layers, self.serial.to_string(), AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}
