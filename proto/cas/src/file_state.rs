//! How to tell that a file did not change.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What tells one state of a file from another: any write to a file changes its change time, which no
/// program can set, and any other file has another inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileState {
    pub(crate) inode: u64,
    pub(crate) size_bytes: u64,
    pub(crate) modified_nanos: i128,
    pub(crate) changed_nanos: i128,
}

impl FileState {
    /// The state that a file is in.
    #[must_use]
    pub fn of(metadata: &Metadata) -> Self {
        let nanos = |seconds, nanos| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        Self {
            inode: metadata.ino(),
            size_bytes: metadata.len(),
            modified_nanos: nanos(metadata.mtime(), metadata.mtime_nsec()),
            changed_nanos: nanos(metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether the file had been left alone for `window` at the time `now`.
    pub(crate) fn is_settled(&self, now: SystemTime, window: Duration) -> bool {
        let now = now
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_nanos();
        let now = i128::try_from(now).unwrap_or(i128::MAX);
        let window = i128::try_from(window.as_nanos()).unwrap_or(i128::MAX);
        self.modified_nanos.max(self.changed_nanos) <= now.saturating_sub(window)
    }
}
