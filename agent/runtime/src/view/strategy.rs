//! How views are made on this machine, found out by trying.

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::overlay::{Layers, OverlayFlavour, make_overlay};
use crate::run_directory::remove_tree;

/// How a command gets its own copy of an input tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ViewStrategy {
    /// An overlay mount in the container's mount namespace: costs nothing per file.
    Overlay,
    /// A copy, sharing blocks where the file system can: costs time per file.
    Copy {
        /// Why no overlay can be had, for people.
        reason: String,
    },
}

impl fmt::Display for ViewStrategy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overlay => formatter.write_str("overlay"),
            Self::Copy { reason } => write!(formatter, "copy, because {reason}"),
        }
    }
}

/// A strategy with what it takes.
#[derive(Clone, Debug)]
pub(crate) enum Views {
    Overlay(OverlayFlavour),
    Copy { reason: String },
}

impl Views {
    pub(crate) fn strategy(&self) -> ViewStrategy {
        match self {
            Self::Overlay(_) => ViewStrategy::Overlay,
            Self::Copy { reason } => ViewStrategy::Copy {
                reason: reason.clone(),
            },
        }
    }
}

/// Tries every kind of overlay, best first, in a directory like those of the containers.
pub(crate) fn probe(directory: &Path) -> Views {
    let place = directory.join("probe");
    let mut last = io::Error::from(Errno::NOSYS);
    for flavour in OverlayFlavour::ALL {
        let outcome = try_overlay(&place, flavour);
        remove_tree(&place).ok();
        match outcome {
            Ok(()) => return Views::Overlay(flavour),
            Err(error) => last = error,
        }
    }
    Views::Copy {
        reason: explain(&last),
    }
}

fn try_overlay(place: &Path, flavour: OverlayFlavour) -> io::Result<()> {
    for layer in ["lower", "upper", "work"] {
        fs::create_dir_all(place.join(layer))?;
    }
    let [lower, upper, work] = ["lower", "upper", "work"].map(|layer| open(&place.join(layer)));
    let (lower, upper, work) = (lower?, upper?, work?);
    let layers = Layers {
        lower: lower.as_fd(),
        upper: upper.as_fd(),
        work: work.as_fd(),
    };
    let root = make_overlay(&layers, flavour)?;
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::openat(&root, "written", flags, Mode::RUSR)?;
    if place.join("upper/written").exists() && !place.join("lower/written").exists() {
        Ok(())
    } else {
        Err(io::Error::other(
            "a write through the overlay did not reach its upper layer",
        ))
    }
}

/// Opens a directory as a layer.
pub(crate) fn open(directory: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(directory, flags, Mode::empty())?)
}

fn explain(error: &io::Error) -> String {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::PERM | Errno::ACCESS) => {
            "mounting needs CAP_SYS_ADMIN: run the agent as root".to_owned()
        }
        Some(Errno::NODEV) => "the kernel has no overlayfs: load the module `overlay`".to_owned(),
        Some(Errno::NOSYS) => "the kernel has no fsopen: it is older than Linux 5.2".to_owned(),
        Some(Errno::INVAL | Errno::OPNOTSUPP | Errno::XDEV) => {
            format!("the file system of the run directory cannot carry an overlay ({error})")
        }
        Some(_) | None => format!("an overlay could not be made: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_a_reason_for_people() {
        for (errno, expected) in [
            (Errno::PERM, "run the agent as root"),
            (Errno::NODEV, "load the module"),
            (Errno::NOSYS, "older than Linux"),
            (Errno::INVAL, "file system of the run directory"),
            (Errno::NOSPC, "could not be made"),
        ] {
            let reason = explain(&errno.into());
            assert!(reason.contains(expected), "{reason}");
        }
    }

    #[test]
    fn probing_leaves_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        let views = probe(directory.path());
        assert_eq!(fs::read_dir(directory.path()).expect("listed").count(), 0);
        assert!(!views.strategy().to_string().is_empty());
    }
}
