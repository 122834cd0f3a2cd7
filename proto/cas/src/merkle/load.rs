//! Trees out of a store.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use regatta_model::Digest;

use super::tree::{decode, subdirectories};
use super::{BuildError, InvalidDirectoryError, Tree, TreeBuilder};
use crate::{BlobStore, StoreError, read_all};

/// How many directories are read at a time.
pub(super) const READ_CONCURRENCY: usize = 64;

/// How large a tree may be before it is refused.
#[derive(Debug, Clone, Copy)]
pub struct LoadLimits {
    /// How large the encoding of one directory may be, in bytes.
    pub directory_bytes: u64,
    /// How large the encodings of all directories may be together, in bytes.
    pub total_bytes: u64,
    /// How many levels of directories there may be.
    pub depth: usize,
    /// How many files, symlinks and directories there may be, counting what is there many times as often.
    pub entries: usize,
}

impl Default for LoadLimits {
    /// Far more than any source tree has, and still harmless: 16 MiB a directory, 256 MiB in total, 200
    /// levels, 2 million entries.
    fn default() -> Self {
        Self {
            directory_bytes: 16 << 20,
            total_bytes: 256 << 20,
            depth: 200,
            entries: 2_000_000,
        }
    }
}

/// Why a tree cannot be loaded.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LoadError {
    /// A directory cannot be read; if it is absent, upload it.
    #[error("cannot read the directory {digest}")]
    Store {
        /// The directory.
        digest: Digest,
        /// What the store said.
        source: StoreError,
    },
    /// A directory is not canonical. Its author has to fix it.
    #[error("the directory {digest} is not valid")]
    Invalid {
        /// The directory.
        digest: Digest,
        /// What is wrong with it.
        source: InvalidDirectoryError,
    },
    /// The tree is larger than the limits allow. Make it smaller.
    #[error("the tree {root} is too large: {detail}")]
    TooLarge {
        /// The tree.
        root: Digest,
        /// Which limit it broke.
        detail: String,
    },
}

/// The tree whose root directory is `root`, each directory once, as it is in the store.
///
/// # Errors
/// See [`LoadError`].
pub async fn fetch(
    store: &dyn BlobStore,
    root: &Digest,
    limits: LoadLimits,
) -> Result<Tree, LoadError> {
    let tree = Tree {
        root: *root,
        directories: HashMap::new(),
        files: HashSet::new(),
    };
    let mut fetching = Fetching {
        store,
        limits,
        tree,
        left_bytes: limits.total_bytes,
    };
    let mut level = vec![*root];
    for _ in 0..limits.depth {
        level = fetching.fetch_level(level).await?;
        if level.is_empty() {
            return Ok(fetching.tree);
        }
    }
    Err(fetching.too_large(format!("it has more than {} levels", limits.depth)))
}

/// The tree whose root directory is `root`, unfolded.
///
/// # Errors
/// See [`LoadError`].
pub async fn load(
    store: &dyn BlobStore,
    root: &Digest,
    limits: LoadLimits,
) -> Result<TreeBuilder, LoadError> {
    let tree = fetch(store, root, limits).await?;
    let mut builder = TreeBuilder::new();
    builder
        .insert_tree("", &tree, limits.entries)
        .map_err(|error| match error {
            BuildError::Broken { source, .. } => LoadError::Invalid {
                digest: *root,
                source,
            },
            other => LoadError::TooLarge {
                root: *root,
                detail: other.to_string(),
            },
        })?;
    Ok(builder)
}

struct Fetching<'a> {
    store: &'a dyn BlobStore,
    limits: LoadLimits,
    tree: Tree,
    left_bytes: u64,
}

impl Fetching<'_> {
    /// Reads the directories of one level and gives those of the next, without those that were read before.
    async fn fetch_level(&mut self, level: Vec<Digest>) -> Result<Vec<Digest>, LoadError> {
        let level = self.not_read(level);
        for digest in &level {
            let left = self.left_bytes.checked_sub(digest.size_bytes());
            self.left_bytes = left.ok_or_else(|| {
                let limit = self.limits.total_bytes;
                self.too_large(format!("its directories have more than {limit} bytes"))
            })?;
        }
        let (store, limit) = (self.store, self.limits.directory_bytes);
        let mut reads = stream::iter(level)
            .map(|digest| async move { (digest, read_directory(store, digest, limit).await) })
            .buffered(READ_CONCURRENCY);
        let mut next = Vec::new();
        while let Some((digest, bytes)) = reads.next().await {
            next.extend(self.keep(digest, bytes?)?);
        }
        Ok(self.not_read(next))
    }

    #[expect(
        clippy::result_large_err,
        reason = "two digests name the blob and what is wrong; this path is rare"
    )]
    fn keep(&mut self, digest: Digest, bytes: Bytes) -> Result<Vec<Digest>, LoadError> {
        let invalid = |source| LoadError::Invalid { digest, source };
        let directory = decode(bytes.clone()).map_err(invalid)?;
        self.tree.insert(bytes, &directory).map_err(invalid)?;
        subdirectories(&directory).map_err(invalid)
    }

    /// Those of `digests` that were not read yet, each once.
    fn not_read(&self, digests: Vec<Digest>) -> Vec<Digest> {
        let mut seen = HashSet::new();
        let new = digests
            .into_iter()
            .filter(|digest| !self.tree.directories.contains_key(digest) && seen.insert(*digest));
        new.collect()
    }

    fn too_large(&self, detail: String) -> LoadError {
        LoadError::TooLarge {
            root: self.tree.root,
            detail,
        }
    }
}

