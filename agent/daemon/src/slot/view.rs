//! What the agent does inside the view of a job: with nothing but paths resolved beneath the view's root, or
//! as if it were the root directory, so that no symbolic link that a job planted leads out of it.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use regatta_model::RootDirectory;
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat2, statat, unlinkat,
};

/// Through nothing that the kernel makes up, and through nothing that is mounted in a view.
const RESOLVE: ResolveFlags = ResolveFlags::NO_MAGICLINKS.union(ResolveFlags::NO_XDEV);
const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o755);
const FILE_MODE: Mode = Mode::from_raw_mode(0o644);
/// How often a path is looked up while files are renamed, whose they may be: for a way through `..` the system cannot
/// say then whether it has stayed inside.
const LOOKUPS: usize = 64;

/// The root of a view, and where links in it lead. Clones are of the same view.
#[derive(Clone, Debug)]
pub(crate) struct View {
    root: Arc<OwnedFd>,
    resolve: ResolveFlags,
}

impl View {
    /// A view whose root the command sees at its work path, or as its root directory: then absolute links
    /// begin there, and otherwise they lead out of it.
    pub(crate) fn new(root: Arc<OwnedFd>, seen_as: RootDirectory) -> Self {
        let scope = match seen_as {
            RootDirectory::Image => ResolveFlags::BENEATH,
            RootDirectory::InputRoot => ResolveFlags::IN_ROOT,
        };
        Self {
            root,
            resolve: RESOLVE | scope,
        }
    }

    fn open_directory(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        self.open(or_dot(path), flags, Mode::empty())
    }

    /// Opens what a path from the root leads to. If files are renamed for as long as it tries, that is the doing of the
    /// job's own processes, and the path leads around.
    fn open(&self, path: &Path, flags: OFlags, mode: Mode) -> rustix::io::Result<OwnedFd> {
        let mut lookups =
            (0..LOOKUPS).map(|_| openat2(&self.root, path, flags, mode, self.resolve));
        let opened = lookups.find(|opened| !matches!(opened, Err(rustix::io::Errno::AGAIN)));
        opened.unwrap_or(Err(rustix::io::Errno::LOOP))
    }
}

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
pub(crate) fn make_directories(view: &View, path: &Path) -> rustix::io::Result<()> {
    let mut made = std::path::PathBuf::new();
    for name in path {
        let parent = view.open_directory(&made)?;
        match mkdirat(&parent, name, DIRECTORY_MODE) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        made.push(name);
    }
    view.open_directory(&made).map(drop)
}

/// Takes a file out, if it is there; a directory stays.
pub(crate) fn remove_file(view: &View, path: &Path) -> rustix::io::Result<()> {
    let (Some(name), Some(parent)) = (path.file_name(), path.parent()) else {
        return Ok(());
    };
    let removed = view
        .open_directory(parent)
        .and_then(|parent| unlinkat(&parent, name, AtFlags::empty()));
    match removed {
        Err(error) if is_absence(error) || error == rustix::io::Errno::ISDIR => Ok(()),
        removed => removed,
    }
}

/// Writes a file that everybody may read, in place of whatever file is there.
pub(crate) fn put_file(view: &View, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new(""));
    make_directories(view, parent)?;
    remove_file(view, path)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = view.open(path, flags, FILE_MODE)?;
    io::Write::write_all(&mut File::from(file), bytes)
}

fn or_dot(path: &Path) -> &Path {
    if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    }
}

/// Looks something up; its last component is not followed if it is a symbolic link.
pub(crate) fn find(view: &View, path: &Path) -> io::Result<Found> {
    let Some(name) = path.file_name() else {
        return Ok(Found::Directory(view.open_directory(path)?));
    };
    let parent = match view.open_directory(path.parent().unwrap_or(Path::new(""))) {
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
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => open_file(parent, name)?,
        FileType::Directory => match open_entry(parent, name, OFlags::DIRECTORY) {
            // What is mounted there is the container's.
            Err(rustix::io::Errno::XDEV) => Found::Nothing,
            opened => Found::Directory(opened?),
        },
        FileType::Symlink => match rustix::fs::readlinkat(parent, name, Vec::new()) {
            // It is none any more.
            Err(rustix::io::Errno::INVAL) => Found::Special,
            target => Found::Symlink {
                target: target?.into_bytes(),
            },
        },
        FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => Found::Special,
    })
}

/// Opens what is to be a file, for reading. A process of the job may still be there, and put something else in its
/// place after any look at it: what it is can only be said of what is open. Nobody at the other end of a pipe is
/// waited for.
fn open_file(parent: &impl AsFd, name: &OsStr) -> io::Result<Found> {
    let file = match open_entry(parent, name, OFlags::NONBLOCK) {
        Err(error) if is_absence(error) => return Ok(Found::Nothing),
        // A socket.
        Err(rustix::io::Errno::NXIO) => return Ok(Found::Special),
        opened => opened?,
    };
    let stat = fstat(&file)?;
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Found::File {
            file: File::from(file),
            executable: stat.st_mode & 0o111 != 0,
        },
        FileType::Directory
        | FileType::Symlink
        | FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => Found::Special,
    })
}

