//! What can be wrong with an entry.

use super::MAX_DEPTH;
use crate::merkle::InvalidDirectoryError;

/// Why an entry cannot be added to a tree. Fix the paths.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// The path is not relative and normal, or has a part that no file can be named.
    #[error("{path:?} is not a relative path without empty, \".\" and \"..\" parts")]
    Path {
        /// The path.
        path: String,
    },
    /// Something else is there already.
    #[error("there are two different things at {path:?}")]
    Conflict {
        /// The path.
        path: String,
    },
    /// The path has too many parts.
    #[error("{path:?} is more than {MAX_DEPTH} directories deep")]
    TooDeep {
        /// The path.
        path: String,
    },
    /// A symlink's target is empty or has a NUL in it.
    #[error("the symlink {path:?} has no valid target")]
    Target {
        /// The path of the symlink.
        path: String,
    },
    /// A directory of a tree that is merged in is missing or not canonical.
    #[error("the tree to be put at {path:?} is broken")]
    Broken {
        /// The path.
        path: String,
        /// What is wrong with it.
        source: InvalidDirectoryError,
    },
    /// A tree that is merged in has too many entries.
    #[error("the tree has more than {limit} entries")]
    TooLarge {
        /// The most it may have.
        limit: usize,
    },
}
