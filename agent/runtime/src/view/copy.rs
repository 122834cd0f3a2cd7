//! Copies of trees, sharing blocks where the file system can.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::ioctl_ficlone;

/// A copied directory is always its owner's to change: commands have no capability to override modes.
const OWNER: u32 = 0o700;

/// Copies what is in `source` into the existing directory `target`: directories, files with their modes
/// and times, symlinks as they are. Other kinds of file are no part of an input tree.
pub(crate) fn copy_tree(source: &Path, target: &Path) -> io::Result<()> {
    // A stack instead of recursion: the depth of a tree is not ours to choose.
    let mut pending = vec![(source.to_path_buf(), target.to_path_buf())];
    while let Some((source, target)) = pending.pop() {
        for entry in fs::read_dir(&source)? {
            let entry = entry?;
            let (from, to) = (entry.path(), target.join(entry.file_name()));
            let kind = entry.file_type()?;
            if kind.is_symlink() {
                symlink(fs::read_link(&from)?, &to)?;
            } else if kind.is_dir() {
                fs::create_dir(&to)?;
                let mode = entry.metadata()?.permissions().mode() | OWNER;
                fs::set_permissions(&to, fs::Permissions::from_mode(mode))?;
                pending.push((from, to));
            } else if kind.is_file() {
                copy_file(&from, &to)?;
            }
        }
    }
    Ok(())
}

fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    let mut source = fs::File::open(from)?;
    let metadata = source.metadata()?;
    let mut target = fs::File::create_new(to)?;
    if ioctl_ficlone(&target, &source).is_err() {
        // Uses copy_file_range or the like where it can.
        io::copy(&mut source, &mut target)?;
    }
    target.set_modified(metadata.modified()?)?;
    target.set_permissions(metadata.permissions())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_equal_and_independent() {
        let root = tempfile::tempdir().expect("a directory");
        let (source, target) = (root.path().join("source"), root.path().join("target"));
        fs::create_dir_all(source.join("dir/ü")).expect("new");
        fs::create_dir(&target).expect("new");
        fs::write(source.join("dir/ü/tool"), "#!").expect("written");
        let executable = fs::Permissions::from_mode(0o555);
        fs::set_permissions(source.join("dir/ü/tool"), executable).expect("set");
        symlink("../missing", source.join("dir/link")).expect("linked");
        copy_tree(&source, &target).expect("copied");
        let tool = target.join("dir/ü/tool");
        assert_eq!(fs::read(&tool).expect("read"), b"#!");
        let metadata = fs::metadata(&tool).expect("there");
        assert_eq!(metadata.permissions().mode() & 0o777, 0o555);
        let original = fs::metadata(source.join("dir/ü/tool")).expect("there");
        assert_eq!(
            metadata.modified().expect("known"),
            original.modified().expect("known")
        );
        assert_eq!(
            fs::read_link(target.join("dir/link")).expect("link"),
            Path::new("../missing")
        );
        fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).expect("set");
        fs::write(&tool, "changed").expect("written");
        assert_eq!(fs::read(source.join("dir/ü/tool")).expect("read"), b"#!");
    }
}
