//! Directories for the state of what a chore starts: removed with it, or by the next chore if it was
//! killed.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result};
use tempfile::TempDir;

/// Whoever uses a directory has this file in it locked: the chore its own, and every daemon the one in
/// its state directory. Locks go with their process, however it ends.
const LOCK: &str = "lock";

/// A directory in use.
pub(crate) struct Scratch {
    // Dropped, and so removed, before the lock is let go.
    directory: TempDir,
    _lock: File,
}

impl Scratch {
    /// Makes a directory whose name begins with `prefix`, and removes those that nobody uses any more.
    pub(crate) fn new(prefix: &str) -> Result<Self> {
        Self::new_in(&std::env::temp_dir(), prefix)
    }

    fn new_in(parent: &Path, prefix: &str) -> Result<Self> {
        remove_stale(parent, prefix)?;
        let directory = tempfile::Builder::new().prefix(prefix).tempdir_in(parent)?;
        let lock = File::create(directory.path().join(LOCK))?;
        lock.lock().context("locking the scratch directory")?;
        Ok(Self {
            directory,
            _lock: lock,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }
}

fn remove_stale(parent: &Path, prefix: &str) -> Result<()> {
    for entry in std::fs::read_dir(parent)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(prefix) && is_stale(&entry.path()) {
            eprintln!("removing {}, left by a killed one", entry.path().display());
            if let Err(error) = std::fs::remove_dir_all(entry.path()) {
                eprintln!("it cannot be removed: {error}");
            }
        }
    }
    Ok(())
}

/// Whether nobody uses a directory. One without a lock is being made just now, or is not ours.
fn is_stale(directory: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return false;
    };
    let below = entries.flatten().map(|entry| entry.path().join(LOCK));
    let mut locks = below.filter_map(|lock| File::open(lock).ok());
    let own = File::open(directory.join(LOCK));
    own.is_ok_and(|own| own.try_lock().is_ok()) && locks.all(|lock| lock.try_lock().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_chore_left_is_removed_and_nothing_that_is_in_use() {
        let parent = tempfile::tempdir().unwrap();
        let at = |name: &str| parent.path().join(name);
        for (directory, lock) in [
            ("test-stale", "test-stale/lock"),
            ("test-daemon/agent", "test-daemon/lock"),
            ("other", "other/lock"),
        ] {
            std::fs::create_dir_all(at(directory)).unwrap();
            File::create(at(lock)).unwrap();
        }
        let daemon = File::create(at("test-daemon/agent/lock")).unwrap();
        daemon.lock().unwrap();
        std::fs::create_dir(at("test-made-just-now")).unwrap();
        let first = Scratch::new_in(parent.path(), "test-").unwrap();
        assert!(!at("test-stale").exists());
        assert!(at("test-daemon").exists());
        assert!(at("test-made-just-now").exists());
        assert!(at("other").exists());
        let second = Scratch::new_in(parent.path(), "test-").unwrap();
        assert!(first.path().exists());
        let path = second.path().to_owned();
        drop(second);
        assert!(!path.exists());
    }
}
