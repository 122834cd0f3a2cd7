//! What a result refers to.

use std::collections::BTreeSet;

use regatta_cas::{BlobStore, StoreError};
use regatta_model::Digest;
use regatta_wire::convert::InvalidDigestError;
use regatta_wire::reapi;

use super::tree_closure::{InvalidTreeError, TreeError, files_of_tree};
use crate::cas::{DirectoryError, canonical_references, read_directory};

/// How many blobs a result may name, in all: what takes some tens of MiB to know.
pub(super) const MAX_REFERENCES: usize = 1 << 20;

/// Why something is not an action result. Its sender has to fix it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum InvalidResultError {
    /// An output names no blob.
    #[error("output {path} has no digest")]
    NoDigest {
        /// The output's path.
        path: String,
    },
    /// A digest is none.
    #[error("{what} has a bad digest")]
    BadDigest {
        /// The output's path, or `stdout` or `stderr`.
        what: String,
        /// What is wrong with it.
        source: InvalidDigestError,
    },
    /// An output directory's tree is wrong.
    #[error("tree {digest} of an output directory is wrong")]
    Tree {
        /// The tree.
        digest: Digest,
        /// What is wrong with it.
        source: Box<InvalidTreeError>,
    },
    /// A directory below an output directory's root is wrong.
    #[error("an output directory is wrong")]
    Directory(#[source] Box<DirectoryError>),
    /// It names too many blobs.
    #[error("the outputs have more than {MAX_REFERENCES} files and directories")]
    TooMany,
}

/// Why it is not known what a result refers to.
#[derive(Debug)]
pub(super) enum ClosureError {
    /// The store failed.
    Store(StoreError),
    /// The result is wrong.
    Invalid(InvalidResultError),
}

/// The digests that a result names.
#[derive(Debug, Default)]
pub(super) struct References {
    blobs: BTreeSet<Digest>,
    /// Each with the root that the result says it has.
    trees: BTreeSet<(Digest, Option<Digest>)>,
    roots: BTreeSet<Digest>,
}

impl References {
    /// What the result names itself.
    pub(super) fn of(result: &reapi::ActionResult) -> Result<Self, InvalidResultError> {
        let mut references = Self::default();
        for file in &result.output_files {
            references
                .blobs
                .insert(required(file.digest.as_ref(), &file.path)?);
        }
        for directory in &result.output_directories {
            references.add_directory(directory)?;
        }
        for (what, digest) in [
            ("stdout", &result.stdout_digest),
            ("stderr", &result.stderr_digest),
        ] {
            if let Some(digest) = digest {
                references.blobs.insert(parse(digest, what)?);
            }
        }
        Ok(references)
    }

    fn add_directory(
        &mut self,
        directory: &reapi::OutputDirectory,
    ) -> Result<(), InvalidResultError> {
        let path = &directory.path;
        let parsed =
            |digest: Option<&reapi::Digest>| digest.map(|digest| parse(digest, path)).transpose();
        let root = parsed(directory.root_directory_digest.as_ref())?;
        let tree = parsed(directory.tree_digest.as_ref())?;
        if tree.is_none() && root.is_none() {
            return Err(InvalidResultError::NoDigest { path: path.clone() });
        }
        self.roots.extend(root);
        self.trees.extend(tree.map(|tree| (tree, root)));
        Ok(())
    }

    /// These and everything that the trees name; `None` if some of the trees are missing.
    pub(super) async fn with_trees(
        self,
        blobs: &dyn BlobStore,
    ) -> Result<Option<Vec<Digest>>, ClosureError> {
        let mut all = self.blobs;
        if !add_directories(blobs, self.roots, &mut all).await? {
            return Ok(None);
        }
        for (digest, root) in self.trees {
            match files_of_tree(blobs, &digest, root.as_ref()).await {
                Ok(files) => all.extend(files),
                Err(TreeError::Store(error)) => return unless_absent(error).map(|()| None),
                Err(TreeError::Invalid(source)) => {
                    let source = Box::new(source);
                    let error = InvalidResultError::Tree { digest, source };
                    return Err(ClosureError::Invalid(error));
                }
            }
            all.insert(digest);
            check_count(&all)?;
        }
        Ok(Some(all.into_iter().collect()))
    }
}

fn check_count(all: &BTreeSet<Digest>) -> Result<(), ClosureError> {
    if all.len() > MAX_REFERENCES {
        return Err(ClosureError::Invalid(InvalidResultError::TooMany));
    }
    Ok(())
}

/// That a blob is not there, or not any more because it was corrupt, is an answer; all else is none.
fn unless_absent(error: StoreError) -> Result<(), ClosureError> {
    match error {
        StoreError::NotFound { .. } | StoreError::Corrupt { .. } => Ok(()),
        StoreError::OutOfRange { .. }
        | StoreError::Undecodable { .. }
        | StoreError::Full { .. }
        | StoreError::Exhausted { .. }
        | StoreError::Away { .. }
        | StoreError::Unavailable { .. } => Err(ClosureError::Store(error)),
    }
}

/// Adds everything below `roots`, themselves included. Whether all of it is there.
async fn add_directories(
    blobs: &dyn BlobStore,
    roots: BTreeSet<Digest>,
    all: &mut BTreeSet<Digest>,
) -> Result<bool, ClosureError> {
    let mut queue: Vec<Digest> = roots.into_iter().collect();
    while let Some(digest) = queue.pop() {
        // Directories come out of memory without waiting; others want their turn all the same.
        tokio::task::consume_budget().await;
        if !all.insert(digest) {
            continue;
        }
        let below = match read_directory(blobs, &digest).await {
            Ok(directory) => canonical_references(&digest, &directory),
            Err(error) => Err(error),
        };
        match below {
            Ok(below) => {
                all.extend(below.files);
                check_count(all)?;
                queue.extend(below.directories);
            }
            Err(DirectoryError::Store(error)) => return unless_absent(error).map(|()| false),
            Err(error) => {
                let error = InvalidResultError::Directory(Box::new(error));
                return Err(ClosureError::Invalid(error));
            }
        }
    }
    Ok(true)
}

fn required(message: Option<&reapi::Digest>, path: &str) -> Result<Digest, InvalidResultError> {
    let absent = || InvalidResultError::NoDigest {
        path: path.to_owned(),
    };
    parse(message.ok_or_else(absent)?, path)
}

fn parse(message: &reapi::Digest, what: &str) -> Result<Digest, InvalidResultError> {
    Digest::try_from(message).map_err(|source| InvalidResultError::BadDigest {
        what: what.to_owned(),
        source,
    })
}
