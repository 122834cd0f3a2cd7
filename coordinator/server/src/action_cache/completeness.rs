//! What a result refers to.

use std::collections::BTreeSet;

use prost::Message as _;
use regatta_cas::{BlobStore, StoreError, read_all};
use regatta_model::Digest;
use regatta_wire::convert::InvalidDigestError;
use regatta_wire::reapi;

use crate::cas::{DirectoryError, read_directory, references};

/// The largest tree that is read, in bytes: about 300,000 files.
const MAX_TREE_SIZE_BYTES: u64 = 32 << 20;

/// How many blobs a result may name, in all: what takes some tens of MiB to know.
const MAX_REFERENCES: usize = 1 << 20;

/// Why something is not an action result. Its sender has to fix it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
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
}

/// The digests that a result names.
#[derive(Debug, Default)]
pub(super) struct References {
    blobs: BTreeSet<Digest>,
    trees: BTreeSet<Digest>,
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
        let tree = directory.tree_digest.as_ref();
        let root = directory.root_directory_digest.as_ref();
        if let Some(root) = root {
            self.roots.insert(parse(root, path)?);
        }
        if let Some(tree) = tree {
            self.trees.insert(parse(tree, path)?);
        }
        match (tree, root) {
            (None, None) => Err(InvalidResultError::NoDigest { path: path.clone() }),
            (Some(_), _) | (_, Some(_)) => Ok(()),
        }
    }

    /// These and everything that the trees name; `None` if some of that is missing or malformed.
    pub(super) async fn with_trees(
        self,
        blobs: &dyn BlobStore,
    ) -> Result<Option<Vec<Digest>>, StoreError> {
        let mut all = self.blobs;
        if !add_directories(blobs, self.roots, &mut all).await? {
            return Ok(None);
        }
        for digest in self.trees {
            let Some(tree) = read_tree(blobs, &digest).await? else {
                return Ok(None);
            };
            all.insert(digest);
            for directory in tree.root.iter().chain(&tree.children) {
                for file in &directory.files {
                    let Ok(digest) = required(file.digest.as_ref(), &file.name) else {
                        return Ok(None);
                    };
                    all.insert(digest);
                }
            }
        }
        Ok(Some(all.into_iter().collect()))
    }
}

/// Adds everything below `roots`, themselves included. Whether all of it could be read.
async fn add_directories(
    blobs: &dyn BlobStore,
    roots: BTreeSet<Digest>,
    all: &mut BTreeSet<Digest>,
) -> Result<bool, StoreError> {
    let mut queue: Vec<Digest> = roots.into_iter().collect();
    while let Some(digest) = queue.pop() {
        if !all.insert(digest) {
            continue;
        }
        let below = match read_directory(blobs, &digest).await {
            Ok(directory) => references(&digest, &directory),
            Err(error) => Err(error),
        };
        match below {
            Ok(below) if all.len() + below.files.len() <= MAX_REFERENCES => {
                all.extend(below.files);
                queue.extend(below.directories);
            }
            Err(DirectoryError::Store(
                error @ (StoreError::OutOfRange { .. }
                | StoreError::Full { .. }
                | StoreError::Unavailable { .. }),
            )) => return Err(error),
            Ok(_) | Err(_) => return Ok(false),
        }
    }
    Ok(true)
}

async fn read_tree(
    blobs: &dyn BlobStore,
    digest: &Digest,
) -> Result<Option<reapi::Tree>, StoreError> {
    if digest.size_bytes() > MAX_TREE_SIZE_BYTES {
        return Ok(None);
    }
    match read_all(blobs, digest, MAX_TREE_SIZE_BYTES).await {
        Ok(bytes) => Ok(reapi::Tree::decode(bytes).ok()),
        Err(StoreError::NotFound { .. } | StoreError::Corrupt { .. }) => Ok(None),
        Err(error) => Err(error),
    }
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
