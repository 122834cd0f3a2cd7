//! A disk that can be filled.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A small file system, unmounted when dropped.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    pub(crate) fn mount(at: &Path) -> Self {
        std::fs::create_dir(at).expect("a directory");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=32m", "tmpfs"]);
        let mounted = mount.arg(at).status().expect("mount starts");
        assert!(mounted.success(), "a small disk takes root");
        Self(at.to_owned())
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    /// Takes up all the room there is.
    pub(crate) fn fill(&self) {
        self.take(usize::MAX);
    }

    /// Takes up so much room, in bytes, or all there is.
    pub(crate) fn take(&self, bytes: usize) {
        let mut filler = std::fs::File::create(self.filler()).expect("a file");
        let block = [0; 4096];
        let mut blocks = 0..bytes / block.len();
        while blocks.next().is_some() && filler.write_all(&block).is_ok() {}
    }

    pub(crate) fn make_room(&self) {
        std::fs::remove_file(self.filler()).expect("it is there");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let mut unmount = Command::new("umount");
        drop(unmount.args(["--lazy"]).arg(&self.0).status());
    }
}
