//! Putting a tree together.

mod build_error;
mod expansion;

use std::collections::btree_map::{self, BTreeMap};
use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use prost::Message as _;
use regatta_model::Digest;
use regatta_wire::reapi;

pub use self::build_error::BuildError;
use self::expansion::expand;
use super::Tree;
use super::directory::{is_valid_name, is_valid_target};

/// How deep a tree may be. Deeper paths than the 4096 bytes of `PATH_MAX` allow are of no use to anyone,
/// and real trees stay far below this.
const MAX_DEPTH: usize = 256;

/// A directory tree in memory, to which entries are added by path.
///
/// Paths are relative, with `/` between their parts. Adding what is there already is fine; adding
/// something else in its place is a conflict. Parents come into being as needed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TreeBuilder {
    root: Directory,
}

/// What is at a path of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A file.
    File {
        /// Its content.
        digest: Digest,
        /// Whether it may be executed.
        executable: bool,
    },
    /// A symlink.
    Symlink {
        /// Where it points, as it is written in the link.
        target: String,
    },
    /// A directory; what it holds follows it.
    Directory,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Directory {
    nodes: BTreeMap<String, Node>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    File { digest: Digest, executable: bool },
    Symlink { target: String },
    Directory(Directory),
}

impl TreeBuilder {
    /// A tree of nothing but its root.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file.
    ///
    /// # Errors
    /// The path is bad, or something else is there.
    pub fn insert_file(
        &mut self,
        path: &str,
        digest: Digest,
        executable: bool,
    ) -> Result<(), BuildError> {
        self.insert(path, Node::File { digest, executable })
    }

    /// Adds a symlink.
    ///
    /// # Errors
    /// The path or the target is bad, or something else is there.
    pub fn insert_symlink(&mut self, path: &str, target: &str) -> Result<(), BuildError> {
        if !is_valid_target(target) {
            return Err(BuildError::Target {
                path: path.to_owned(),
            });
        }
        self.insert(
            path,
            Node::Symlink {
                target: target.to_owned(),
            },
        )
    }

    /// Adds a directory, empty until something is added below it. The empty path is the root, which is
    /// always there.
    ///
    /// # Errors
    /// The path is bad, or something other than a directory is there.
    pub fn insert_directory(&mut self, path: &str) -> Result<(), BuildError> {
        self.directory_at(path).map(drop)
    }

    /// Merges another tree in, its root at `path` (the empty path is this tree's root).
    ///
    /// # Errors
    /// The path is bad, or the two trees have different things at one path; then the tree has some of the
    /// new entries.
    pub fn insert_builder(&mut self, path: &str, other: Self) -> Result<(), BuildError> {
        let depth = depth_of(path);
        self.directory_at(path)?.merge(other.root, path, depth)
    }

    /// Merges another tree in, its root at `path` (the empty path is this tree's root); `limit` is how many
    /// entries it may have. A directory that is in it many times counts as often.
    ///
    /// # Errors
    /// As [`Self::insert_builder`]; also if `tree` is broken or too large.
    pub fn insert_tree(&mut self, path: &str, tree: &Tree, limit: usize) -> Result<(), BuildError> {
        let expanded = expand(tree, path, limit)?;
        self.insert_builder(path, Self { root: expanded })
    }

    /// All entries with their paths: sorted within each directory, directories before what they hold.
    #[must_use]
    pub fn entries(&self) -> Vec<(String, Entry)> {
        let mut entries = Vec::new();
        self.root.list("", &mut entries);
        entries
    }

    /// What is at a path, if anything. The empty path is the root.
    #[must_use]
    pub fn entry(&self, path: &str) -> Option<Entry> {
        let mut directory = &self.root;
        let mut entry = Entry::Directory;
        for name in path.split('/').filter(|_| !path.is_empty()) {
            if entry != Entry::Directory {
                return None;
            }
            let node = directory.nodes.get(name)?;
            if let Node::Directory(below) = node {
                directory = below;
            }
            entry = node.entry();
        }
        Some(entry)
    }

    /// The Merkle tree.
    #[must_use]
    pub fn build(&self) -> Tree {
        let mut tree = Tree {
            root: Digest::EMPTY,
            directories: HashMap::new(),
            files: HashSet::new(),
        };
        tree.root = self.root.build(&mut tree);
        tree
    }

