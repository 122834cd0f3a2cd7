//! Overlay mounts that are nowhere: made with the new mount interface, and attached later.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

/// Which of overlayfs's options the kernel takes, best first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OverlayFlavour {
    /// `fsync` in a view costs nothing, since a view does not outlive its task; directories of the lower
    /// tree can be renamed.
    Volatile,
    /// Directories of the lower tree can be renamed.
    Renaming,
    /// The kernel's defaults.
    Plain,
}

impl OverlayFlavour {
    /// All, best first.
    pub(crate) const ALL: [Self; 3] = [Self::Volatile, Self::Renaming, Self::Plain];
}

/// The three directories of an overlay.
pub(crate) struct Layers<'a> {
    pub(crate) lower: BorrowedFd<'a>,
    pub(crate) upper: BorrowedFd<'a>,
    pub(crate) work: BorrowedFd<'a>,
}

/// Makes a detached overlay; the descriptor is its root.
pub(crate) fn make_overlay(layers: &Layers<'_>, flavour: OverlayFlavour) -> Result<OwnedFd, Errno> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let context = context.as_fd();
    // Paths through descriptors need no escaping and have no length limit.
    fsconfig_set_string(context, "source", "regatta")?;
    fsconfig_set_string(context, "lowerdir", through(layers.lower))?;
    fsconfig_set_string(context, "upperdir", through(layers.upper))?;
    fsconfig_set_string(context, "workdir", through(layers.work))?;
    match flavour {
        OverlayFlavour::Volatile => {
            fsconfig_set_string(context, "redirect_dir", "on")?;
            fsconfig_set_flag(context, "volatile")?;
        }
        OverlayFlavour::Renaming => fsconfig_set_string(context, "redirect_dir", "on")?,
        OverlayFlavour::Plain => {}
    }
    fsconfig_create(context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

fn through(directory: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", directory.as_raw_fd())
}
