//! Whether an input root is there, with all that it refers to.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use regatta_cas::{BlobStore, StoreError};
use regatta_model::Digest;

use super::directories::{DirectoryError, read_directory, references};
use super::find_missing;
use crate::recently_used::RecentlyUsed;

/// How many directories are remembered as complete, at less than 200 bytes each.
const MAX_REMEMBERED: usize = 1 << 15;
/// How long a directory counts as complete without another look: well below the time that a store keeps
/// a blob after its last use.
const REMEMBERED_FOR: Duration = Duration::from_secs(60);
/// How many directories are read at once.
const CONCURRENT_READS: usize = 16;
/// How many directories a tree may have: as many as make its walk take some seconds and some tens of MiB.
pub(super) const MAX_DIRECTORIES: usize = 1 << 20;

/// Why it is not known whether an input root is complete.
#[derive(Debug, Clone, thiserror::Error)]
pub enum InputTreeError {
    /// A directory in it cannot be read.
    #[error("the input root {root} cannot be read")]
    Directory {
        /// The input root.
        root: Digest,
        /// What is wrong with it.
        source: Box<DirectoryError>,
    },
    /// It has too many directories.
    #[error("the input root {root} has more than {MAX_DIRECTORIES} directories; split it")]
    TooManyDirectories {
        /// The input root.
        root: Digest,
    },
}

/// Checks input roots and remembers, for a while, the directories that were complete.
#[derive(Debug)]
pub struct InputTrees {
    blobs: Arc<dyn BlobStore>,
    complete: Mutex<RecentlyUsed<Digest, Instant>>,
}

impl InputTrees {
    /// Checks trees in `blobs`.
    #[must_use]
    pub fn new(blobs: Arc<dyn BlobStore>) -> Self {
        Self {
            blobs,
            complete: Mutex::new(RecentlyUsed::new(MAX_REMEMBERED)),
        }
    }

    /// Every blob of the tree below and including `root` that is missing; none if it is complete. What
    /// lies below a missing directory is not known and not named.
    ///
    /// # Errors
    /// [`InputTreeError`].
    pub async fn missing(&self, root: Digest) -> Result<Vec<Digest>, InputTreeError> {
        let mut walk = Walk::new(root);
        while !walk.level.is_empty() {
            self.descend(&mut walk).await?;
        }
        if walk.missing.is_empty() {
            self.remember(walk.seen_directories);
        }
        Ok(walk.missing)
    }

    /// Forgets what is known of all trees: a blob was found missing that had been there.
    pub fn forget(&self) {
        *self.lock() = RecentlyUsed::new(MAX_REMEMBERED);
    }

    /// One level of a walk: looks which of its directories are there, and at what those refer to.
    async fn descend(&self, walk: &mut Walk) -> Result<(), InputTreeError> {
        let root = walk.root;
        let fail = |source| InputTreeError::Directory {
            root,
            source: Box::new(source),
        };
        let fail_store = |error: StoreError| fail(DirectoryError::from(error));
        let mut level = std::mem::take(&mut walk.level);
        self.drop_remembered(&mut level);
        let missing = find_missing(self.blobs.as_ref(), &level)
            .await
            .map_err(fail_store)?;
        walk.note_missing(&missing);
        level.retain(|digest| !missing.contains(digest));
        let mut found = stream::iter(level)
            .map(|digest| async move {
                let directory = read_directory(self.blobs.as_ref(), &digest).await?;
                references(&digest, &directory)
            })
            .buffer_unordered(CONCURRENT_READS);
        let mut files = HashSet::new();
        while let Some(found) = found.try_next().await.map_err(fail)? {
            files.extend(found.files);
            for directory in found.directories {
                walk.enter(directory)?;
            }
        }
        let files: Vec<_> = files.into_iter().collect();
        let missing = find_missing(self.blobs.as_ref(), &files)
            .await
            .map_err(fail_store)?;
        walk.note_missing(&missing);
        Ok(())
    }

    fn drop_remembered(&self, level: &mut Vec<Digest>) {
        let now = Instant::now();
        let mut complete = self.lock();
        level.retain(|digest| {
            complete
                .get(digest)
                .is_none_or(|since| now.duration_since(*since) >= REMEMBERED_FOR)
        });
    }

