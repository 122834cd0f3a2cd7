//! Lays files and directories into an input root, touching only the directories on their way.

use std::collections::BTreeMap;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use prost::Message as _;
use regatta_cas::merkle::Tree;
use regatta_cas::{BlobStore, StoreError, put_bytes, read_all};
use regatta_model::Digest;
use regatta_wire::reapi;

/// The largest directory that is read, in bytes.
const MAX_DIRECTORY_BYTES: u64 = 16 << 20;
/// The largest output tree that is read, in bytes.
const MAX_TREE_BYTES: u64 = 256 << 20;

/// Why an input root could not be made.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum OverlayError {
    /// The store failed, or a blob has gone from it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A blob is not what it is taken for.
    #[error("blob {digest} is no valid directory")]
    NoDirectory { digest: Digest },
    /// A path leads out of the input root.
    #[error("`{path}` leads out of the input root")]
    Outside { path: String },
    /// What is at a path cannot be told from the path alone.
    #[error("`{path}` leads through the symbolic link `{link}`; name the place that it leads to")]
    Symlink { path: String, link: String },
}

/// What to lay somewhere.
#[derive(Clone, Debug)]
pub(super) enum Layer {
    File {
        digest: Digest,
        is_executable: bool,
    },
    Symlink {
        target: String,
    },
    /// A directory; what lies there already and is not in it stays.
    Directory(Digest),
}

/// Whether a path has only plain segments, and at least one.
pub(super) fn is_plain_path(path: &str) -> bool {
    path.split('/')
        .all(|segment| !matches!(segment, "" | "." | ".."))
}

/// The segments of `path`, taken from `base`, with `.` and `..` resolved.
pub(super) fn resolve(base: &str, path: &str) -> Result<Vec<String>, OverlayError> {
    let mut segments: Vec<String> = Vec::new();
    for segment in base.split('/').chain(path.split('/')) {
        match segment {
            "" | "." => {}
            ".." => {
                let outside = || OverlayError::Outside {
                    path: path.to_owned(),
                };
                segments.pop().ok_or_else(outside)?;
            }
            name => segments.push(name.to_owned()),
        }
    }
    Ok(segments)
}

/// `root` with `layer` at `path`; at the root itself if the path is empty.
pub(super) fn lay<'a>(
    blobs: &'a dyn BlobStore,
    root: Digest,
    path: &'a [String],
    layer: Layer,
) -> BoxFuture<'a, Result<Digest, OverlayError>> {
    async move {
        let Some((name, rest)) = path.split_first() else {
            return match layer {
                Layer::Directory(over) => merge(blobs, root, over).await,
                Layer::File { .. } | Layer::Symlink { .. } => Err(OverlayError::Outside {
                    path: String::new(),
                }),
            };
        };
        let mut directory = Nodes::read(blobs, root).await?;
        match layer {
            Layer::File {
                digest,
                is_executable,
            } if rest.is_empty() => {
                let node = reapi::FileNode {
                    name: name.clone(),
                    digest: Some(digest.into()),
                    is_executable,
                    node_properties: None,
                };
                directory.insert(name, Node::File(node));
            }
            Layer::Symlink { target } if rest.is_empty() => {
                let node = reapi::SymlinkNode {
                    name: name.clone(),
                    target,
                    node_properties: None,
                };
                directory.insert(name, Node::Symlink(node));
            }
            layer => {
                let below = directory.directory(name)?;
                let below = lay(blobs, below.unwrap_or(Digest::EMPTY), rest, layer).await?;
                directory.insert(name, Node::directory(name, below));
            }
        }
        directory.write(blobs).await
    }
    .boxed()
}

/// `root` without what is at `path`; the directories on the way stay, even if they are empty.
pub(super) fn remove<'a>(
    blobs: &'a dyn BlobStore,
    root: Digest,
    path: &'a [String],
) -> BoxFuture<'a, Result<Digest, OverlayError>> {
    async move {
        let Some((name, rest)) = path.split_first() else {
            return Err(OverlayError::Outside {
                path: String::new(),
            });
        };
        let mut directory = Nodes::read(blobs, root).await?;
        if rest.is_empty() {
            if directory.nodes.remove(name).is_none() {
                return Ok(root);
            }
        } else {
            if matches!(directory.nodes.get(name), Some(Node::Symlink(_))) {
                return Err(OverlayError::Symlink {
                    path: path.join("/"),
                    link: name.clone(),
                });
            }
            let Some(below) = directory.directory(name)? else {
                return Ok(root);
            };
            let without = remove(blobs, below, rest).await?;
            if without == below {
                return Ok(root);
            }
            directory.insert(name, Node::directory(name, without));
        }
        directory.write(blobs).await
    }
    .boxed()
}

