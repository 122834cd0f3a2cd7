//! From a Merkle tree back to the tree that it stands for.

use regatta_model::Digest;

use super::{BuildError, Directory, MAX_DEPTH, Node};
use crate::merkle::directory::digest_of;
use crate::merkle::{InvalidDirectoryError, Tree};

/// The root of `tree` with all that is below it, at most `limit` entries; `path` is where it is to go.
pub(super) fn expand(tree: &Tree, path: &str, limit: usize) -> Result<Directory, BuildError> {
    let left = limit;
    Expansion {
        tree,
        limit,
        left,
        path,
    }
    .directory(&tree.root, 0)
}

/// Turns digests of directories into directories.
struct Expansion<'a> {
    tree: &'a Tree,
    limit: usize,
    left: usize,
    path: &'a str,
}

impl Expansion<'_> {
    fn directory(&mut self, digest: &Digest, depth: usize) -> Result<Directory, BuildError> {
        if depth >= MAX_DEPTH {
            return Err(BuildError::TooDeep {
                path: self.path.to_owned(),
            });
        }
        let message = self
            .tree
            .decode(digest)
            .map_err(|source| self.broken(source))?;
        let count = message.files.len() + message.symlinks.len() + message.directories.len();
        let left = self.left.checked_sub(count);
        self.left = left.ok_or(BuildError::TooLarge { limit: self.limit })?;
        let mut directory = Directory::default();
        for node in message.files {
            let digest = digest_of(&node.name, node.digest.as_ref());
            let digest = digest.map_err(|source| self.broken(source))?;
            let file = Node::File {
                digest,
                executable: node.is_executable,
            };
            directory.nodes.insert(node.name, file);
        }
        for node in message.symlinks {
            directory.nodes.insert(
                node.name,
                Node::Symlink {
                    target: node.target,
                },
            );
        }
        for node in message.directories {
            let digest = digest_of(&node.name, node.digest.as_ref());
            let digest = digest.map_err(|source| self.broken(source))?;
            let below = self.directory(&digest, depth + 1)?;
            directory.nodes.insert(node.name, Node::Directory(below));
        }
        Ok(directory)
    }

    fn broken(&self, source: InvalidDirectoryError) -> BuildError {
        BuildError::Broken {
            path: self.path.to_owned(),
            source,
        }
    }
}
