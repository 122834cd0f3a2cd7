//! Which files differ between two trees.

use std::collections::BTreeMap;
use std::fmt;

use futures::{StreamExt as _, TryStreamExt as _, future, stream};
use regatta_model::Digest;
use regatta_wire::reapi;

use super::directory::digest_of;
use super::load::{READ_CONCURRENCY, read_directory};
use super::tree::decode;
use super::{InvalidDirectoryError, LoadError, LoadLimits};
use crate::BlobStore;

/// A file or a symlink that is not the same in both trees.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ChangedFile {
    /// It is only in the newer one.
    Added(String),
    /// It is only in the older one.
    Removed(String),
    /// It has another content, target or mode.
    Changed(String),
}

impl ChangedFile {
    /// Where it is or was, from the root.
    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            Self::Added(path) | Self::Removed(path) | Self::Changed(path) => path,
        }
    }
}

impl fmt::Display for ChangedFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added(path) => write!(formatter, "file {path} is new"),
            Self::Removed(path) => write!(formatter, "file {path} is gone"),
            Self::Changed(path) => write!(formatter, "file {path} has changed"),
        }
    }
}

/// The files that are not the same below two roots. Directories that are the same are not read.
///
/// The limits are those of what differs: its directories, in both trees, and the paths in them count as
/// `total_bytes`, and its files, symlinks and directories as `entries`.
///
/// # Errors
/// See [`LoadError`].
pub async fn changed_files(
    store: &dyn BlobStore,
    before: &Digest,
    now: &Digest,
    limits: LoadLimits,
) -> Result<Vec<ChangedFile>, LoadError> {
    let root = Differing {
        path: String::new(),
        before: Some(*before),
        now: Some(*now),
    };
    let mut comparison = Comparison {
        root: *now,
        limits,
        left_bytes: limits.total_bytes,
        left_entries: limits.entries,
        changed: Vec::new(),
    };
    let mut level = match before == now {
        true => Vec::new(),
        false => vec![root],
    };
    for _ in 0..limits.depth {
        level = comparison.descend(store, level).await?;
        if level.is_empty() {
            comparison.changed.sort_unstable();
            return Ok(comparison.changed);
        }
    }
    let depth = limits.depth;
    Err(comparison.too_large(&format!("more than {depth} levels of it differ")))
}

/// What one name in a directory stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Node {
    File(Digest, bool),
    Symlink(String),
    Directory(Digest),
}

/// A directory that is not the same in both trees, or is in one of them alone.
struct Differing {
    /// Where it is, with a slash at its end unless it is the root.
    path: String,
    before: Option<Digest>,
    now: Option<Digest>,
}

struct Comparison {
    root: Digest,
    limits: LoadLimits,
    left_bytes: u64,
    left_entries: usize,
    changed: Vec<ChangedFile>,
}

impl Comparison {
    /// Compares the directories of one level, and gives those of the next.
    async fn descend(
        &mut self,
        store: &dyn BlobStore,
        level: Vec<Differing>,
    ) -> Result<Vec<Differing>, LoadError> {
        for directory in &level {
            let both = directory.before.iter().chain(&directory.now);
            let bytes = both.map(Digest::size_bytes).fold(0, u64::saturating_add);
            self.charge(bytes)?;
        }
        let limit = self.limits.directory_bytes;
        let mut reads = stream::iter(level)
            .map(|directory| async move {
                let before = nodes_of(store, directory.before, limit);
                let now = nodes_of(store, directory.now, limit);
                let (before, now) = future::try_join(before, now).await?;
                Ok::<_, LoadError>((directory.path, before, now))
            })
            .buffered(READ_CONCURRENCY);
        let mut next = Vec::new();
        while let Some((path, before, mut now)) = reads.try_next().await? {
            for (name, old) in before {
                let new = now.remove(&name);
                self.compare(format!("{path}{name}"), Some(old), new, &mut next)?;
            }
            for (name, new) in now {
                self.compare(format!("{path}{name}"), None, Some(new), &mut next)?;
            }
        }
        Ok(next)
    }