    fn remember(&self, directories: HashSet<Digest>) {
        let now = Instant::now();
        let mut complete = self.lock();
        for digest in directories {
            // One that is remembered keeps its age: this walk did not look below it.
            if complete
                .get(&digest)
                .is_none_or(|since| now.duration_since(*since) >= REMEMBERED_FOR)
            {
                complete.insert(digest, now, 1);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, RecentlyUsed<Digest, Instant>> {
        self.complete.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A walk down a tree, level by level.
struct Walk {
    root: Digest,
    level: Vec<Digest>,
    seen_directories: HashSet<Digest>,
    missing: Vec<Digest>,
    noted: HashSet<Digest>,
}

impl Walk {
    fn new(root: Digest) -> Self {
        Self {
            root,
            level: vec![root],
            seen_directories: HashSet::from([root]),
            missing: Vec::new(),
            noted: HashSet::new(),
        }
    }

    fn enter(&mut self, directory: Digest) -> Result<(), InputTreeError> {
        if self.seen_directories.insert(directory) {
            self.level.push(directory);
        }
        if self.seen_directories.len() > MAX_DIRECTORIES {
            return Err(InputTreeError::TooManyDirectories { root: self.root });
        }
        Ok(())
    }

    fn note_missing(&mut self, missing: &[Digest]) {
        for digest in missing {
            if self.noted.insert(*digest) {
                self.missing.push(*digest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;
    use regatta_cas::{EmptyBlobStore, MemoryBlobStore, put_bytes};
    use regatta_wire::reapi::{Directory, DirectoryNode, FileNode};

    fn file(name: &str, digest: Digest) -> FileNode {
        FileNode {
            name: name.to_owned(),
            digest: Some(digest.into()),
            ..Default::default()
        }
    }

    fn directory(name: &str, digest: Digest) -> DirectoryNode {
        DirectoryNode {
            name: name.to_owned(),
            digest: Some(digest.into()),
        }
    }

    fn trees() -> (Arc<dyn BlobStore>, InputTrees) {
        let store: Arc<dyn BlobStore> =
            Arc::new(EmptyBlobStore::new(Arc::new(MemoryBlobStore::new())));
        (Arc::clone(&store), InputTrees::new(store))
    }

    async fn put(store: &dyn BlobStore, message: &Directory) -> Digest {
        put_bytes(store, message.encode_to_vec().into())
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn everything_missing_is_named_once() {
        let (store, trees) = trees();
        let gone = Digest::of(b"gone");
        let gone_directory = Digest::of(b"gone too");
        let below = Directory {
            files: vec![file("a", gone), file("b", gone)],
            ..Default::default()
        };
        let below = put(store.as_ref(), &below).await;
        let root = Directory {
            files: vec![file("c", gone)],
            directories: vec![directory("d", below), directory("e", gone_directory)],
            ..Default::default()
        };
        let root = put(store.as_ref(), &root).await;
        let mut missing = trees.missing(root).await.unwrap();
        missing.sort();
        let mut expected = vec![gone, gone_directory];
        expected.sort();
        assert_eq!(missing, expected);
        assert_eq!(trees.missing(gone).await.unwrap(), [gone]);
        assert_eq!(trees.missing(Digest::EMPTY).await.unwrap(), []);
    }

    #[tokio::test]
    async fn a_complete_tree_is_remembered_until_it_is_forgotten() {
        let (store, trees) = trees();
        let content = put_bytes(store.as_ref(), "content".into()).await.unwrap();
        let root = Directory {
            files: vec![file("a", content)],
            ..Default::default()
        };
        let root = put(store.as_ref(), &root).await;
        assert_eq!(trees.missing(root).await.unwrap(), []);
        store.delete(&content).await.unwrap();
        assert_eq!(trees.missing(root).await.unwrap(), [], "it is remembered");
        trees.forget();
        assert_eq!(trees.missing(root).await.unwrap(), [content]);
    }

    #[tokio::test]
    async fn what_is_no_directory_is_an_error() {
        let (store, trees) = trees();
        let text = put_bytes(store.as_ref(), "no directory".into())
            .await
            .unwrap();
        assert!(trees.missing(text).await.is_err());
        for name in ["", ".", "..", "a/b", "a\0"] {
            let bad = Directory {
                files: vec![file(name, Digest::EMPTY)],
                ..Default::default()
            };
            let bad = put(store.as_ref(), &bad).await;
            let error = trees.missing(bad).await;
            assert!(
                matches!(error, Err(InputTreeError::Directory { .. })),
                "{name:?}"
            );
        }
    }
}
