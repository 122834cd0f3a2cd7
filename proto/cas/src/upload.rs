//! Trees into a store.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use futures::{StreamExt as _, TryFutureExt as _, TryStreamExt as _, stream};
use regatta_model::Digest;

use crate::merkle::Tree;
use crate::{BlobStore, StoreError, file_body, stream_of};

/// How many digests one presence request asks for.
const FIND_CHUNK: usize = 10_000;
/// How many blobs are on their way at a time: enough for small ones to share a request.
const PUT_CONCURRENCY: usize = 64;

/// What an upload did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UploadSummary {
    /// How many blobs the tree has, directories included.
    pub total_blobs: usize,
    /// How large they are together, in bytes.
    pub total_bytes: u64,
    /// How many of them the store did not have.
    pub uploaded_blobs: usize,
    /// How large those are together, in bytes.
    pub uploaded_bytes: u64,
}

/// Why a tree cannot be uploaded.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// A file is no longer what was digested. Scan again.
    #[error("{} changed while it was uploaded; stop what writes it and run again", path.display())]
    FileChanged {
        /// The file.
        path: PathBuf,
    },
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What came back.
        source: io::Error,
    },
    /// The store does not have a blob of the tree, and nobody said where to read it.
    #[error("blob {digest} is neither in the store nor in any file")]
    NoSource {
        /// The blob.
        digest: Digest,
    },
    /// The store refused.
    #[error("cannot upload blob {digest}")]
    Put {
        /// The blob.
        digest: Digest,
        /// What the store said.
        source: StoreError,
    },
    /// The store cannot say what it has.
    #[error("cannot ask the store what it has")]
    Find(#[source] StoreError),
}

/// Brings all blobs of `tree` into `store` that are not there yet, streaming files from disk. The store is
/// content-addressed: that a file is not what was digested any more is the store's to see.
///
/// # Errors
/// See [`UploadError`]; what was uploaded before the error stays.
pub async fn upload(
    store: &dyn BlobStore,
    tree: &Tree,
    files: &HashMap<Digest, PathBuf>,
) -> Result<UploadSummary, UploadError> {
    upload_telling(store, tree, files, &|| ()).await
}

/// The same; `stored` is told of each blob that the store has taken, whatever becomes of the others.
///
/// # Errors
/// Those of [`upload`].
pub async fn upload_telling(
    store: &dyn BlobStore,
    tree: &Tree,
    files: &HashMap<Digest, PathBuf>,
    stored: &(dyn Fn() + Sync),
) -> Result<UploadSummary, UploadError> {
    let mut digests: Vec<Digest> = tree.digests().collect();
    // The largest first, so that none is left to go alone at the end.
    digests.sort_unstable_by_key(|digest| std::cmp::Reverse((digest.size_bytes(), *digest)));
    let missing = find_missing(store, &digests).await?;
    let summary = UploadSummary {
        total_blobs: digests.len(),
        total_bytes: size_of(&digests),
        uploaded_blobs: missing.len(),
        uploaded_bytes: size_of(&missing),
    };
    stream::iter(missing)
        .map(|digest| put(store, tree, files, digest).inspect_ok(|()| stored()))
        .buffer_unordered(PUT_CONCURRENCY)
        .try_collect::<()>()
        .await?;
    Ok(summary)
}

fn size_of(digests: &[Digest]) -> u64 {
    digests
        .iter()
        .map(Digest::size_bytes)
        .fold(0, u64::saturating_add)
}

async fn find_missing(
    store: &dyn BlobStore,
    digests: &[Digest],
) -> Result<Vec<Digest>, UploadError> {
    let mut missing = Vec::new();
    for chunk in digests.chunks(FIND_CHUNK) {
        missing.extend(store.find_missing(chunk).await.map_err(UploadError::Find)?);
    }
    Ok(missing)
}

async fn put(
    store: &dyn BlobStore,
    tree: &Tree,
    files: &HashMap<Digest, PathBuf>,
    digest: Digest,
) -> Result<(), UploadError> {
    if let Some(bytes) = tree.directories.get(&digest) {
        let put = store.put(&digest, stream_of(bytes.clone())).await;
        return put.map_err(|source| UploadError::Put { digest, source });
    }
    match files.get(&digest) {
        Some(path) => put_file(store, digest, path).await,
        None if digest.is_empty_blob() => {
            let put = store.put(&digest, stream_of(bytes::Bytes::new())).await;
            put.map_err(|source| UploadError::Put { digest, source })
        }
        None => Err(UploadError::NoSource { digest }),
    }
}