    fn insert(&mut self, path: &str, node: Node) -> Result<(), BuildError> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        // Before any parent comes into being: a refused path leaves no trace.
        if !path.split('/').all(is_valid_name) {
            return Err(BuildError::Path {
                path: path.to_owned(),
            });
        }
        match self.directory_at(parent)?.nodes.entry(name.to_owned()) {
            btree_map::Entry::Vacant(place) => {
                place.insert(node);
                Ok(())
            }
            btree_map::Entry::Occupied(place) if *place.get() == node => Ok(()),
            btree_map::Entry::Occupied(_) => Err(BuildError::Conflict {
                path: path.to_owned(),
            }),
        }
    }

    fn directory_at(&mut self, path: &str) -> Result<&mut Directory, BuildError> {
        if depth_of(path) >= MAX_DEPTH {
            return Err(BuildError::TooDeep {
                path: path.to_owned(),
            });
        }
        if !path.is_empty() && !path.split('/').all(is_valid_name) {
            return Err(BuildError::Path {
                path: path.to_owned(),
            });
        }
        let mut directory = &mut self.root;
        for name in path.split('/').filter(|_| !path.is_empty()) {
            let node = directory.nodes.entry(name.to_owned());
            directory = match node.or_insert_with(|| Node::Directory(Directory::default())) {
                Node::Directory(below) => below,
                Node::File { .. } | Node::Symlink { .. } => {
                    return Err(BuildError::Conflict {
                        path: path.to_owned(),
                    });
                }
            };
        }
        Ok(directory)
    }
}

fn depth_of(path: &str) -> usize {
    path.split('/').filter(|name| !name.is_empty()).count()
}

fn joined(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}/{name}")
    }
}

impl Directory {
    fn merge(&mut self, other: Self, path: &str, depth: usize) -> Result<(), BuildError> {
        if depth >= MAX_DEPTH {
            return Err(BuildError::TooDeep {
                path: path.to_owned(),
            });
        }
        for (name, node) in other.nodes {
            let path = joined(path, &name);
            match (self.nodes.entry(name), node) {
                (btree_map::Entry::Vacant(place), Node::Directory(below)) => {
                    let mut directory = Self::default();
                    directory.merge(below, &path, depth + 1)?;
                    place.insert(Node::Directory(directory));
                }
                (btree_map::Entry::Vacant(place), node) => {
                    place.insert(node);
                }
                (btree_map::Entry::Occupied(mut place), node) => match (place.get_mut(), node) {
                    (Node::Directory(here), Node::Directory(below)) => {
                        here.merge(below, &path, depth + 1)?;
                    }
                    (here, node) if *here == node => {}
                    (_, _) => return Err(BuildError::Conflict { path }),
                },
            }
        }
        Ok(())
    }

    fn list(&self, path: &str, entries: &mut Vec<(String, Entry)>) {
        for (name, node) in &self.nodes {
            let path = joined(path, name);
            entries.push((path.clone(), node.entry()));
            if let Node::Directory(below) = node {
                below.list(&path, entries);
            }
        }
    }

    /// Adds this directory and all below it to `tree`. The map is sorted by the bytes of the names, and so
    /// are the lists.
    fn build(&self, tree: &mut Tree) -> Digest {
        let mut message = reapi::Directory::default();
        for (name, node) in &self.nodes {
            let name = name.clone();
            match node {
                Node::File { digest, executable } => {
                    tree.files.insert(*digest);
                    message.files.push(reapi::FileNode {
                        name,
                        digest: Some(digest.into()),
                        is_executable: *executable,
                        node_properties: None,
                    });
                }
                Node::Symlink { target } => message.symlinks.push(reapi::SymlinkNode {
                    name,
                    target: target.clone(),
                    node_properties: None,
                }),
                Node::Directory(below) => message.directories.push(reapi::DirectoryNode {
                    name,
                    digest: Some(below.build(tree).into()),
                }),
            }
        }
        let bytes = Bytes::from(message.encode_to_vec());
        let digest = Digest::of(&bytes);
        tree.directories.insert(digest, bytes);
        digest
    }
}

impl Node {
    fn entry(&self) -> Entry {
        match self {
            Self::File { digest, executable } => Entry::File {
                digest: *digest,
                executable: *executable,
            },
            Self::Symlink { target } => Entry::Symlink {
                target: target.clone(),
            },
            Self::Directory(_) => Entry::Directory,
        }
    }
}

#[cfg(test)]
mod tests;
