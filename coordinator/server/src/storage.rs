//! The stacks of stores that blobs and action results live in.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use regatta_cas::{
    BlobStore, EmptyBlobStore, ExistenceIndex, MemoryTier, ObjectStoreBlobStore, OpenStoreError,
    VerifyingBlobStore,
};

/// How much memory blobs that were read lately may take, in bytes.
const MEMORY_TIER_BYTES: u64 = 8 << 20;
/// The largest blob that is kept in memory, in bytes: messages, not payloads.
const MEMORY_TIER_MAX_BLOB_BYTES: u64 = 256 << 10;
/// How many blobs are known to be there without asking, at about 150 bytes each when all are used.
const INDEX_CAPACITY: usize = 1 << 17;
/// How long a blob is known to be there without asking. Nothing deletes blobs yet; whatever will has to
/// keep them for longer than this after their last use.
const INDEX_EXPIRY: Duration = Duration::from_secs(10 * 60);

/// Where everything is stored.
#[derive(Debug, Clone)]
pub(crate) struct Storage {
    /// Blobs under their digests, verified.
    pub(crate) blobs: Arc<dyn BlobStore>,
    /// Action results, under keys that the action cache makes.
    pub(crate) results: Arc<dyn BlobStore>,
}

impl Storage {
    /// Opens the stores below a URL.
    pub(crate) fn open(url: &str) -> Result<Self, OpenStoreError> {
        let cas = ObjectStoreBlobStore::open(&below(url, "cas"))?;
        let results = ObjectStoreBlobStore::open(&below(url, "ac"))?;
        Ok(Self {
            blobs: content_addressed(Arc::new(cas)),
            results: Arc::new(results),
        })
    }
}

/// Nothing wrong gets in or out; what is known costs no request; small blobs stay at hand; and the empty
/// blob is always there.
fn content_addressed(store: Arc<dyn BlobStore>) -> Arc<dyn BlobStore> {
    let store = Arc::new(VerifyingBlobStore::new(store));
    let store = Arc::new(ExistenceIndex::new(store, INDEX_CAPACITY, INDEX_EXPIRY));
    let store = Arc::new(MemoryTier::new(
        store,
        MEMORY_TIER_BYTES,
        MEMORY_TIER_MAX_BLOB_BYTES,
    ));
    Arc::new(EmptyBlobStore::new(store))
}

fn below(url: &str, name: &str) -> String {
    if url.ends_with('/') {
        format!("{url}{name}")
    } else {
        format!("{url}/{name}")
    }
}

/// The URL of a directory, which must be absolute.
pub(crate) fn url_of(directory: &Path) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    let mut url = "file://".to_owned();
    for byte in directory.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' | b'~' => {
                url.push(char::from(*byte));
            }
            _ => url.push_str(&format!("%{byte:02X}")),
        }
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_become_urls() {
        assert_eq!(url_of(Path::new("/a b/c%")), "file:///a%20b/c%25");
        assert_eq!(below("memory://", "ac"), "memory://ac");
        assert_eq!(below("s3://bucket/p", "ac"), "s3://bucket/p/ac");
    }
}
