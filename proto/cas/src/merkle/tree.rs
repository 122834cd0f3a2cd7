//! A tree, ready to be uploaded.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use prost::Message as _;
use regatta_model::Digest;
use regatta_wire::reapi;

use super::directory::digest_of;
use super::{InvalidDirectoryError, validate_directory};

/// A Merkle tree: its directories as blobs, and the digests of its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// The digest of the top directory.
    pub root: Digest,
    /// The encoding of every directory, the top one included, each once.
    pub directories: HashMap<Digest, Bytes>,
    /// The digests of all files.
    pub files: HashSet<Digest>,
}

impl Tree {
    /// The digests of everything in the tree, each once: what must be in a store for the tree to be whole.
    pub fn digests(&self) -> impl Iterator<Item = Digest> + '_ {
        let only_files = self
            .files
            .iter()
            .filter(|file| !self.directories.contains_key(file));
        self.directories.keys().chain(only_files).copied()
    }

    /// How large everything in the tree is, each blob counted once, in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.digests()
            .map(|digest| digest.size_bytes())
            .fold(0, u64::saturating_add)
    }

    /// The REAPI `Tree` message: the root, and every other directory once.
    ///
    /// # Errors
    /// A directory is missing or not canonical, which no tree built by this crate has.
    pub fn to_message(&self) -> Result<reapi::Tree, InvalidDirectoryError> {
        let root = self.decode(&self.root)?;
        let mut children = Vec::with_capacity(self.directories.len().saturating_sub(1));
        let mut seen = HashSet::from([self.root]);
        let mut next = subdirectories(&root)?;
        // Breadth first: a directory may come before one of its parents. REAPI asks for an order only
        // where `is_topologically_sorted` promises it.
        while !next.is_empty() {
            let mut below = Vec::new();
            for digest in next {
                if seen.insert(digest) {
                    let directory = self.decode(&digest)?;
                    below.extend(subdirectories(&directory)?);
                    children.push(directory);
                }
            }
            next = below;
        }
        Ok(reapi::Tree {
            root: Some(root),
            children,
        })
    }

    /// The tree in a REAPI `Tree` message. Children that no directory names are kept all the same.
    ///
    /// # Errors
    /// A directory in it is not canonical, or it has no root.
    pub fn from_message(message: &reapi::Tree) -> Result<Self, InvalidDirectoryError> {
        let root = message
            .root
            .as_ref()
            .ok_or(InvalidDirectoryError::Encoding)?;
        let mut tree = Self {
            root: Digest::EMPTY,
            directories: HashMap::new(),
            files: HashSet::new(),
        };
        tree.root = tree.insert(Bytes::from(root.encode_to_vec()), root)?;
        for child in &message.children {
            tree.insert(Bytes::from(child.encode_to_vec()), child)?;
        }
        Ok(tree)
    }

    pub(super) fn insert(
        &mut self,
        bytes: Bytes,
        directory: &reapi::Directory,
    ) -> Result<Digest, InvalidDirectoryError> {
        validate_directory(directory)?;
        for node in &directory.files {
            self.files
                .insert(digest_of(&node.name, node.digest.as_ref())?);
        }
        let digest = Digest::of(&bytes);
        self.directories.insert(digest, bytes);
        Ok(digest)
    }

    /// The directory of `digest`, decoded and validated.
    pub(super) fn decode(
        &self,
        digest: &Digest,
    ) -> Result<reapi::Directory, InvalidDirectoryError> {
        let bytes = self
            .directories
            .get(digest)
            .ok_or(InvalidDirectoryError::Encoding)?;
        decode(bytes.clone())
    }
}

/// Decodes and validates a directory.
pub(super) fn decode(bytes: Bytes) -> Result<reapi::Directory, InvalidDirectoryError> {
    let directory = reapi::Directory::decode(bytes).map_err(|_| InvalidDirectoryError::Encoding)?;
    validate_directory(&directory)?;
    Ok(directory)
}

/// The digests of the directories that a directory names, in order.
pub(super) fn subdirectories(
    directory: &reapi::Directory,
) -> Result<Vec<Digest>, InvalidDirectoryError> {
    let nodes = directory.directories.iter();
    nodes
        .map(|node| digest_of(&node.name, node.digest.as_ref()))
        .collect()
}
