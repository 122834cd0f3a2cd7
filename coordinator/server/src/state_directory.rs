//! The directory of everything that outlives the process.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// A state directory, for as long as this value lives nobody else's.
#[derive(Debug)]
pub(crate) struct StateDirectory {
    path: PathBuf,
    /// The lock goes with the process, however it ends.
    _lock: File,
}

/// Why a state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateDirectoryError {
    /// It cannot be made or written. Check its permissions.
    #[error("cannot use the state directory {}", path.display())]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// What came back.
        source: io::Error,
    },
    /// Another coordinator uses it. Stop that one, or choose another directory.
    #[error(
        "another coordinator uses the state directory {}; stop it or choose another directory",
        path.display()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
    },
}

impl StateDirectory {
    /// Makes the directory if need be, and takes it.
    pub(crate) fn take(path: &Path) -> Result<Self, StateDirectoryError> {
        let unusable = |source| StateDirectoryError::Unusable {
            path: path.to_owned(),
            source,
        };
        std::fs::create_dir_all(path).map_err(unusable)?;
        let path = path.canonicalize().map_err(unusable)?;
        let lock = File::create(path.join("lock")).map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(StateDirectoryError::InUse { path }),
            Err(TryLockError::Error(source)) => Err(unusable(source)),
        }
    }

    /// Where it is, absolute.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A directory in it, made if need be.
    pub(crate) fn subdirectory(&self, name: &str) -> Result<PathBuf, StateDirectoryError> {
        let path = self.path.join(name);
        match std::fs::create_dir_all(&path) {
            Ok(()) => Ok(path),
            Err(source) => Err(StateDirectoryError::Unusable { path, source }),
        }
    }
}
