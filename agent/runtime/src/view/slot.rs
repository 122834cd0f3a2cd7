//! The one place of a container where views appear.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use regatta_model::RootDirectory;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, Stat, fstat, unlinkat};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use tokio::sync::oneshot;

use super::copy::copy_tree;
use super::furnish::furnish;
use super::namespace::{attach, detach, enter, make_read_only, on_thread, on_thread_and_after};
use super::overlay::{Layers, OverlayFlavour, make_overlay};
use super::strategy::{Views, open};
use super::untouched::Untouched;
use crate::engine_error::io_error;
use crate::port::RuntimeError;

/// Makes and unmakes the views of one container; cheap to clone for work on another thread.
#[derive(Debug)]
pub(crate) struct ViewSlot {
    place: Place,
    serial: u64,
    mounted: bool,
    /// The view that is there, if it can be told whether it was changed.
    shown: Option<Shown>,
    /// Whether that view may be shown again: nobody has changed it, and nobody can.
    is_kept: bool,
    /// Ends when the thread has ended that makes the view: it goes on though nobody waits for it any more.
    mounting: Option<oneshot::Receiver<()>>,
    removal: Option<oneshot::Receiver<()>>,
}

/// A view, and what it is of.
#[derive(Debug)]
struct Shown {
    root: Arc<OwnedFd>,
    lower: LowerId,
    untouched: Untouched,
}

/// Which directory is the lower layer. As long as it is one it is there, and its number is nobody else's.
#[derive(PartialEq, Eq, Debug)]
struct LowerId {
    device: u64,
    number: u64,
    /// What has changed since is another tree.
    changed: (i64, u64),
}

impl From<Stat> for LowerId {
    fn from(found: Stat) -> Self {
        Self {
            device: found.st_dev,
            number: found.st_ino,
            changed: (found.st_ctime, found.st_ctime_nsec),
        }
    }
}

/// What [`Place::mount`] makes.
struct Made {
    root: OwnedFd,
    /// As in [`Shown`], if it can be shown again.
    of: Option<(LowerId, Untouched)>,
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
            shown: None,
            is_kept: false,
            mounting: None,
            removal: None,
        }
    }

    /// Shows `lower`. A view that is still there goes first, unless it is of the same tree, and kept.
    pub(crate) async fn mount(&mut self, lower: &Path) -> io::Result<Arc<OwnedFd>> {
        if let Some(root) = self.again(lower) {
            return Ok(root);
        }
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
        let Made { root, of } = on_thread(mount).await?;
        let root = Arc::new(root);
        self.shown = of.map(|(lower, untouched)| Shown {
            root: Arc::clone(&root),
            lower,
            untouched,
        });
        Ok(root)
    }

    /// The view that was kept, if it is of that tree, and whoever it was made for is there.
    fn again(&mut self, lower: &Path) -> Option<Arc<OwnedFd>> {
        let is_kept = std::mem::take(&mut self.is_kept);
        let shown = self.shown.as_ref().filter(|_| is_kept)?;
        let found = rustix::fs::stat(lower).ok()?;
        let is_same = shown.lower == found.into() && self.place.is_alive();
        is_same.then(|| Arc::clone(&shown.root))
    }

    /// Drops the view while `emptied` ends whoever can change it, or keeps it if nobody has: of the many tests of one
    /// program few write anything, and to make a view costs as much as to run one of them.
    pub(crate) async fn wipe(
        &mut self,
        emptied: impl Future<Output = Result<(), RuntimeError>>,
    ) -> Result<(), RuntimeError> {
        let (emptied, unmounted) = tokio::join!(emptied, self.unmount_changed());
        emptied?;
        unmounted.map_err(io_error("drop a view"))?;
        // Whoever was there until now may have changed it meanwhile.
        let unmounted = self.unmount_changed().await;
        unmounted.map_err(io_error("drop a view"))?;
        self.is_kept = self.mounted;
        Ok(())
    }

    /// Drops the view, unless it is certain that nobody has changed it.
    async fn unmount_changed(&mut self) -> io::Result<()> {
        let shown = self.shown.as_ref();
        match shown.is_some_and(|shown| shown.untouched.is_so().unwrap_or(false)) {
            true => Ok(()),
            false => self.unmount().await,
        }
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
    async fn unmount(&mut self) -> io::Result<()> {
        self.shown = None;
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
    /// Whether the process is there that views are made for.
    fn is_alive(&self) -> bool {
        let Self::Namespace { process, .. } = self else {
            return false;
        };
        let mut ended = [PollFd::new(process, PollFlags::IN)];
        poll(&mut ended, Some(&Timespec::default())) == Ok(0)
    }

    fn mount(&self, serial: u64, lower: &Path) -> io::Result<Made> {
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
                let (of, untouched) = (fstat(&lower)?.into(), Untouched::new(upper.as_fd())?);
                enter(process.as_fd())?;
                attach(&root, target)?;
                let of = match root_directory {
                    RootDirectory::InputRoot => furnish(&root).map(|()| None)?,
                    RootDirectory::Image => Some((of, untouched)),
                };
                Ok(Made { root, of })
            }
            Self::Directory(directory) => {
                copy_tree(lower, directory)?;
                let root = open(directory)?;
                Ok(Made { root, of: None })
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
