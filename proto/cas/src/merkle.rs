//! Directories as Merkle trees (REAPI, `Directory` and `Tree`).
//!
//! A directory is a blob that names its files, symlinks and subdirectories by digest, so that two equal
//! trees have one root digest and share what they have in common.
//!
//! Invariants:
//! - What is built here is canonical: sorted by name, no name twice, only names that a path can have, no
//!   node properties. Equal trees have equal digests, however they were put together.
//! - What is loaded from a store is validated, and bounded in depth and size, before it is used.

mod compare;
mod directory;
mod file_digest_cache;
mod file_digests;
mod load;
mod tree;
mod tree_builder;
mod walk;

pub use compare::{ChangedFile, changed_files};
pub use directory::{InvalidDirectoryError, validate_directory};
pub use file_digest_cache::{CacheFileError, FileDigestCache};
pub use file_digests::{FileDigests, FileDigestsError, digest_files};
pub use load::{LoadError, LoadLimits, fetch, load};
pub use tree::Tree;
pub use tree_builder::{BuildError, Entry, TreeBuilder};
pub use walk::{Found, FoundKind, Ignored, OWNER_EXECUTES, Unfit, WalkError, WalkOptions, walk};
