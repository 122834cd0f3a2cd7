//! What the agent does inside the view of a job: with nothing but paths resolved beneath the view's root,
//! so that no symbolic link that a job planted leads out of it.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, mkdirat, openat2, statat};

/// Beneath the root, and through nothing that the kernel makes up.
const RESOLVE: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);
const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o755);

/// Something in a view.
#[derive(Debug)]
pub(crate) enum Found {
    Nothing,
    File {
        file: File,
        executable: bool,
    },
    Directory(OwnedFd),
    Symlink {
        target: Vec<u8>,
    },
    /// A socket, a device, a pipe.
    Special,
}

/// Makes a directory with all its parents, as far as they are missing.
pub(crate) fn make_directories(root: &impl AsFd, path: &Path) -> rustix::io::Result<()> {
    let mut made = std::path::PathBuf::new();
    for name in path {
        let parent = open_directory(root, &made)?;
        match mkdirat(&parent, name, DIRECTORY_MODE) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        made.push(name);
    }
    open_directory(root, &made).map(drop)
}

fn open_directory(root: &impl AsFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat2(root, or_dot(path), flags, Mode::empty(), RESOLVE)
}

fn or_dot(path: &Path) -> &Path {
    if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    }
}

/// Looks something up; its last component is not followed if it is a symbolic link.
pub(crate) fn find(root: &impl AsFd, path: &Path) -> io::Result<Found> {
    let Some(name) = path.file_name() else {
        return Ok(Found::Directory(open_directory(root, path)?));
    };
    let parent = match open_directory(root, path.parent().unwrap_or(Path::new(""))) {
        Ok(parent) => parent,
        Err(error) if is_absence(error) => return Ok(Found::Nothing),
        Err(error) => return Err(error.into()),
    };
    find_in(&parent, name)
}

/// Looks up one name in a directory.
pub(crate) fn find_in(parent: &impl AsFd, name: &OsStr) -> io::Result<Found> {
    let stat = match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(error) if is_absence(error) => return Ok(Found::Nothing),
        Err(error) => return Err(error.into()),
    };
    let open = |flags| {
        let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat2(parent, name, flags, Mode::empty(), RESOLVE)
    };
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Found::File {
            file: File::from(open(OFlags::NONBLOCK)?),
            executable: stat.st_mode & 0o111 != 0,
        },
        FileType::Directory => Found::Directory(open(OFlags::DIRECTORY)?),
        FileType::Symlink => Found::Symlink {
            target: rustix::fs::readlinkat(parent, name, Vec::new())?.into_bytes(),
        },
        FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => Found::Special,
    })
}

/// The errors that say that a path names nothing in the view. That includes paths that lead out of it
/// (EXDEV): what is outside is no output.
fn is_absence(error: rustix::io::Errno) -> bool {
    use rustix::io::Errno;
    [Errno::NOENT, Errno::NOTDIR, Errno::XDEV, Errno::LOOP].contains(&error)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn view() -> (tempfile::TempDir, File) {
        let directory = tempfile::tempdir().unwrap();
        let root = File::open(directory.path()).unwrap();
        (directory, root)
    }

    #[test]
    fn directories_are_made_beneath_the_root_alone() {
        let (directory, root) = view();
        let outside = tempfile::tempdir().unwrap();
        make_directories(&root, Path::new("a/b/c")).unwrap();
        make_directories(&root, Path::new("a/b")).unwrap();
        assert!(directory.path().join("a/b/c").is_dir());
        symlink(outside.path(), directory.path().join("out")).unwrap();
        make_directories(&root, Path::new("out/made")).unwrap_err();
        assert!(!outside.path().join("made").exists());
        symlink("a", directory.path().join("in")).unwrap();
        make_directories(&root, Path::new("in/made")).unwrap();
        assert!(directory.path().join("a/made").is_dir());
    }

    #[test]
    fn a_link_out_of_the_view_leads_nowhere() {
        let (directory, root) = view();
        symlink("/etc", directory.path().join("etc")).unwrap();
        symlink("/etc/passwd", directory.path().join("passwd")).unwrap();
        let found = find(&root, Path::new("etc/passwd")).unwrap();
        assert!(matches!(found, Found::Nothing), "{found:?}");
        let found = find(&root, Path::new("passwd")).unwrap();
        assert!(matches!(found, Found::Symlink { .. }), "{found:?}");
        let found = find(&root, Path::new("missing/file")).unwrap();
        assert!(matches!(found, Found::Nothing), "{found:?}");
    }
}
