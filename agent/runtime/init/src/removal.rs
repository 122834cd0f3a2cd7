//! Empties directories, however deep, with two open descriptors and no recursion: what is nested is
//! first moved up. A command can nest directories deeper than a stack or a descriptor table.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, Mode, OFlags, RawMode, chmodat, openat, renameat_with, unlinkat,
};
use rustix::io::Errno;

/// Removes everything in a directory, except what leads to `keep` if that is below it, and mount points.
/// A missing directory is empty.
///
/// # Errors
/// Something could not be removed; the rest may be left.
pub fn empty_directory(directory: &Path, keep: Option<&Path>) -> io::Result<()> {
    let mut top = match open(CWD, &c_string(directory.as_os_str().as_bytes())?) {
        Ok(top) => top,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    };
    let below = keep.and_then(|keep| keep.strip_prefix(directory).ok());
    for component in below.into_iter().flat_map(Path::components) {
        let name = c_string(component.as_os_str().as_bytes())?;
        empty(&top, Some(&name))?;
        top = match open(&top, &name) {
            Ok(next) => next,
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        };
    }
    if below.is_none() {
        empty(&top, None)
    } else {
        Ok(())
    }
}

/// Removes everything in an open directory except mount points, in whatever mount namespace this is.
///
/// # Errors
/// Something could not be removed; the rest may be left.
pub fn empty_open_directory(directory: &OwnedFd) -> io::Result<()> {
    empty(directory, None)
}

fn empty(top: &OwnedFd, keep: Option<&CStr>) -> io::Result<()> {
    let mut serial = 0;
    loop {
        let mut progress = false;
        for name in names(top)? {
            if keep == Some(name.as_c_str()) {
                continue;
            }
            match remove(top, &name, &mut serial) {
                Ok(()) => progress = true,
                // Somebody else removes, too; the next round shows what is left.
                Err(Errno::NOENT) => progress = true,
                Err(Errno::BUSY) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        // What moved up is seen by the next round; mount points stay.
        if !progress {
            return Ok(());
        }
    }
}

/// Removes an entry of `top`; directories inside it move to `top`.
fn remove(top: &OwnedFd, name: &CStr, serial: &mut u64) -> Result<(), Errno> {
    match unlinkat(top, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(errno),
    }
    match unlinkat(top, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTEMPTY | Errno::EXIST | Errno::ACCESS) => {}
        Err(errno) => return Err(errno),
    }
    let directory = open(top, name)?;
    for entry in names(&directory)? {
        match unlinkat(&directory, &entry, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => continue,
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(errno) => return Err(errno),
        }
        if unlinkat(&directory, &entry, AtFlags::REMOVEDIR).is_err() {
            move_up(&directory, &entry, top, serial)?;
        }
    }
    unlinkat(top, name, AtFlags::REMOVEDIR)
}

fn move_up(
    directory: &OwnedFd,
    entry: &CStr,
    top: &OwnedFd,
    serial: &mut u64,
) -> Result<(), Errno> {
    // A directory changes its parent, so it must be writable itself.
    chmodat(directory, entry, Mode::RWXU, AtFlags::empty())?;
    loop {
        *serial += 1;
        let name = format!(".regatta-removed-{serial}");
        let flags = rustix::fs::RenameFlags::NOREPLACE;
        match renameat_with(directory, entry, top, name.as_str(), flags) {
            Err(Errno::EXIST) => {}
            outcome => return outcome,
        }
    }
}

/// Opens a directory such that its entries can be listed and removed.
fn open(parent: impl std::os::fd::AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = match openat(&parent, name, flags, Mode::empty()) {
        Err(Errno::ACCESS) => {
            chmodat(&parent, name, Mode::RWXU, AtFlags::empty())?;
            openat(&parent, name, flags, Mode::empty())?
        }
        outcome => outcome?,
    };
    let mode = Mode::from_raw_mode(RawMode::from(rustix::fs::fstat(&directory)?.st_mode));
    if !mode.contains(Mode::RWXU) {
        rustix::fs::fchmod(&directory, mode.union(Mode::RWXU))?;
    }
    Ok(directory)
}

fn names(directory: &OwnedFd) -> Result<Vec<CString>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

fn c_string(bytes: &[u8]) -> io::Result<CString> {
    CString::new(bytes).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn nothing_survives_but_the_directory() {
        let root = tempfile::tempdir().expect("a directory");
        let outside = root.path().join("outside");
        let scratch = root.path().join("scratch");
        fs::create_dir(&outside).expect("new");
        fs::write(outside.join("kept"), "x").expect("written");
        fs::create_dir_all(scratch.join("a/b/c/ü")).expect("new");
        fs::write(scratch.join("a/b/file"), "x").expect("written");
        fs::write(scratch.join(".regatta-removed-1"), "in the way").expect("written");
        symlink(&outside, scratch.join("a/link")).expect("linked");
        for closed in ["a/b/c", "a/b", "a"] {
            let mode = fs::Permissions::from_mode(0o0);
            fs::set_permissions(scratch.join(closed), mode).expect("closed");
        }
        empty_directory(&scratch, None).expect("emptied");
        assert_eq!(fs::read_dir(&scratch).expect("still there").count(), 0);
        assert!(outside.join("kept").exists(), "symlinks are not followed");
        empty_directory(&root.path().join("missing"), None).expect("missing is empty");
    }

    #[test]
    fn depth_costs_neither_stack_nor_descriptors() {
        let root = tempfile::tempdir().expect("a directory");
        let mut directory = open(
            CWD,
            &c_string(root.path().as_os_str().as_bytes()).expect("path"),
        )
        .expect("opened");
        for _ in 0..3_000 {
            rustix::fs::mkdirat(&directory, "d", Mode::RWXU).expect("new");
            directory = openat(&directory, "d", OFlags::DIRECTORY, Mode::empty()).expect("opened");
        }
        empty_directory(root.path(), None).expect("emptied");
        assert_eq!(fs::read_dir(root.path()).expect("still there").count(), 0);
    }

    #[test]
    fn what_leads_to_the_kept_path_stays() {
        let root = tempfile::tempdir().expect("a directory");
        let keep = root.path().join("run/slot/work");
        fs::create_dir_all(&keep).expect("new");
        fs::write(keep.join("inside"), "x").expect("written");
        fs::write(root.path().join("run/litter"), "x").expect("written");
        fs::create_dir_all(root.path().join("run/slot/other/deep")).expect("new");
        empty_directory(root.path(), Some(&keep)).expect("emptied");
        assert!(keep.join("inside").exists());
        assert!(!root.path().join("run/litter").exists());
        assert!(!root.path().join("run/slot/other").exists());
    }
}
