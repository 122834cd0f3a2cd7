//! Which files differ between two input roots.

use std::collections::BTreeMap;
use std::fmt;

use prost::Message as _;
use regatta_cas::{BlobStore, StoreError, read_all};
use regatta_model::Digest;
use regatta_wire::reapi;

/// How many directories are read at most; each is one that differs.
const MAX_DIRECTORIES: usize = 20_000;
/// How large one may be, in bytes.
const MAX_DIRECTORY_BYTES: u64 = 16 << 20;

/// A file, a symlink or a directory that is not the same in both.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum ChangedFile {
    /// It is only in the newer one.
    Added(String),
    /// It is only in the older one.
    Removed(String),
    /// It has another content, target or mode.
    Changed(String),
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

/// The files cannot be compared.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChangedFilesError {
    /// A directory is not in the store any more, or the store does not answer.
    #[error("a directory cannot be read")]
    Store(#[from] StoreError),
    /// What a digest names is no directory. Report it.
    #[error("{digest} is no directory")]
    NoDirectory {
        /// What was read.
        digest: Digest,
    },
    /// There are more than can be told.
    #[error("more than {MAX_DIRECTORIES} directories differ")]
    TooMany,
}

/// What one name in a directory stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Node {
    Leaf(String),
    Directory(Option<Digest>),
}

/// The files that are not the same below two input roots, by path. Directories that are the same are not read.
pub(crate) async fn changed_files(
    blobs: &dyn BlobStore,
    before: Digest,
    now: Digest,
) -> Result<Vec<ChangedFile>, ChangedFilesError> {
    let mut changed = Vec::new();
    let mut open = vec![(String::new(), Some(before), Some(now))];
    for _ in 0..MAX_DIRECTORIES {
        let Some((path, before, now)) = open.pop() else {
            changed.sort();
            return Ok(changed);
        };
        if before == now {
            continue;
        }
        let before = nodes_of(blobs, before).await?;
        let mut now = nodes_of(blobs, now).await?;
        for (name, old) in before {
            let new = now.remove(&name);
            compare(
                format!("{path}{name}"),
                Some(old),
                new,
                &mut open,
                &mut changed,
            );
        }
        for (name, new) in now {
            compare(
                format!("{path}{name}"),
                None,
                Some(new),
                &mut open,
                &mut changed,
            );
        }
    }
    Err(ChangedFilesError::TooMany)
}

type Open = Vec<(String, Option<Digest>, Option<Digest>)>;

fn compare(
    path: String,
    old: Option<Node>,
    new: Option<Node>,
    open: &mut Open,
    changed: &mut Vec<ChangedFile>,
) {
    if old == new {
        return;
    }
    let below = |node: &Option<Node>| match node {
        Some(Node::Directory(digest)) => *digest,
        Some(Node::Leaf(_)) | None => None,
    };
    let directories = (below(&old), below(&new));
    if directories != (None, None) {
        open.push((format!("{path}/"), directories.0, directories.1));
    }
    let is_leaf = |node: &Option<Node>| matches!(node, Some(Node::Leaf(_)));
    match (is_leaf(&old), is_leaf(&new)) {
        (true, true) => changed.push(ChangedFile::Changed(path)),
        (true, false) => changed.push(ChangedFile::Removed(path)),
        (false, true) => changed.push(ChangedFile::Added(path)),
        (false, false) => {}
    }
}

async fn nodes_of(
    blobs: &dyn BlobStore,
    digest: Option<Digest>,
) -> Result<BTreeMap<String, Node>, ChangedFilesError> {
    let Some(digest) = digest else {
        return Ok(BTreeMap::new());
    };
    let bytes = read_all(blobs, &digest, MAX_DIRECTORY_BYTES).await?;
    let directory = reapi::Directory::decode(bytes);
    let directory = directory.map_err(|_| ChangedFilesError::NoDirectory { digest })?;
    let files = directory.files.into_iter().map(|file| {
        let hash = file.digest.map(|digest| digest.hash).unwrap_or_default();
        (
            file.name,
            Node::Leaf(format!("{hash} {}", file.is_executable)),
        )
    });
    let links = directory.symlinks.into_iter();
    let links = links.map(|link| (link.name, Node::Leaf(format!("-> {}", link.target))));
    let directories = directory.directories.into_iter().map(|directory| {
        let digest = directory.digest.as_ref().and_then(|it| it.try_into().ok());
        (directory.name, Node::Directory(digest))
    });
    Ok(files.chain(links).chain(directories).collect())
}

#[cfg(test)]
mod tests {
    use regatta_cas::{MemoryBlobStore, put_bytes};

    use super::*;

    /// A directory with these files, and directories.
    async fn directory(
        blobs: &MemoryBlobStore,
        files: &[(&str, &str)],
        directories: &[(&str, Digest)],
    ) -> Digest {
        let files = files.iter().map(|(name, content)| reapi::FileNode {
            name: (*name).to_owned(),
            digest: Some(Digest::of(content.as_bytes()).into()),
            ..Default::default()
        });
        let directories = directories
            .iter()
            .map(|(name, digest)| reapi::DirectoryNode {
                name: (*name).to_owned(),
                digest: Some((*digest).into()),
            });
        let directory = reapi::Directory {
            files: files.collect(),
            directories: directories.collect(),
            ..Default::default()
        };
        let bytes = directory.encode_to_vec().into();
        put_bytes(blobs, bytes).await.expect("is stored")
    }

    #[tokio::test]
    async fn files_are_named_by_what_became_of_them() {
        let blobs = MemoryBlobStore::new();
        // Nobody reads it: it is the same in both.
        let same = Digest::of(b"is not there");
        let old = directory(&blobs, &[("a", "1"), ("b", "1")], &[]).await;
        let new = directory(&blobs, &[("a", "2"), ("c", "1")], &[]).await;
        let gone = directory(&blobs, &[("x", "1")], &[]).await;
        let before = [("same", same), ("sub", old), ("was", gone)];
        let before = directory(&blobs, &[("f", "1"), ("g", "1")], &before).await;
        let now = [("same", same), ("sub", new)];
        let now = directory(&blobs, &[("f", "1"), ("g", "2"), ("was", "1")], &now).await;
        let changed = changed_files(&blobs, before, now).await.expect("is read");
        let mut told: Vec<_> = changed.iter().map(ToString::to_string).collect();
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
        assert_eq!(changed_files(&blobs, now, now).await.expect("is read"), []);
    }

    #[tokio::test]
    async fn a_root_that_is_gone_is_an_error() {
        let blobs = MemoryBlobStore::new();
        let gone = Digest::of(b"gone");
        let changed = changed_files(&blobs, gone, Digest::EMPTY).await;
        assert!(matches!(changed, Err(ChangedFilesError::Store(_))));
    }
}