/// `base` with everything of `over` in it.
fn merge(
    blobs: &dyn BlobStore,
    base: Digest,
    over: Digest,
) -> BoxFuture<'_, Result<Digest, OverlayError>> {
    async move {
        if base == over || base == Digest::EMPTY {
            return Ok(over);
        }
        let mut directory = Nodes::read(blobs, base).await?;
        for (name, node) in Nodes::read(blobs, over).await?.nodes {
            let node = match (&node, directory.directory(&name)?) {
                (Node::Directory(_), Some(below)) => {
                    let above = node.digest()?;
                    Node::directory(&name, merge(blobs, below, above).await?)
                }
                (Node::Directory(_) | Node::File(_) | Node::Symlink(_), _) => node,
            };
            directory.insert(&name, node);
        }
        directory.write(blobs).await
    }
    .boxed()
}

/// A directory's nodes by name, whatever their kind: a name is there once.
struct Nodes {
    digest: Digest,
    nodes: BTreeMap<String, Node>,
    properties: Option<reapi::NodeProperties>,
}

enum Node {
    File(reapi::FileNode),
    Symlink(reapi::SymlinkNode),
    Directory(reapi::DirectoryNode),
}

impl Node {
    fn directory(name: &str, digest: Digest) -> Self {
        Self::Directory(reapi::DirectoryNode {
            name: name.to_owned(),
            digest: Some(digest.into()),
        })
    }

    fn digest(&self) -> Result<Digest, OverlayError> {
        let digest = match self {
            Self::File(node) => node.digest.as_ref(),
            Self::Directory(node) => node.digest.as_ref(),
            Self::Symlink(_) => None,
        };
        digest
            .and_then(|digest| digest.try_into().ok())
            .ok_or(OverlayError::NoDirectory {
                digest: Digest::EMPTY,
            })
    }
}

impl Nodes {
    async fn read(blobs: &dyn BlobStore, digest: Digest) -> Result<Self, OverlayError> {
        let bytes = if digest.is_empty_blob() {
            bytes::Bytes::new()
        } else {
            read_all(blobs, &digest, MAX_DIRECTORY_BYTES).await?
        };
        let directory =
            reapi::Directory::decode(bytes).map_err(|_| OverlayError::NoDirectory { digest })?;
        let files = directory
            .files
            .into_iter()
            .map(|it| (it.name.clone(), Node::File(it)));
        let symlinks = directory
            .symlinks
            .into_iter()
            .map(|it| (it.name.clone(), Node::Symlink(it)));
        let directories = directory
            .directories
            .into_iter()
            .map(|it| (it.name.clone(), Node::Directory(it)));
        let nodes = files.chain(symlinks).chain(directories).collect();
        Ok(Self {
            digest,
            nodes,
            properties: directory.node_properties,
        })
    }

    fn insert(&mut self, name: &str, node: Node) {
        self.nodes.insert(name.to_owned(), node);
    }

    /// The directory of that name; `None` if nothing of the kind is there.
    fn directory(&self, name: &str) -> Result<Option<Digest>, OverlayError> {
        match self.nodes.get(name) {
            Some(node @ Node::Directory(_)) => {
                let bad = |_| OverlayError::NoDirectory {
                    digest: self.digest,
                };
                node.digest().map(Some).map_err(bad)
            }
            Some(Node::File(_) | Node::Symlink(_)) | None => Ok(None),
        }
    }

    async fn write(self, blobs: &dyn BlobStore) -> Result<Digest, OverlayError> {
        let mut directory = reapi::Directory {
            node_properties: self.properties,
            ..Default::default()
        };
        for node in self.nodes.into_values() {
            match node {
                Node::File(node) => directory.files.push(node),
                Node::Symlink(node) => directory.symlinks.push(node),
                Node::Directory(node) => directory.directories.push(node),
            }
        }
        Ok(put_bytes(blobs, directory.encode_to_vec().into()).await?)
    }
}