    #[expect(
        clippy::result_large_err,
        reason = "two digests name the blob and what is wrong; this path is rare"
    )]
    fn compare(
        &mut self,
        path: String,
        old: Option<Node>,
        new: Option<Node>,
        next: &mut Vec<Differing>,
    ) -> Result<(), LoadError> {
        if old == new {
            return Ok(());
        }
        self.charge(u64::try_from(path.len()).unwrap_or(u64::MAX))?;
        let left = self.left_entries.checked_sub(1);
        self.left_entries = left.ok_or_else(|| {
            let limit = self.limits.entries;
            self.too_large(&format!("more than {limit} entries of it differ"))
        })?;
        let below = |node: &Option<Node>| match node {
            Some(Node::Directory(digest)) => Some(*digest),
            Some(Node::File(..) | Node::Symlink(_)) | None => None,
        };
        let (before, now) = (below(&old), below(&new));
        if before.is_some() || now.is_some() {
            next.push(Differing {
                path: format!("{path}/"),
                before,
                now,
            });
        }
        let is_leaf = |node: &Option<Node>| matches!(node, Some(Node::File(..) | Node::Symlink(_)));
        match (is_leaf(&old), is_leaf(&new)) {
            (true, true) => self.changed.push(ChangedFile::Changed(path)),
            (true, false) => self.changed.push(ChangedFile::Removed(path)),
            (false, true) => self.changed.push(ChangedFile::Added(path)),
            (false, false) => {}
        }
        Ok(())
    }

    #[expect(
        clippy::result_large_err,
        reason = "two digests name the blob and what is wrong; this path is rare"
    )]
    fn charge(&mut self, bytes: u64) -> Result<(), LoadError> {
        let left = self.left_bytes.checked_sub(bytes);
        self.left_bytes = left.ok_or_else(|| {
            let limit = self.limits.total_bytes;
            self.too_large(&format!("more than {limit} bytes of it differ"))
        })?;
        Ok(())
    }

    fn too_large(&self, detail: &str) -> LoadError {
        LoadError::TooLarge {
            root: self.root,
            detail: detail.to_owned(),
        }
    }
}

/// What is in a directory, by name; nothing if there is none.
async fn nodes_of(
    store: &dyn BlobStore,
    digest: Option<Digest>,
    limit_bytes: u64,
) -> Result<BTreeMap<String, Node>, LoadError> {
    let Some(digest) = digest else {
        return Ok(BTreeMap::new());
    };
    let bytes = read_directory(store, digest, limit_bytes).await?;
    let nodes = decode(bytes).and_then(nodes);
    nodes.map_err(|source| LoadError::Invalid { digest, source })
}