pub(super) async fn read_directory(
    store: &dyn BlobStore,
    digest: Digest,
    limit_bytes: u64,
) -> Result<Bytes, LoadError> {
    if digest.is_empty_blob() {
        return Ok(Bytes::new());
    }
    let failed = |source| LoadError::Store { digest, source };
    let bytes = read_all(store, &digest, limit_bytes.min(digest.size_bytes())).await;
    let bytes = bytes.map_err(failed)?;
    // The tree is keyed by what the bytes are; a store that does not verify must not confuse it.
    let actual = Digest::of(&bytes);
    if actual != digest {
        return Err(failed(StoreError::Corrupt {
            expected: digest,
            actual,
        }));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemoryBlobStore, put_bytes, stream_of};

    async fn stored(builder: &TreeBuilder) -> (MemoryBlobStore, Digest) {
        let store = MemoryBlobStore::new();
        let tree = builder.build();
        for bytes in tree.directories.values() {
            put_bytes(&store, bytes.clone()).await.unwrap();
        }
        (store, tree.root)
    }

    fn sample() -> TreeBuilder {
        let mut builder = TreeBuilder::new();
        builder
            .insert_file("a/b/c/file", Digest::of(b"file"), true)
            .unwrap();
        builder.insert_directory("a/empty").unwrap();
        builder.insert_symlink("link", "a").unwrap();
        builder
    }

    #[tokio::test]
    async fn what_was_stored_is_loaded() {
        let (store, root) = stored(&sample()).await;
        let limits = LoadLimits::default();
        assert_eq!(load(&store, &root, limits).await.unwrap(), sample());
        assert_eq!(
            fetch(&store, &root, limits).await.unwrap(),
            sample().build()
        );
    }

    #[tokio::test]
    async fn an_absent_directory_is_named() {
        let (store, root) = stored(&sample()).await;
        let tree = sample().build();
        let absent = *tree
            .directories
            .keys()
            .find(|digest| **digest != root)
            .unwrap();
        let absent = if absent.is_empty_blob() { root } else { absent };
        store.delete(&absent).await.unwrap();
        let refused = load(&store, &root, LoadLimits::default())
            .await
            .unwrap_err();
        assert!(matches!(refused, LoadError::Store { digest, .. } if digest == absent));
    }

    #[tokio::test]
    async fn what_is_too_large_is_refused() {
        let (store, root) = stored(&sample()).await;
        for limits in [
            LoadLimits {
                directory_bytes: 10,
                ..LoadLimits::default()
            },
            LoadLimits {
                total_bytes: 300,
                ..LoadLimits::default()
            },
            LoadLimits {
                depth: 3,
                ..LoadLimits::default()
            },
            LoadLimits {
                entries: 5,
                ..LoadLimits::default()
            },
        ] {
            load(&store, &root, limits).await.unwrap_err();
        }
        let just_enough = LoadLimits {
            depth: 4,
            entries: 6,
            ..LoadLimits::default()
        };
        load(&store, &root, just_enough).await.unwrap();
    }

    #[tokio::test]
    async fn what_is_no_directory_is_refused() {
        let store = MemoryBlobStore::new();
        let root = put_bytes(&store, Bytes::from_static(b"no message"))
            .await
            .unwrap();
        let refused = load(&store, &root, LoadLimits::default()).await;
        assert!(matches!(refused, Err(LoadError::Invalid { .. })));
        store
            .put(&root, stream_of(Bytes::from_static(b"other byte")))
            .await
            .unwrap();
        let refused = load(&store, &root, LoadLimits::default()).await;
        assert!(matches!(
            refused,
            Err(LoadError::Store {
                source: StoreError::Corrupt { .. },
                ..
            })
        ));
    }
}
