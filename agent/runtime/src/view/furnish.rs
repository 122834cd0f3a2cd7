//! What a view needs to be a root directory: the container's `/proc`, `/dev` and `/tmp` on top of it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, openat2};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

/// A directory of the container that is shown in a view.
struct Furnishing {
    name: &'static str,
    /// Whether what is mounted below it is shown, too. Not for scratch space: a view may itself be there.
    with_mounts: bool,
}

const FURNISHINGS: [Furnishing; 3] = [
    Furnishing {
        name: "proc",
        with_mounts: true,
    },
    Furnishing {
        name: "dev",
        with_mounts: true,
    },
    Furnishing {
        name: "tmp",
        with_mounts: false,
    },
];

/// The mode of the directories that are mounted on.
const MOUNT_POINT_MODE: Mode = Mode::from_raw_mode(0o755);

/// Why a tree cannot be a root directory.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unfit(pub(crate) String);

/// Shows the directories in a view that is attached in the namespace that this thread has entered. Detaching
/// the view detaches them as well.
pub(crate) fn furnish(view: &OwnedFd) -> io::Result<()> {
    for furnishing in &FURNISHINGS {
        let target = mount_point(view, furnishing.name)?;
        let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        if furnishing.with_mounts {
            flags |= OpenTreeFlags::AT_RECURSIVE;
        }
        let source = open_tree(CWD, format!("/{}", furnishing.name), flags)?;
        let flags =
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(&source, c"", &target, c"", flags)?;
    }
    Ok(())
}

/// The directory of that name, made if there is none. No symbolic link is followed.
fn mount_point(view: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    match mkdirat(view.as_fd(), name, MOUNT_POINT_MODE) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno.into()),
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    match openat2(view, name, flags, Mode::empty(), resolve) {
        Err(Errno::NOTDIR | Errno::LOOP) => {
            let detail =
                format!("`{name}` is no directory, and /{name} of the container goes there");
            Err(io::Error::other(Unfit(detail)))
        }
        opened => Ok(opened?),
    }
}
