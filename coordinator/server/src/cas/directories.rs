//! Directories as blobs.

use prost::Message as _;
use regatta_cas::merkle::{InvalidDirectoryError, validate_directory};
use regatta_cas::{BlobStore, StoreError, read_all};
use regatta_model::Digest;
use regatta_wire::convert::InvalidDigestError;
use regatta_wire::reapi;

/// The largest directory that is read, in bytes: about 150,000 files.
pub const MAX_DIRECTORY_SIZE_BYTES: u64 = 16 << 20;

/// Why a directory of a tree cannot be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DirectoryError {
    /// The store failed; the blob may be missing from it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The blob is no directory. Upload the right one.
    #[error("blob {digest} is no directory")]
    NotADirectory {
        /// The blob.
        digest: Digest,
        /// What was found in it.
        source: prost::DecodeError,
    },
    /// A name in it cannot be a file's. Upload the right one.
    #[error("directory {digest} has the entry {name:?}, which cannot be a file's name")]
    BadName {
        /// The directory.
        digest: Digest,
        /// The name.
        name: String,
    },
    /// A digest in it is none. Upload the right one.
    #[error("directory {digest} has a bad digest at the entry {name:?}")]
    BadDigest {
        /// The directory.
        digest: Digest,
        /// The entry.
        name: String,
        /// What is wrong with it; nothing if it is not set.
        source: Option<InvalidDigestError>,
    },
    /// It is not canonical. Upload the right one.
    #[error("directory {digest} is not canonical")]
    NotCanonical {
        /// The directory.
        digest: Digest,
        /// What is wrong with it.
        source: InvalidDirectoryError,
    },
    /// It is too large to be read.
    #[error("directory {digest} is larger than {MAX_DIRECTORY_SIZE_BYTES} bytes; split it")]
    TooLarge {
        /// The directory.
        digest: Digest,
    },
}

/// What a directory refers to.
#[derive(Debug, Default)]
pub(crate) struct References {
    pub(crate) directories: Vec<Digest>,
    pub(crate) files: Vec<Digest>,
}

/// Reads a directory.
pub(crate) async fn read_directory(
    store: &dyn BlobStore,
    digest: &Digest,
) -> Result<reapi::Directory, DirectoryError> {
    if digest.size_bytes() > MAX_DIRECTORY_SIZE_BYTES {
        return Err(DirectoryError::TooLarge { digest: *digest });
    }
    let bytes = read_all(store, digest, MAX_DIRECTORY_SIZE_BYTES).await?;
    reapi::Directory::decode(bytes).map_err(|source| DirectoryError::NotADirectory {
        digest: *digest,
        source,
    })
}

/// Everything that a directory refers to, once it is known to be canonical (REAPI, `Directory`).
pub(crate) fn canonical_references(
    digest: &Digest,
    directory: &reapi::Directory,
) -> Result<References, DirectoryError> {
    validate_directory(directory).map_err(|source| DirectoryError::NotCanonical {
        digest: *digest,
        source,
    })?;
    references(digest, directory)
}

/// Everything that a directory refers to, once its names and digests are known to be well-formed.
pub(crate) fn references(
    digest: &Digest,
    directory: &reapi::Directory,
) -> Result<References, DirectoryError> {
    for link in &directory.symlinks {
        check_name(digest, &link.name)?;
    }
    let files = directory
        .files
        .iter()
        .map(|node| (&node.name, node.digest.as_ref()));
    let directories = directory
        .directories
        .iter()
        .map(|node| (&node.name, node.digest.as_ref()));
    Ok(References {
        files: files
            .map(|(name, node)| entry(digest, name, node))
            .collect::<Result<_, _>>()?,
        directories: directories
            .map(|(name, node)| entry(digest, name, node))
            .collect::<Result<_, _>>()?,
    })
}

fn entry(
    digest: &Digest,
    name: &str,
    message: Option<&reapi::Digest>,
) -> Result<Digest, DirectoryError> {
    check_name(digest, name)?;
    let bad = |source| DirectoryError::BadDigest {
        digest: *digest,
        name: name.to_owned(),
        source,
    };
    Digest::try_from(message.ok_or_else(|| bad(None))?).map_err(|source| bad(Some(source)))
}

fn check_name(digest: &Digest, name: &str) -> Result<(), DirectoryError> {
    if matches!(name, "" | "." | "..") || name.contains(['/', '\0']) {
        return Err(DirectoryError::BadName {
            digest: *digest,
            name: name.to_owned(),
        });
    }
    Ok(())
}