/// Opens one name in a directory, and not what a link there leads to.
fn open_entry(parent: &impl AsFd, name: &OsStr, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = RESOLVE | ResolveFlags::BENEATH;
    openat2(parent, name, flags, Mode::empty(), resolve)
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
    use std::sync::atomic::{AtomicBool, Ordering};

    use rustix::fs::mkfifoat;

    use super::*;

    fn view() -> (tempfile::TempDir, View) {
        view_as(RootDirectory::Image)
    }

    fn view_as(seen_as: RootDirectory) -> (tempfile::TempDir, View) {
        let directory = tempfile::tempdir().unwrap();
        let root = OwnedFd::from(File::open(directory.path()).unwrap());
        (directory, View::new(Arc::new(root), seen_as))
    }

    #[test]
    fn absolute_links_begin_at_a_view_that_is_the_root_directory() {
        let (directory, root) = view_as(RootDirectory::InputRoot);
        std::fs::create_dir_all(directory.path().join("usr/lib")).unwrap();
        std::fs::write(directory.path().join("usr/lib/file"), "x").unwrap();
        symlink("/usr/lib", directory.path().join("lib")).unwrap();
        symlink("/../../etc", directory.path().join("etc")).unwrap();
        make_directories(&root, Path::new("lib/made")).unwrap();
        assert!(directory.path().join("usr/lib/made").is_dir());
        let found = find(&root, Path::new("lib/file")).unwrap();
        assert!(matches!(found, Found::File { .. }), "{found:?}");
        let found = find(&root, Path::new("etc/passwd")).unwrap();
        assert!(matches!(found, Found::Nothing), "{found:?}");
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
    fn files_are_put_in_place_of_what_is_there_and_never_through_it() {
        let (directory, root) = view();
        let outside = tempfile::tempdir().unwrap();
        let victim = outside.path().join("victim");
        std::fs::write(&victim, "theirs").unwrap();
        let at = |path: &str| directory.path().join(path);
        put_file(&root, Path::new("a/file"), b"one").unwrap();
        put_file(&root, Path::new("a/file"), b"two").unwrap();
        assert_eq!(std::fs::read(at("a/file")).unwrap(), b"two");
        std::fs::remove_file(at("a/file")).unwrap();
        symlink(&victim, at("a/file")).unwrap();
        put_file(&root, Path::new("a/file"), b"three").unwrap();
        assert_eq!(std::fs::read(&victim).unwrap(), b"theirs");
        assert_eq!(std::fs::read(at("a/file")).unwrap(), b"three");
        symlink(outside.path(), at("out")).unwrap();
        put_file(&root, Path::new("out/victim"), b"four").unwrap_err();
        remove_file(&root, Path::new("out/victim")).unwrap();
        assert_eq!(std::fs::read(&victim).unwrap(), b"theirs");
        remove_file(&root, Path::new("a/file")).unwrap();
        remove_file(&root, Path::new("a/file")).unwrap();
        assert!(!at("a/file").exists());
        remove_file(&root, Path::new("a")).unwrap();
        assert!(at("a").exists());
    }

    #[test]
    fn what_is_put_in_place_of_a_file_after_a_look_at_it_is_none() {
        let (directory, view) = view();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("file"), "x").unwrap();
        std::fs::create_dir(at("directory")).unwrap();
        symlink(at("file"), at("link")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        mkfifoat(&view.root, "pipe", FILE_MODE).unwrap();
        let opened = |name: &str| open_file(&view.root, OsStr::new(name)).unwrap();
        assert!(matches!(opened("file"), Found::File { .. }));
        for name in ["directory", "socket", "pipe"] {
            assert!(matches!(opened(name), Found::Special), "{name}");
        }
        for name in ["link", "missing"] {
            assert!(matches!(opened(name), Found::Nothing), "{name}");
        }
    }

    #[test]
    fn files_that_are_renamed_all_the_time_are_nobody_elses_fault() {
        let (directory, view) = view();
        let at = |name: &str| directory.path().join(name);
        std::fs::create_dir(at("way")).unwrap();
        std::fs::write(at("file"), "x").unwrap();
        symlink("way/..".to_owned() + &"/way/..".repeat(100), at("link")).unwrap();
        let (renamed, is_over) = (at("one"), AtomicBool::new(false));
        std::fs::create_dir(&renamed).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut from, mut to) = (renamed.clone(), at("two"));
                while !is_over.load(Ordering::SeqCst) {
                    std::fs::rename(&from, &to).unwrap();
                    std::mem::swap(&mut from, &mut to);
                }
            });
            let looked_up = (0..2000).map(|_| find(&view, Path::new("link/file")));
            let errors: Vec<_> = looked_up.filter_map(Result::err).collect();
            is_over.store(true, Ordering::SeqCst);
            assert!(errors.is_empty(), "{errors:?}");
        });
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
