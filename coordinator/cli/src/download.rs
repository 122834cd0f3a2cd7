//! Bringing the outputs of an action here.

mod destination;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use futures::StreamExt as _;
use prost::Message as _;
use regatta_cas::merkle::{Entry, LoadError, LoadLimits, Tree, TreeBuilder, load};
use regatta_cas::{BlobRange, BlobStore, StoreError, checked_body, read_all};
use regatta_model::Digest;
use regatta_wire::reapi;

use destination::Destination;

/// How large the description of an output directory may be, in bytes.
const TREE_LIMIT_BYTES: u64 = 64 << 20;

/// Why outputs are not here.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// The result makes no sense. Report it.
    #[error("the output {path:?} {problem}")]
    Invalid {
        /// The output.
        path: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The store does not give it.
    #[error("cannot fetch {path:?}")]
    Fetch {
        /// The output.
        path: String,
        /// Why.
        source: Box<StoreError>,
    },
    /// The description of a directory cannot be read.
    #[error("cannot read the directory {path:?}")]
    Tree {
        /// The output.
        path: String,
        /// Why.
        source: Box<LoadError>,
    },
    /// It cannot be written here. Check permissions and space.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Puts every output of `result` below `directory`, each file whole or not at all. No symlink below it is
/// followed.
///
/// # Errors
/// Something cannot be fetched or written; what came before stays.
pub async fn download(
    store: &dyn BlobStore,
    result: &reapi::ActionResult,
    directory: &Path,
) -> Result<(), DownloadError> {
    let destination = Destination::open(directory)?;
    for file in &result.output_files {
        let digest = required(file.digest.as_ref(), &file.path)?;
        fetch(store, &destination, &file.path, &digest, file.is_executable).await?;
    }
    for output in &result.output_directories {
        destination.create_directory(&output.path)?;
        for (path, entry) in tree_of(store, output).await?.entries() {
            let path = format!("{}/{path}", output.path);
            match entry {
                Entry::File { digest, executable } => {
                    fetch(store, &destination, &path, &digest, executable).await?;
                }
                Entry::Symlink { target } => destination.create_symlink(&path, &target)?,
                Entry::Directory => destination.create_directory(&path)?,
            }
        }
    }
    for link in &result.output_symlinks {
        destination.create_symlink(&link.path, &link.target)?;
    }
    Ok(())
}

fn required(digest: Option<&reapi::Digest>, path: &str) -> Result<Digest, DownloadError> {
    let digest = digest.and_then(|digest| Digest::try_from(digest).ok());
    digest.ok_or_else(|| DownloadError::Invalid {
        path: path.to_owned(),
        problem: "has no digest",
    })
}

async fn tree_of(
    store: &dyn BlobStore,
    output: &reapi::OutputDirectory,
) -> Result<TreeBuilder, DownloadError> {
    let path = || output.path.clone();
    if let Some(root) = &output.root_directory_digest {
        let root = required(Some(root), &output.path)?;
        let loaded = load(store, &root, LoadLimits::default()).await;
        return loaded.map_err(|source| DownloadError::Tree {
            source: Box::new(source),
            path: path(),
        });
    }
    let digest = required(output.tree_digest.as_ref(), &output.path)?;
    let bytes = read_all(store, &digest, TREE_LIMIT_BYTES)
        .await
        .map_err(|source| DownloadError::Fetch {
            path: path(),
            source: Box::new(source),
        })?;
    reapi::Tree::decode(bytes)
        .ok()
        .and_then(|message| Tree::from_message(&message).ok())
        .and_then(|tree| {
            let mut builder = TreeBuilder::new();
            builder
                .insert_tree("", &tree, LoadLimits::default().entries)
                .ok()?;
            Some(builder)
        })
        .ok_or_else(|| DownloadError::Invalid {
            path: path(),
            problem: "is no directory tree",
        })
}

async fn fetch(
    store: &dyn BlobStore,
    destination: &Destination,
    path: &str,
    digest: &Digest,
    executable: bool,
) -> Result<(), DownloadError> {
    let failed = |source| DownloadError::Fetch {
        path: path.to_owned(),
        source: Box::new(source),
    };
    let mut new = destination.create_file(path, executable)?;
    let body = store.get(digest, BlobRange::ALL).await.map_err(failed)?;
    let mut body = checked_body(*digest, body);
    while let Some(piece) = body.next().await {
        let written = new.file.write_all(&piece.map_err(failed)?);
        written.map_err(|error| new.failed(error))?;
    }
    new.keep()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;
    use regatta_cas::{MemoryBlobStore, stream_of};

    async fn stored(store: &MemoryBlobStore, text: &'static str) -> Option<reapi::Digest> {
        let digest = Digest::of(text.as_bytes());
        store
            .put(&digest, stream_of(text.into()))
            .await
            .expect("stored");
        Some(digest.into())
    }

    #[tokio::test]
    async fn outputs_arrive_with_their_modes() {
        let store = MemoryBlobStore::new();
        let result = reapi::ActionResult {
            output_files: vec![reapi::OutputFile {
                path: "bin/tool".to_owned(),
                digest: stored(&store, "tool").await,
                is_executable: true,
                ..reapi::OutputFile::default()
            }],
            output_symlinks: vec![reapi::OutputSymlink {
                path: "link".to_owned(),
                target: "bin/tool".to_owned(),
                ..reapi::OutputSymlink::default()
            }],
            ..reapi::ActionResult::default()
        };
        let directory = tempfile::tempdir().expect("a temporary directory");
        for _ in 0..2 {
            download(&store, &result, directory.path())
                .await
                .expect("it arrives");
        }
        let tool = directory.path().join("bin/tool");
        assert_eq!(
            std::fs::read_to_string(directory.path().join("link")).expect("read"),
            "tool"
        );
        let mode = std::fs::metadata(tool).expect("there").permissions().mode();
        assert_eq!(mode & 0o111, 0o111);
    }

    #[tokio::test]
    async fn nothing_leaves_the_directory() {
        let store = MemoryBlobStore::new();
        for path in ["../x", "/x", "a/../../x"] {
            let file = reapi::OutputFile {
                path: path.to_owned(),
                digest: stored(&store, "x").await,
                ..reapi::OutputFile::default()
            };
            let result = reapi::ActionResult {
                output_files: vec![file],
                ..reapi::ActionResult::default()
            };
            let directory = tempfile::tempdir().expect("a temporary directory");
            let deep = directory.path().join("deep");
            let refused = download(&store, &result, &deep).await;
            assert!(
                matches!(refused, Err(DownloadError::Invalid { .. })),
                "{path}"
            );
            assert!(!directory.path().join("x").exists(), "{path}");
        }
    }

    #[tokio::test]
    async fn a_symlink_that_is_there_already_leads_nowhere() {
        let store = MemoryBlobStore::new();
        let (here, elsewhere) = (tempfile::tempdir(), tempfile::tempdir());
        let here = here.expect("a temporary directory");
        let elsewhere = elsewhere.expect("a temporary directory");
        symlink(elsewhere.path(), here.path().join("out")).expect("linked");
        let precious = elsewhere.path().join("precious");
        std::fs::write(&precious, "mine").expect("written");
        symlink(&precious, here.path().join("file")).expect("linked");
        let file = async |path: &str| reapi::OutputFile {
            path: path.to_owned(),
            digest: stored(&store, "theirs").await,
            ..reapi::OutputFile::default()
        };
        let through = reapi::ActionResult {
            output_files: vec![file("out/precious").await],
            ..reapi::ActionResult::default()
        };
        let refused = download(&store, &through, here.path()).await;
        let error = refused.expect_err("it leads out");
        let shown = here.path().join("out").display().to_string();
        assert!(error.to_string().contains(&shown), "{error}");
        let over = reapi::ActionResult {
            output_files: vec![file("file").await],
            ..reapi::ActionResult::default()
        };
        download(&store, &over, here.path()).await.expect("written");
        let mine = std::fs::read_to_string(&precious).expect("there");
        assert_eq!(mine, "mine");
        let theirs = std::fs::read_to_string(here.path().join("file")).expect("there");
        assert_eq!(theirs, "theirs");
        let left = std::fs::read_dir(here.path()).expect("there").count();
        assert_eq!(left, 2, "nothing unfinished is left");
    }
}
