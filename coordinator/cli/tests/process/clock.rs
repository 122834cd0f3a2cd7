//! A wall clock of a test's own, which jumps.

use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::program::Ended;

/// What a program is made to load.
const LIBRARY: &str = include_str!("clock.c");
/// In seconds.
pub(crate) const DAY: i64 = 86_400;

/// The wall clock of those programs that are started in its environment. It is the machine's until it jumps;
/// what counts the time since something began is not touched.
#[derive(Debug)]
pub(crate) struct Clock {
    directory: TempDir,
    ahead: std::fs::File,
}

impl Clock {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let source = directory.path().join("clock.c");
        std::fs::write(&source, LIBRARY).expect("is written");
        let ahead = std::fs::File::create(directory.path().join("ahead")).expect("a file");
        let clock = Self { directory, ahead };
        let mut compile = Command::new("cc");
        compile
            .args(["-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o"])
            .arg(clock.library())
            .arg(source);
        Ended::of(&mut compile).expect_code(0);
        clock.set(0);
        clock
    }

    /// What is said to programs that are to have it.
    pub(crate) fn environment(&self) -> [(&'static str, String); 2] {
        let path = |path: PathBuf| path.to_str().expect("is text").to_owned();
        [
            ("LD_PRELOAD", path(self.library())),
            ("CLOCK_FILE", path(self.directory.path().join("ahead"))),
        ]
    }

    /// Sets it so many seconds ahead of the machine's, or behind it.
    pub(crate) fn set(&self, seconds: i64) {
        let written = self.ahead.write_all_at(&seconds.to_ne_bytes(), 0);
        written.expect("is written");
    }

    fn library(&self) -> PathBuf {
        self.directory.path().join("clock.so")
    }
}