async fn put_file(store: &dyn BlobStore, digest: Digest, path: &Path) -> Result<(), UploadError> {
    let changed = || UploadError::FileChanged {
        path: path.to_owned(),
    };
    let opened = open(path).await;
    let (file, size_bytes) = opened.map_err(|source| UploadError::Read {
        path: path.to_owned(),
        source,
    })?;
    if size_bytes != digest.size_bytes() {
        return Err(changed());
    }
    // No end is given, so that a file that grows meanwhile is noticed.
    let body = file_body(file, 0, u64::MAX);
    store.put(&digest, body).await.map_err(|error| match error {
        StoreError::Corrupt { .. } => changed(),
        source => UploadError::Put { digest, source },
    })
}

async fn open(path: &Path) -> io::Result<(File, u64)> {
    let path = path.to_owned();
    let opening = tokio::task::spawn_blocking(move || {
        let file = File::open(path)?;
        let size_bytes = file.metadata()?.len();
        Ok((file, size_bytes))
    });
    opening.await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::merkle::{LoadLimits, TreeBuilder, load};
    use crate::{MemoryBlobStore, VerifyingBlobStore, read_all};

    struct Sample {
        builder: TreeBuilder,
        files: HashMap<Digest, PathBuf>,
    }

    fn sample() -> (tempfile::TempDir, Sample) {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("a")).unwrap();
        let (mut builder, mut files) = (TreeBuilder::new(), HashMap::new());
        for (name, content) in [
            ("a/x", "x"),
            ("a/same", "x"),
            ("large", &"l".repeat(2 << 20)),
        ] {
            let (path, digest) = (root.path().join(name), Digest::of(content.as_bytes()));
            std::fs::write(&path, content).unwrap();
            builder.insert_file(name, digest, false).unwrap();
            files.insert(digest, path);
        }
        (root, Sample { builder, files })
    }

    #[tokio::test]
    async fn only_what_is_missing_is_uploaded() {
        let (_root, found) = sample();
        let store = MemoryBlobStore::new();
        let tree = found.builder.build();
        let first = upload(&store, &tree, &found.files).await.unwrap();
        assert_eq!((first.total_blobs, first.uploaded_blobs), (4, 4));
        assert_eq!(first.uploaded_bytes, tree.size_bytes());
        assert_eq!(
            load(&store, &tree.root, LoadLimits::default())
                .await
                .unwrap(),
            found.builder
        );
        for digest in found.files.keys() {
            read_all(&store, digest, 4 << 20).await.unwrap();
        }
        store.delete(&Digest::of(b"x")).await.unwrap();
        let second = upload(&store, &tree, &found.files).await.unwrap();
        assert_eq!((second.uploaded_blobs, second.uploaded_bytes), (1, 1));
    }

    #[tokio::test]
    async fn a_file_that_changed_is_named() {
        for content in ["y", "longer", ""] {
            let (root, found) = sample();
            let path = root.path().join("a/same");
            std::fs::write(&path, content).unwrap();
            let store = VerifyingBlobStore::new(Arc::new(MemoryBlobStore::new()));
            let refused = upload(&store, &found.builder.build(), &found.files).await;
            assert!(
                matches!(&refused, Err(UploadError::FileChanged { path: named }) if named.ends_with("same")),
                "{refused:?}"
            );
            assert!(
                !store
                    .find_missing(&[Digest::of(b"x")])
                    .await
                    .unwrap()
                    .is_empty()
            );
        }
    }

    #[tokio::test]
    async fn a_blob_from_nowhere_is_named() {
        let mut builder = TreeBuilder::new();
        builder.insert_file("x", Digest::of(b"x"), false).unwrap();
        let refused = upload(&MemoryBlobStore::new(), &builder.build(), &HashMap::new()).await;
        let Err(UploadError::NoSource { digest }) = refused else {
            panic!("{refused:?}")
        };
        assert_eq!(digest, Digest::of(b"x"));
    }
}
