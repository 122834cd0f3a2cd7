//! Trees from a directory on disk.

mod hashing;
mod selection;
mod symlink;
mod walk;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use regatta_model::Digest;

pub use self::hashing::digest_paths;
use self::hashing::{FoundFile, digest_files};
use self::selection::Selection;
use super::{BuildError, FileDigestCache, TreeBuilder};

/// Which files of a directory to take.
#[derive(Debug, Clone)]
pub struct ScanOptions {
    /// Globs of what to take, relative to the directory; everything if there are none. `*` does not cross
    /// a `/`, `**` does, and a pattern that names a directory takes all that is in it.
    pub include: Vec<String>,
    /// Globs of what to leave out, in the same form; they win over `include`.
    pub exclude: Vec<String>,
    /// Whether to leave out what `.gitignore` files and `.git/info/exclude` say. `.git` itself is always
    /// left out.
    pub respect_gitignore: bool,
    /// How many threads walk and hash; as many as there are processors if `None`.
    pub threads: Option<usize>,
}

impl Default for ScanOptions {
    fn default() -> Self {
        Self {
            include: Vec::new(),
            exclude: Vec::new(),
            respect_gitignore: true,
            threads: None,
        }
    }
}

/// What a scan found.
#[derive(Debug, Clone, Default)]
pub struct Scan {
    /// The tree. Directories without anything in them that was taken are left out.
    pub builder: TreeBuilder,
    /// Where the content of each digest can be read.
    pub files: HashMap<Digest, PathBuf>,
    /// How many files there are.
    pub file_count: usize,
    /// How many files had to be read because the cache did not know them.
    pub hashed_count: usize,
    /// The `include` globs that took nothing: most likely a mistake.
    pub unmatched_includes: Vec<String>,
}

/// Why a directory cannot be scanned.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// A glob cannot be understood. Fix it.
    #[error("the glob {glob:?} is not valid")]
    Glob {
        /// The glob.
        glob: String,
        /// What is wrong with it.
        source: globset::Error,
    },
    /// A file or directory cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Its path.
        path: PathBuf,
        /// What came back.
        source: io::Error,
    },
    /// The walk failed before any path was known, or an ignore file is broken.
    #[error("cannot walk {}", path.display())]
    Walk {
        /// The directory that is scanned.
        path: PathBuf,
        /// What the walk says.
        source: ignore::Error,
    },
    /// A symlink leads out of the tree, where no agent can follow it. Exclude it, or copy its target in.
    #[error("the symlink {} points out of the tree, to {}", path.display(), target.display())]
    SymlinkLeavesTree {
        /// The symlink, relative to the directory.
        path: PathBuf,
        /// Its target.
        target: PathBuf,
    },
    /// A socket, pipe or device. Exclude it.
    #[error("{} is neither a file, a directory nor a symlink", path.display())]
    SpecialFile {
        /// Its path, relative to the directory.
        path: PathBuf,
    },
    /// A name or target that is not UTF-8, which REAPI cannot express. Rename it.
    #[error("{} is not UTF-8", path.display())]
    NotUtf8 {
        /// The path.
        path: PathBuf,
    },
    /// A file changes as fast as it is read. Stop what writes it.
    #[error("{} changes while it is read", path.display())]
    Changing {
        /// Its path.
        path: PathBuf,
    },
    /// The entries do not make a tree; they changed while they were read.
    #[error("the directory does not make a tree")]
    Build(#[from] BuildError),
}

/// Makes a tree of the directory `root`. It blocks: call it from a thread that may.
///
/// Files that `cache` knows are not read; those it does not know are added to it, but it is not saved.
///
/// # Errors
/// See [`ScanError`].
pub fn scan(
    root: &Path,
    options: &ScanOptions,
    cache: Option<&mut FileDigestCache>,
) -> Result<Scan, ScanError> {
    let root = root.canonicalize().map_err(|source| ScanError::Read {
        path: root.to_owned(),
        source,
    })?;
    let threads = options.threads.unwrap_or_else(available_threads).max(1);
    let selection = Selection::new(options)?;
    let found = walk::walk(&root, options, &selection, threads)?;
    let mut scan = Scan {
        unmatched_includes: selection.unmatched_includes(),
        file_count: found.files.len(),
        ..Scan::default()
    };
    for link in found.symlinks {
        scan.builder.insert_symlink(&link.path, &link.target)?;
    }
    let states = found
        .files
        .iter()
        .map(|file| (root.join(&file.path), file.state))
        .collect();
    let digested = digest_files(states, cache, threads)?;
    scan.hashed_count = digested.hashed_count;
    for (file, digest) in found.files.into_iter().zip(digested.digests) {
        scan.builder
            .insert_file(&file.path, digest, file.executable)?;
        scan.files
            .entry(digest)
            .or_insert_with(|| root.join(file.path));
    }
    Ok(scan)
}

fn available_threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

#[cfg(test)]
mod tests;
