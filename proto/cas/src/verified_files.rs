//! What was found right and did not change since.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use regatta_model::Digest;
use tokio::time::Instant;

use crate::file_state::FileState;
use crate::lru_map::LruMap;

/// How many blobs are remembered, at some 200 bytes each.
const CAPACITY: usize = 1 << 14;
/// For how long. It bounds how long a disk may hand out bytes that it has lost without telling, which
/// changes no state of a file.
const TRUSTED_FOR: Duration = Duration::from_secs(60 * 60);

/// Blobs that are files of this machine.
pub trait BlobFiles: fmt::Debug + Send + Sync + 'static {
    /// The state of a blob's file; `None` if it has none, or none that can be looked at. It takes
    /// microseconds.
    fn state_of(&self, digest: &Digest) -> Option<FileState>;
}

/// Remembers the files of blobs that this process has verified, or has written after verifying them. A file
/// that is in the state it was in then has the same bytes.
pub(crate) struct VerifiedFiles {
    files: Arc<dyn BlobFiles>,
    verified: Mutex<LruMap<Digest, Verified>>,
}

#[derive(Debug, Clone, Copy)]
struct Verified {
    state: FileState,
    at: Instant,
}

impl VerifiedFiles {
    pub(crate) fn new(files: Arc<dyn BlobFiles>) -> Self {
        Self {
            files,
            verified: Mutex::new(LruMap::new()),
        }
    }

    /// The state of a blob's file before it is read.
    pub(crate) fn state_of(&self, digest: &Digest) -> Option<FileState> {
        self.files.state_of(digest)
    }

    /// Whether a blob's file is one that was found right.
    pub(crate) fn has(&self, digest: &Digest) -> bool {
        let Some(verified) = self.verified().touch(digest).copied() else {
            return false;
        };
        verified.at.elapsed() < TRUSTED_FOR && self.state_of(digest) == Some(verified.state)
    }

    /// Remembers a blob whose file was right when it was in `state`, if it still is.
    pub(crate) fn remember(&self, digest: &Digest, state: FileState) {
        if state.size_bytes != digest.size_bytes() || self.state_of(digest) != Some(state) {
            return;
        }
        let at = Instant::now();
        let mut verified = self.verified();
        verified.insert(*digest, Verified { state, at }, 1);
        if verified.len() > CAPACITY {
            verified.pop_oldest();
        }
    }

    /// Remembers a blob whose verified bytes have just become its file.
    pub(crate) fn remember_written(&self, digest: &Digest) {
        if let Some(state) = self.state_of(digest) {
            self.remember(digest, state);
        }
    }

    fn verified(&self) -> MutexGuard<'_, LruMap<Digest, Verified>> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for VerifiedFiles {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("VerifiedFiles")
            .field("verified", &self.verified().len())
            .finish_non_exhaustive()
    }
}
