//! Whether an input root is there, with all that it refers to.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use regatta_cas::BlobStore;
use regatta_model::{Digest, PlantedBug};

use super::directories::{DirectoryError, canonical_references, read_directory};
use super::{FIND_MISSING_CHUNK, find_missing};
use crate::recently_used::RecentlyUsed;
use crate::status::MAX_MISSING_BLOBS;

/// How many directories are remembered as complete, at less than 200 bytes each.
const MAX_REMEMBERED: usize = 1 << 15;
/// How long a directory counts as complete without another look at most: well below the time that a store keeps
/// a blob after its last use.
const REMEMBERED_FOR: Duration = Duration::from_secs(60);
/// How often a tree that is needed counts as used, if nothing else is said.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(15 * 60);
/// How many directories are read at once.
const CONCURRENT_READS: usize = 16;
/// How many directories a tree may have: as many as make its walk take some seconds and some tens of MiB.
pub(super) const MAX_DIRECTORIES: usize = 1 << 20;

/// How many files of a level are known to have been asked for, at about 50 bytes each.
const MAX_SEEN_FILES: usize = 1 << 18;

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
    renewal_interval: Duration,
    remembered_for: Duration,
}

impl InputTrees {
    /// Checks trees in `blobs`.
    #[must_use]
    pub fn new(blobs: Arc<dyn BlobStore>) -> Self {
        Self {
            blobs,
            complete: Mutex::new(RecentlyUsed::new(MAX_REMEMBERED)),
            renewal_interval: RENEWAL_INTERVAL,
            remembered_for: REMEMBERED_FOR,
        }
    }

    /// The same, for a store that keeps what it has for several times `interval` after its last use.
    #[must_use]
    pub fn renewing_every(self, interval: Duration) -> Self {
        Self {
            renewal_interval: interval,
            remembered_for: REMEMBERED_FOR.min(interval),
            ..self
        }
    }

    /// How often what is needed for a while has to be used.
    pub(crate) fn renewal_interval(&self) -> Duration {
        match PlantedBug::PinsForgotten.is_planted() {
            true => Duration::MAX,
            false => self.renewal_interval,
        }
    }

    /// Uses a tree now and then, for as long as this is polled: it never ends.
    pub(crate) async fn keep(&self, root: Digest) {
        loop {
            tokio::time::sleep(self.renewal_interval()).await;
            // Whoever needs the tree finds out what is missing of it. Apart, so that the many who sleep are small.
            if let Err(error) = Box::pin(self.missing(root)).await {
                tracing::warn!(%error, "it is not known whether an input root is still there");
            }
        }
    }