/// The root of an output directory, its directories stored one by one.
pub(super) async fn root_of(
    blobs: &dyn BlobStore,
    output: &reapi::OutputDirectory,
) -> Result<Digest, OverlayError> {
    let no_directory = || OverlayError::NoDirectory {
        digest: Digest::EMPTY,
    };
    if let Some(root) = &output.root_directory_digest {
        return root.try_into().map_err(|_| no_directory());
    }
    let digest = output.tree_digest.as_ref().ok_or_else(no_directory)?;
    let digest: Digest = digest.try_into().map_err(|_| no_directory())?;
    let invalid = || OverlayError::NoDirectory { digest };
    let bytes = read_all(blobs, &digest, MAX_TREE_BYTES).await?;
    let message = reapi::Tree::decode(bytes).map_err(|_| invalid())?;
    let tree = Tree::from_message(&message).map_err(|_| invalid())?;
    for bytes in tree.directories.into_values() {
        put_bytes(blobs, bytes).await?;
    }
    Ok(tree.root)
}

#[cfg(test)]
mod tests {
    use regatta_cas::MemoryBlobStore;

    use super::*;

    fn path(text: &str) -> Vec<String> {
        resolve("", text).expect("inside")
    }

    async fn file(blobs: &dyn BlobStore, root: Digest, at: &str, text: &'static str) -> Digest {
        let digest = put_bytes(blobs, text.into()).await.expect("stores");
        let layer = Layer::File {
            digest,
            is_executable: false,
        };
        lay(blobs, root, &path(at), layer).await.expect("lays")
    }

    #[tokio::test]
    async fn directories_are_merged_and_files_replaced() {
        let blobs = MemoryBlobStore::new();
        let base = file(&blobs, Digest::EMPTY, "a/b/one", "1").await;
        let base = file(&blobs, base, "a/two", "2").await;
        let over = file(&blobs, Digest::EMPTY, "b/one", "new").await;
        let over = file(&blobs, over, "b/three", "3").await;
        let merged = lay(&blobs, base, &path("a"), Layer::Directory(over))
            .await
            .expect("lays");
        let expected = file(&blobs, Digest::EMPTY, "a/two", "2").await;
        let expected = file(&blobs, expected, "a/b/one", "new").await;
        let expected = file(&blobs, expected, "a/b/three", "3").await;
        assert_eq!(merged, expected);
    }

    #[tokio::test]
    async fn what_is_removed_takes_nothing_with_it() {
        let blobs = MemoryBlobStore::new();
        let one = file(&blobs, Digest::EMPTY, "a/one", "1").await;
        let both = file(&blobs, one, "a/b/two", "2").await;
        let without = |root, at: &'static str| {
            let blobs = &blobs;
            async move { remove(blobs, root, &path(at)).await }
        };
        assert_eq!(without(both, "a/b").await.expect("removes"), one);
        assert_eq!(without(both, "x/y").await.expect("removes"), both);
        assert_eq!(without(both, "a/one/z").await.expect("removes"), both);
        let layer = Layer::Symlink {
            target: "a".to_owned(),
        };
        let linked = lay(&blobs, one, &path("link"), layer).await.expect("lays");
        let error = without(linked, "link/one").await.expect_err("is unclear");
        assert!(error.to_string().contains("`link`"), "{error}");
        assert_eq!(without(linked, "link").await.expect("removes"), one);
    }

    #[tokio::test]
    async fn a_missing_directory_is_named() {
        let blobs = MemoryBlobStore::new();
        let gone = Digest::of(b"gone");
        let layer = Layer::Symlink {
            target: "x".to_owned(),
        };
        let error = lay(&blobs, gone, &path("a"), layer)
            .await
            .expect_err("is missing");
        assert_eq!(
            error.to_string(),
            format!("blob {gone} is not in the store")
        );
    }

    #[test]
    fn paths_stay_inside() {
        assert_eq!(resolve("a/b", "../c").expect("inside"), ["a", "c"]);
        assert!(resolve("a", "../../c").is_err());
        assert!(is_plain_path("a/b") && !is_plain_path("") && !is_plain_path("a/../b"));
    }
}
