//! Whether a `Tree` message is whole (REAPI, `Tree` and `OutputDirectory`).

use std::collections::HashSet;

use bytes::Bytes;
use prost::Message as _;
use regatta_cas::merkle::{InvalidDirectoryError, validate_directory};
use regatta_cas::{BlobRange, BlobStore, StoreError};
use regatta_model::Digest;
use regatta_wire::reapi;

use super::completeness::MAX_REFERENCES;
use super::tree_reader::{ReadTreeError, TreePart, TreeReader};
use crate::cas::MAX_DIRECTORY_SIZE_BYTES;

/// The largest tree that is read, in bytes: some millions of files, and some seconds to hash.
const MAX_TREE_SIZE_BYTES: u64 = 512 << 20;

/// Why a tree is no tree. Its author has to fix it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTreeError {
    /// The bytes are no `Tree` message at all.
    #[error("the bytes are no Tree message")]
    Encoding,
    /// It has no root.
    #[error("it has no root")]
    NoRoot,
    /// Its root is there twice: as such, or among the children too.
    #[error("its root is repeated")]
    RootRepeated,
    /// Its root is another one than the result says.
    #[error("its root is {actual}, not {expected}")]
    OtherRoot {
        /// The result's `root_directory_digest`.
        expected: Digest,
        /// The digest of its root.
        actual: Digest,
    },
    /// A directory is named and is not among the children.
    #[error("directory {digest} is named in it and is not among its children")]
    ChildMissing {
        /// The directory.
        digest: Digest,
    },
    /// A directory in it is not canonical.
    #[error("a directory in it is not canonical")]
    Directory(#[from] InvalidDirectoryError),
    /// A directory in it is too large.
    #[error("a directory in it is larger than {MAX_DIRECTORY_SIZE_BYTES} bytes; split it")]
    DirectoryTooLarge,
    /// It is too large.
    #[error("it is larger than {MAX_TREE_SIZE_BYTES} bytes; split it")]
    TooLarge,
    /// It has too many files and directories.
    #[error("it has more than {MAX_REFERENCES} files and directories; split it")]
    TooMany,
}

/// Why the files of a tree are not known.
#[derive(Debug)]
pub(super) enum TreeError {
    /// The store failed, or does not have the tree.
    Store(StoreError),
    /// The tree is wrong.
    Invalid(InvalidTreeError),
}

impl From<InvalidTreeError> for TreeError {
    fn from(error: InvalidTreeError) -> Self {
        Self::Invalid(error)
    }
}

impl From<ReadTreeError> for TreeError {
    fn from(error: ReadTreeError) -> Self {
        match error {
            ReadTreeError::Store(error) => Self::Store(error),
            ReadTreeError::Malformed => Self::Invalid(InvalidTreeError::Encoding),
            ReadTreeError::TooLarge => Self::Invalid(InvalidTreeError::DirectoryTooLarge),
        }
    }
}

/// The files of a tree that is whole: it has one root, which is `expected_root` if that is given, and every
/// directory that is named in it is in it.
pub(super) async fn files_of_tree(
    blobs: &dyn BlobStore,
    digest: &Digest,
    expected_root: Option<&Digest>,
) -> Result<HashSet<Digest>, TreeError> {
    if digest.size_bytes() > MAX_TREE_SIZE_BYTES {
        return Err(InvalidTreeError::TooLarge.into());
    }
    let body = blobs.get(digest, BlobRange::ALL).await;
    let mut reader = TreeReader::new(body.map_err(TreeError::Store)?);
    let mut closure = TreeClosure::default();
    while let Some(part) = reader.next().await? {
        closure.add(part)?;
        // A tree in memory is read without waiting; others want their turn all the same.
        tokio::task::consume_budget().await;
    }
    Ok(closure.finish(expected_root)?)
}

#[derive(Default)]
struct TreeClosure {
    root: Option<Digest>,
    children: HashSet<Digest>,
    named: HashSet<Digest>,
    files: HashSet<Digest>,
}

impl TreeClosure {
    fn add(&mut self, part: TreePart) -> Result<(), InvalidTreeError> {
        match part {
            TreePart::Root(bytes) => {
                if self.root.replace(Digest::of(&bytes)).is_some() {
                    return Err(InvalidTreeError::RootRepeated);
                }
                self.add_nodes(bytes)
            }
            TreePart::Child(bytes) => {
                let is_new = self.children.insert(Digest::of(&bytes));
                if is_new {
                    self.add_nodes(bytes)
                } else {
                    Ok(())
                }
            }
        }
    }

    fn add_nodes(&mut self, bytes: Bytes) -> Result<(), InvalidTreeError> {
        let directory = reapi::Directory::decode(bytes).map_err(|_| InvalidTreeError::Encoding)?;
        validate_directory(&directory)?;
        // Validation has seen to it that each node has a digest.
        let digest = |digest: Option<&reapi::Digest>| Digest::try_from(digest?).ok();
        let files = directory.files.iter();
        self.files
            .extend(files.filter_map(|node| digest(node.digest.as_ref())));
        let directories = directory.directories.iter();
        self.named
            .extend(directories.filter_map(|node| digest(node.digest.as_ref())));
        if self.files.len() + self.named.len() + self.children.len() > MAX_REFERENCES {
            return Err(InvalidTreeError::TooMany);
        }
        Ok(())
    }

