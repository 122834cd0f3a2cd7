//! Bringing the outputs of an action here.

use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use futures::StreamExt as _;
use prost::Message as _;
use regatta_cas::merkle::{Entry, LoadError, LoadLimits, Tree, TreeBuilder, load};
use regatta_cas::{BlobRange, BlobStore, StoreError, checked_body, read_all};
use regatta_model::Digest;
use regatta_wire::reapi;

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

/// Puts every output of `result` below `directory`, each file whole or not at all.
///
/// # Errors
/// Something cannot be fetched or written; what came before stays.
pub async fn download(
    store: &dyn BlobStore,
    result: &reapi::ActionResult,
    directory: &Path,
) -> Result<(), DownloadError> {
    for file in &result.output_files {
        let digest = required(file.digest.as_ref(), &file.path)?;
        fetch(
            store,
            &place(directory, &file.path)?,
            &digest,
            file.is_executable,
            &file.path,
        )
        .await?;
    }
    for link in &result.output_symlinks {
        write_symlink(&place(directory, &link.path)?, &link.target)?;
    }
    for output in &result.output_directories {
        let target = place(directory, &output.path)?;
        create(&target)?;
        for (path, entry) in tree_of(store, output).await?.entries() {
            let target = place(&target, &path)?;
            match entry {
                Entry::File { digest, executable } => {
                    fetch(store, &target, &digest, executable, &path).await?;
                }
                Entry::Symlink { target: to } => write_symlink(&target, &to)?,
                Entry::Directory => create(&target)?,
            }
        }
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

/// Where an output goes; nothing leaves the directory.
fn place(directory: &Path, path: &str) -> Result<PathBuf, DownloadError> {
    let inside = Path::new(path)
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    if !inside {
        let problem = "is no path inside the working directory";
        return Err(DownloadError::Invalid {
            path: path.to_owned(),
            problem,
        });
    }
    Ok(directory.join(path))
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
    target: &Path,
    digest: &Digest,
    executable: bool,
    path: &str,
) -> Result<(), DownloadError> {
    let failed = |source| DownloadError::Fetch {
        path: path.to_owned(),
        source: Box::new(source),
    };
    let unwritten = |source| DownloadError::Write {
        path: target.to_owned(),
        source,
    };
    let parent = target.parent().unwrap_or(Path::new("."));
    create(parent)?;
    let mut file = tempfile::Builder::new()
        .prefix(".regatta-")
        .permissions(std::fs::Permissions::from_mode(if executable {
            0o755
        } else {
            0o644
        }))
        .tempfile_in(parent)
        .map_err(unwritten)?;
    let body = store.get(digest, BlobRange::ALL).await.map_err(failed)?;
    let mut body = checked_body(*digest, body);
    while let Some(piece) = body.next().await {
        file.write_all(&piece.map_err(failed)?).map_err(unwritten)?;
    }
    file.persist(target)
        .map_err(|error| unwritten(error.error))?;
    Ok(())
}

fn create(directory: &Path) -> Result<(), DownloadError> {
    std::fs::create_dir_all(directory).map_err(|source| DownloadError::Write {
        path: directory.to_owned(),
        source,
    })
}

fn write_symlink(path: &Path, target: &str) -> Result<(), DownloadError> {
    create(path.parent().unwrap_or(Path::new(".")))?;
    let failed = |source| DownloadError::Write {
        path: path.to_owned(),
        source,
    };
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_symlink() => std::fs::remove_file(path).map_err(failed)?,
        Ok(_) | Err(_) => {}
    }
    symlink(target, path).map_err(failed)
}

#[cfg(test)]
mod tests {
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
            let refused = download(&store, &result, Path::new("nowhere")).await;
            assert!(
                matches!(refused, Err(DownloadError::Invalid { .. })),
                "{path}"
            );
        }
        assert!(!Path::new("nowhere").exists());
    }
}
