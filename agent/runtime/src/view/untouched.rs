//! Whether anything has been done through a view.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, Mode, OFlags, StatxFlags, flistxattr, openat, statx};

/// More names of attributes than a layer has that nobody has touched.
const MAX_NAMES_BYTES: usize = 1 << 10;

/// The upper layer of an overlay, which takes whatever is done through it, and how it was made.
#[derive(Debug)]
pub(super) struct Untouched {
    upper: OwnedFd,
    made: State,
}

/// Of the root of a layer. Whatever is done to it, or to what is directly in it, changes the time; what is done within
/// the tick of the clock in which it was made, the rest.
#[derive(PartialEq, Eq, Debug)]
struct State {
    changed: (i64, u32),
    mode: u16,
    owner: (u32, u32),
    attributes: Vec<u8>,
}

impl Untouched {
    /// Of a layer that nobody has had the use of yet.
    pub(super) fn new(upper: BorrowedFd<'_>) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let upper = openat(upper, ".", flags, Mode::empty())?;
        let made = State::of(&upper)?;
        Ok(Self { upper, made })
    }

    /// Whether the layer is empty, and as it was made. Whoever may still use the view may change it at any time.
    pub(super) fn is_so(&self) -> io::Result<bool> {
        Ok(State::of(&self.upper)? == self.made && is_empty(&self.upper)?)
    }
}

impl State {
    fn of(layer: &OwnedFd) -> io::Result<Self> {
        let found = statx(layer, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
        let mut attributes = vec![0; MAX_NAMES_BYTES];
        let length = flistxattr(layer, attributes.as_mut_slice())?;
        attributes.truncate(length);
        Ok(Self {
            changed: (found.stx_ctime.tv_sec, found.stx_ctime.tv_nsec),
            mode: found.stx_mode,
            owner: (found.stx_uid, found.stx_gid),
            attributes,
        })
    }
}

fn is_empty(directory: &OwnedFd) -> io::Result<bool> {
    for entry in Dir::read_from(directory)? {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, Permissions};
    use std::os::fd::AsFd;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use std::time::Duration;

    use rustix::fs::{XattrFlags, setxattr};
    use rustix::io::Errno;

    use super::*;

    /// Longer than a tick of the kernel's clock.
    const TICK: Duration = Duration::from_millis(30);

    /// What somebody does to a layer, and what that is.
    type Deed = (&'static str, fn(&Path));

    fn layer() -> (tempfile::TempDir, Untouched) {
        let directory = tempfile::tempdir().unwrap();
        let upper = File::open(directory.path()).unwrap();
        let untouched = Untouched::new(upper.as_fd()).unwrap();
        (directory, untouched)
    }

    /// Whether there is an attribute now: not every tmpfs has users' ones.
    fn mark(root: &Path) -> bool {
        match setxattr(root, "user.mark", b"x", XattrFlags::empty()) {
            Err(Errno::OPNOTSUPP) => false,
            marked => marked.map(|()| true).unwrap(),
        }
    }

    #[test]
    fn looking_is_not_touching() {
        let (directory, untouched) = layer();
        std::thread::sleep(TICK);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        File::open(directory.path()).unwrap();
        fs::read(directory.path().join("none")).unwrap_err();
        for _ in 0..2 {
            assert!(untouched.is_so().unwrap());
        }
    }

    #[test]
    fn whatever_is_done_is_noticed() {
        let deeds: [Deed; 5] = [
            ("a file", |root| fs::write(root.join("file"), "").unwrap()),
            ("a directory", |root| {
                fs::create_dir(root.join("d")).unwrap()
            }),
            ("a file that came and went", |root| {
                fs::write(root.join("file"), "").unwrap();
                fs::remove_file(root.join("file")).unwrap();
            }),
            ("a mode that came and went", |root| {
                let before = fs::metadata(root).unwrap().permissions();
                fs::set_permissions(root, Permissions::from_mode(0o700)).unwrap();
                fs::set_permissions(root, before).unwrap();
            }),
            ("a time", |root| {
                File::open(root)
                    .unwrap()
                    .set_modified(std::time::UNIX_EPOCH)
                    .unwrap();
            }),
        ];
        for (what, deed) in deeds {
            let (directory, untouched) = layer();
            std::thread::sleep(TICK);
            deed(directory.path());
            assert!(!untouched.is_so().unwrap(), "{what}");
        }
    }

    #[test]
    fn what_can_be_seen_is_noticed_however_soon_it_comes() {
        for _ in 0..200 {
            let (directory, untouched) = layer();
            let is_marked = mark(directory.path());
            assert_eq!(untouched.is_so().unwrap(), !is_marked);
            let (directory, untouched) = layer();
            fs::set_permissions(directory.path(), Permissions::from_mode(0o711)).unwrap();
            assert!(!untouched.is_so().unwrap());
        }
    }
}