    fn finish(self, expected_root: Option<&Digest>) -> Result<HashSet<Digest>, InvalidTreeError> {
        let root = self.root.ok_or(InvalidTreeError::NoRoot)?;
        if self.children.contains(&root) {
            return Err(InvalidTreeError::RootRepeated);
        }
        if let Some(expected) = expected_root.filter(|expected| **expected != root) {
            return Err(InvalidTreeError::OtherRoot {
                expected: *expected,
                actual: root,
            });
        }
        match self.named.difference(&self.children).min() {
            Some(digest) => Err(InvalidTreeError::ChildMissing { digest: *digest }),
            None => Ok(self.files),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use regatta_cas::{MemoryBlobStore, put_bytes};
    use regatta_wire::reapi::{Directory, DirectoryNode, FileNode, Tree};

    fn leaf() -> Directory {
        let file = FileNode {
            name: "file".to_owned(),
            digest: Some(Digest::of(b"file").into()),
            ..Default::default()
        };
        Directory {
            files: vec![file],
            ..Default::default()
        }
    }

    fn above(directory: &Directory) -> Directory {
        let node = DirectoryNode {
            name: "directory".to_owned(),
            digest: Some(digest_of(directory).into()),
        };
        Directory {
            directories: vec![node],
            ..Default::default()
        }
    }

    fn digest_of(directory: &Directory) -> Digest {
        Digest::of(&directory.encode_to_vec())
    }

    async fn files(bytes: Vec<u8>, root: Option<&Digest>) -> Result<Vec<Digest>, InvalidTreeError> {
        let store = MemoryBlobStore::new();
        let digest = put_bytes(&store, bytes.into()).await.unwrap();
        match files_of_tree(&store, &digest, root).await {
            Ok(files) => Ok(files.into_iter().collect()),
            Err(TreeError::Invalid(error)) => Err(error),
            Err(TreeError::Store(error)) => panic!("{error}"),
        }
    }

    #[tokio::test]
    async fn a_whole_tree_gives_its_files() {
        let (leaf, middle) = (leaf(), above(&leaf()));
        let root = above(&middle);
        let expected = digest_of(&root);
        let mut tree = Tree {
            root: Some(root),
            children: vec![leaf.clone(), middle],
        };
        let found = files(tree.encode_to_vec(), Some(&expected)).await;
        assert_eq!(found, Ok(vec![Digest::of(b"file")]));
        tree.children.push(leaf);
        assert!(files(tree.encode_to_vec(), None).await.is_ok());
        let empty = Tree {
            root: Some(Directory::default()),
            children: Vec::new(),
        };
        assert_eq!(
            files(empty.encode_to_vec(), Some(&Digest::EMPTY)).await,
            Ok(vec![])
        );
    }

    #[tokio::test]
    async fn what_is_not_whole_is_refused_for_its_reason() {
        let root = above(&leaf());
        let tree = |children: &[Directory]| Tree {
            root: Some(root.clone()),
            children: children.to_vec(),
        };
        let refused = async |tree: &Tree, expected: Option<&Digest>| {
            files(tree.encode_to_vec(), expected).await.unwrap_err()
        };
        let digest = digest_of(&leaf());
        assert_eq!(
            refused(&tree(&[]), None).await,
            InvalidTreeError::ChildMissing { digest }
        );
        assert_eq!(
            refused(&tree(&[leaf(), root.clone()]), None).await,
            InvalidTreeError::RootRepeated
        );
        assert_eq!(
            refused(&tree(&[leaf()]), Some(&digest)).await,
            InvalidTreeError::OtherRoot {
                expected: digest,
                actual: digest_of(&root)
            }
        );
        let mut bad = leaf();
        bad.files[0].digest = None;
        let error = refused(&tree(&[leaf(), bad]), None).await;
        assert!(matches!(error, InvalidTreeError::Directory(_)), "{error:?}");
        let rootless = Tree {
            root: None,
            children: vec![leaf()],
        };
        assert_eq!(refused(&rootless, None).await, InvalidTreeError::NoRoot);
        let twice = [tree(&[leaf()]).encode_to_vec(), tree(&[]).encode_to_vec()].concat();
        assert_eq!(
            files(twice, None).await,
            Err(InvalidTreeError::RootRepeated)
        );
        let garbage = b"\x0a\x02\x0a\x7f".to_vec();
        assert_eq!(files(garbage, None).await, Err(InvalidTreeError::Encoding));
    }

    #[tokio::test]
    async fn a_tree_of_more_than_32_mib_is_read() {
        let mut children = Vec::new();
        let mut root = Directory::default();
        for number in 0..40u32 {
            let mut child = Directory::default();
            child.symlinks.push(reapi::SymlinkNode {
                name: format!("{number:04}"),
                target: "x".repeat(1 << 20),
                ..Default::default()
            });
            root.directories.push(DirectoryNode {
                name: format!("{number:04}"),
                digest: Some(digest_of(&child).into()),
            });
            children.push(child);
        }
        let tree = Tree {
            root: Some(root),
            children,
        };
        assert_eq!(files(tree.encode_to_vec(), None).await, Ok(Vec::new()));
    }
}