fn nodes(directory: reapi::Directory) -> Result<BTreeMap<String, Node>, InvalidDirectoryError> {
    let mut nodes = BTreeMap::new();
    for file in directory.files {
        let digest = digest_of(&file.name, file.digest.as_ref())?;
        nodes.insert(file.name, Node::File(digest, file.is_executable));
    }
    for link in directory.symlinks {
        nodes.insert(link.name, Node::Symlink(link.target));
    }
    for below in directory.directories {
        let digest = digest_of(&below.name, below.digest.as_ref())?;
        nodes.insert(below.name, Node::Directory(digest));
    }
    Ok(nodes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::merkle::TreeBuilder;
    use crate::{MemoryBlobStore, StoreError, put_bytes};

    async fn put(store: &MemoryBlobStore, files: &[(&str, &str)]) -> Digest {
        let mut builder = TreeBuilder::new();
        for (path, content) in files {
            let content = Digest::of(content.as_bytes());
            builder.insert_file(path, content, false).expect("fits");
        }
        let tree = builder.build();
        for bytes in tree.directories.values() {
            put_bytes(store, bytes.clone()).await.expect("is stored");
        }
        tree.root
    }

    /// Few of each, so that they meet.
    fn files() -> impl Strategy<Value = BTreeMap<String, u8>> {
        let path = proptest::collection::vec("[ab]", 3).prop_map(|parts| parts.join("/"));
        proptest::collection::btree_map(path, 0u8..2, 0..6)
    }

    fn wait<T>(future: impl Future<Output = T>) -> T {
        futures::FutureExt::now_or_never(future).expect("memory is at hand")
    }

    proptest! {
        #[test]
        fn what_differs_is_named_and_nothing_else(before in files(), now in files()) {
            let store = MemoryBlobStore::new();
            let root = |files: &BTreeMap<String, u8>| {
                let mut builder = TreeBuilder::new();
                for (path, content) in files {
                    builder.insert_file(path, Digest::of(&[*content]), false).expect("fits");
                }
                let tree = builder.build();
                for bytes in tree.directories.values() {
                    wait(put_bytes(&store, bytes.clone())).expect("is stored");
                }
                tree.root
            };
            let (old, new) = (root(&before), root(&now));
            let changed = wait(changed_files(&store, &old, &new, LoadLimits::default()));
            let paths: std::collections::BTreeSet<_> = before.keys().chain(now.keys()).collect();
            let mut expected: Vec<_> = paths
                .into_iter()
                .filter_map(|path| match (before.get(path), now.get(path)) {
                    (None, _) => Some(ChangedFile::Added(path.clone())),
                    (_, None) => Some(ChangedFile::Removed(path.clone())),
                    (old, new) => (old != new).then(|| ChangedFile::Changed(path.clone())),
                })
                .collect();
            expected.sort();
            prop_assert_eq!(changed.expect("is read"), expected);
        }
    }

    #[tokio::test]
    async fn files_are_named_by_what_became_of_them() {
        let store = MemoryBlobStore::new();
        let before = [
            ("f", "1"),
            ("g", "1"),
            ("was/x", "1"),
            ("sub/a", "1"),
            ("sub/b", "1"),
        ];
        let now = [
            ("f", "1"),
            ("g", "2"),
            ("was", "1"),
            ("sub/a", "2"),
            ("sub/c", "1"),
        ];
        let (before, now) = (put(&store, &before).await, put(&store, &now).await);
        let limits = LoadLimits::default();
        let changed = changed_files(&store, &before, &now, limits).await;
        let mut told: Vec<_> = changed
            .expect("is read")
            .iter()
            .map(ToString::to_string)
            .collect();
        told.sort();
        assert_eq!(
            told,
            [
                "file g has changed",
                "file sub/a has changed",
                "file sub/b is gone",
                "file sub/c is new",
                "file was is new",
                "file was/x is gone",
            ]
        );
    }

    #[tokio::test]
    async fn what_is_the_same_is_not_read() {
        let store = MemoryBlobStore::new();
        let before = put(&store, &[("same/a", "1"), ("f", "1")]).await;
        let now = put(&store, &[("same/a", "1"), ("f", "2")]).await;
        let same = put(&store, &[("a", "1")]).await;
        store.delete(&same).await.expect("is deleted");
        let limits = LoadLimits::default();
        let changed = changed_files(&store, &before, &now, limits).await;
        let expected = [ChangedFile::Changed("f".to_owned())];
        assert_eq!(changed.expect("is read"), expected);
        let gone = Digest::of(b"gone");
        let same = changed_files(&store, &gone, &gone, limits).await;
        assert_eq!(same.expect("needs nothing"), []);
        let changed = changed_files(&store, &gone, &now, limits).await;
        let Err(LoadError::Store { source, .. }) = changed else {
            panic!("{changed:?}");
        };
        assert!(matches!(source, StoreError::NotFound { digest } if digest == gone));
    }

    #[tokio::test]
    async fn more_than_the_limits_allow_is_not_read() {
        let store = MemoryBlobStore::new();
        let before = put(&store, &[("a/b", "1"), ("a/c", "1")]).await;
        let now = put(&store, &[("a/b", "2"), ("a/c", "2")]).await;
        let below = put(&store, &[("b", "1"), ("c", "1")]).await;
        let paths: u64 = ["a", "a/b", "a/c"].map(str::len).iter().sum::<usize>() as u64;
        let just_enough = LoadLimits {
            total_bytes: 2 * (before.size_bytes() + below.size_bytes()) + paths,
            depth: 2,
            entries: 3,
            ..LoadLimits::default()
        };
        let compare = async |limits| changed_files(&store, &before, &now, limits).await;
        let found = compare(just_enough).await;
        assert_eq!(found.expect("is read").len(), 2);
        let LoadLimits { total_bytes, .. } = just_enough;
        for limits in [
            LoadLimits {
                directory_bytes: 10,
                ..just_enough
            },
            LoadLimits {
                total_bytes: total_bytes - 1,
                ..just_enough
            },
            LoadLimits {
                depth: 1,
                ..just_enough
            },
            LoadLimits {
                entries: 2,
                ..just_enough
            },
        ] {
            let refused = compare(limits).await;
            assert!(refused.is_err(), "{limits:?}");
        }
    }
}
