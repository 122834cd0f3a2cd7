//! Input roots: which files a job sees, their digests, and bringing them to the store.

mod entries;
mod patterns;
mod staging;
mod walk;

pub use entries::{Entries, Source};
pub use patterns::{ExpandError, Patterns, expand};
pub use staging::{StageError, Staging};
pub use walk::{WalkError, walk, walk_everything, walk_unignored};