    /// The blobs of the tree below and including `root` that are missing; none if it is complete. What
    /// lies below a missing directory is not known and not named, and of very many only some are.
    ///
    /// # Errors
    /// [`InputTreeError`].
    pub async fn missing(&self, root: Digest) -> Result<Vec<Digest>, InputTreeError> {
        let mut walk = Walk::new(root);
        while !walk.level.is_empty() && !walk.is_full() {
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

    /// One level of a walk, in portions.
    async fn descend(&self, walk: &mut Walk) -> Result<(), InputTreeError> {
        let level = std::mem::take(&mut walk.level);
        let mut files = Files::default();
        for portion in level.chunks(FIND_MISSING_CHUNK) {
            self.enter(walk, portion.to_vec(), &mut files).await?;
            if walk.is_full() {
                return Ok(());
            }
        }
        self.look_for(walk, &mut files).await
    }

    /// Looks which of some directories are there, and at what those refer to.
    async fn enter(
        &self,
        walk: &mut Walk,
        mut directories: Vec<Digest>,
        files: &mut Files,
    ) -> Result<(), InputTreeError> {
        self.drop_remembered(&mut directories);
        let missing = find_missing(self.blobs.as_ref(), &directories).await;
        let missing: HashSet<Digest> = missing
            .map_err(|error| walk.failed(error))?
            .into_iter()
            .collect();
        directories.retain(|digest| !missing.contains(digest));
        walk.note_missing(missing);
        let mut found = stream::iter(directories)
            .map(|digest| async move {
                let directory = read_directory(self.blobs.as_ref(), &digest).await?;
                canonical_references(&digest, &directory)
            })
            .buffer_unordered(CONCURRENT_READS);
        while let Some(found) = found.try_next().await.map_err(|error| walk.failed(error))? {
            // Directories come out of memory without waiting; others want their turn all the same.
            tokio::task::consume_budget().await;
            for directory in found.directories {
                walk.add(directory)?;
            }
            files.add(found.files);
            if files.new.len() >= FIND_MISSING_CHUNK {
                self.look_for(walk, files).await?;
            }
            if walk.is_full() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Looks which of the new files are there.
    async fn look_for(&self, walk: &mut Walk, files: &mut Files) -> Result<(), InputTreeError> {
        let new = std::mem::take(&mut files.new);
        let missing = find_missing(self.blobs.as_ref(), &new).await;
        walk.note_missing(missing.map_err(|error| walk.failed(error))?);
        Ok(())
    }

    fn drop_remembered(&self, level: &mut Vec<Digest>) {
        let now = Instant::now();
        let mut complete = self.lock();
        level.retain(|digest| {
            complete
                .get(digest)
                .is_none_or(|since| now.duration_since(*since) >= self.remembered_for)
        });
    }

    fn remember(&self, directories: HashSet<Digest>) {
        let now = Instant::now();
        let mut complete = self.lock();
        for digest in directories {
            // One that is remembered keeps its age: this walk did not look below it.
            if complete
                .get(&digest)
                .is_none_or(|since| now.duration_since(*since) >= self.remembered_for)
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

    /// So much is missing that more would not be named.
    fn is_full(&self) -> bool {
        self.missing.len() >= MAX_MISSING_BLOBS
    }

    fn failed(&self, source: impl Into<DirectoryError>) -> InputTreeError {
        InputTreeError::Directory {
            root: self.root,
            source: Box::new(source.into()),
        }
    }

    fn add(&mut self, directory: Digest) -> Result<(), InputTreeError> {
        if self.seen_directories.insert(directory) {
            self.level.push(directory);
        }
        if self.seen_directories.len() > MAX_DIRECTORIES {
            return Err(InputTreeError::TooManyDirectories { root: self.root });
        }
        Ok(())
    }

    fn note_missing(&mut self, missing: impl IntoIterator<Item = Digest>) {
        for digest in missing {
            if self.noted.insert(digest) {
                self.missing.push(digest);
            }
        }
    }
}

/// The files of a level, each asked for once as long as that does not take too much memory.
#[derive(Default)]
struct Files {
    new: Vec<Digest>,
    seen: HashSet<Digest>,
}

impl Files {
    fn add(&mut self, files: Vec<Digest>) {
        if self.seen.len() > MAX_SEEN_FILES {
            self.seen.clear();
        }
        for file in files {
            if self.seen.insert(file) {
                self.new.push(file);
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
        for names in [["b", "a"], ["a", "a"]] {
            let bad = Directory {
                files: names.map(|name| file(name, Digest::EMPTY)).to_vec(),
                ..Default::default()
            };
            let bad = put(store.as_ref(), &bad).await;
            assert!(trees.missing(bad).await.is_err(), "{names:?}");
        }
    }

    /// Directories whose subdirectories are all missing: as many as a hostile client likes.
    async fn put_hostile(store: &dyn BlobStore, width: u32) -> Digest {
        let mut root = Directory::default();
        for outer in 0..40u32 {
            let mut names = Directory::default();
            for number in 0..width {
                let digest = Digest::of(&[outer.to_le_bytes(), number.to_le_bytes()].concat());
                names
                    .directories
                    .push(directory(&format!("{number:08}"), digest));
            }
            let digest = put(store, &names).await;
            root.directories
                .push(directory(&format!("{outer:08}"), digest));
        }
        put(store, &root).await
    }

    #[tokio::test]
    async fn a_tree_of_missing_directories_takes_no_quadratic_time() {
        let (store, trees) = trees();
        let root = put_hostile(store.as_ref(), 5_000).await;
        // 200,000 absent ones in one level: comparing each with each would take minutes.
        let checking = tokio::time::timeout(Duration::from_secs(20), trees.missing(root));
        let missing = checking.await.expect("in time").unwrap();
        assert!(missing.len() >= MAX_MISSING_BLOBS);
        assert!(missing.len() < MAX_MISSING_BLOBS + FIND_MISSING_CHUNK);
    }

    #[tokio::test]
    async fn a_walk_lets_others_have_their_turn() {
        let (store, trees) = trees();
        let mut root = Directory::default();
        for number in 0..2_000u32 {
            let name = format!("{number:08}");
            let leaf = Directory {
                files: vec![file(&name, Digest::EMPTY)],
                ..Default::default()
            };
            let leaf = put(store.as_ref(), &leaf).await;
            root.directories.push(directory(&name, leaf));
        }
        let root = put(store.as_ref(), &root).await;
        let walking = trees.missing(root);
        let mut walking = std::pin::pin!(walking);
        let mut turns = 0;
        while futures::poll!(&mut walking).is_pending() {
            turns += 1;
            tokio::task::yield_now().await;
        }
        assert!(turns > 5, "only {turns} turns");
    }
}
