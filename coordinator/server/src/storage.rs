//! The stacks of stores that blobs and action results live in.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use regatta_cas::{
    AbsenceIndex, BlobFiles, BlobStore, ChunkedBlobStore, EmptyBlobStore, ExistenceIndex,
    MemoryTier, ObjectStoreBlobStore, OpenStoreError, PackingBlobStore, StoreError,
    VerifyingBlobStore,
};
use regatta_model::Digest;

/// How much memory blobs that were read lately may take, in bytes.
const MEMORY_TIER_BYTES: u64 = 8 << 20;
/// The largest blob that is kept in memory, in bytes: messages, not payloads.
const MEMORY_TIER_MAX_BLOB_BYTES: u64 = 256 << 10;
/// How many blobs are known to be there without asking, at about 150 bytes each when all are used.
const INDEX_CAPACITY: usize = 1 << 17;
/// How long a blob is known to be there without asking. Nothing deletes blobs yet; whatever will has to
/// keep them for longer than this after their last use.
const INDEX_EXPIRY: Duration = Duration::from_secs(10 * 60);

/// How many blobs may be there before their absence is not known without asking, at 10 to 20 bytes each.
const ABSENCE_CAPACITY: usize = 1 << 21;

/// Who writes to a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writers {
    /// This process alone.
    This,
    /// Others too.
    Many,
}

/// What becomes of small blobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SmallBlobs {
    /// Those that are stored at about the same time are one object together.
    Packed,
    /// Each is an object of its own, as in a directory, where that costs nothing.
    Apart,
}

impl SmallBlobs {
    /// What becomes of them below a URL, unless somebody wants it otherwise.
    pub(crate) fn below(url: &str) -> Self {
        match url.starts_with("file:") {
            true => Self::Apart,
            false => Self::Packed,
        }
    }
}

/// Where everything is stored.
#[derive(Debug, Clone)]
pub(crate) struct Storage {
    /// Blobs under their digests, verified.
    pub(crate) blobs: Arc<dyn BlobStore>,
    /// What of them is kept as chunks: a part of the same stack.
    pub(crate) chunked: Arc<ChunkedBlobStore>,
    /// Action results, under keys that the action cache makes.
    pub(crate) results: Arc<dyn BlobStore>,
    /// What is known of URIs, under keys that the asset store makes.
    pub(crate) assets: Arc<dyn BlobStore>,
}

impl Storage {
    /// Opens the stores below a URL.
    pub(crate) fn open(
        url: &str,
        writers: Writers,
        small_blobs: SmallBlobs,
    ) -> Result<Self, OpenStoreError> {
        let place = ObjectStoreBlobStore::open(url)?;
        let cas = Arc::new(opened(&place, "cas")?.with_sizes_checked());
        let mappings = opened(&place, "chunks")?;
        let results = Arc::new(opened(&place, "ac")?);
        let assets = opened(&place, "assets")?;
        let listing = mappings.list();
        let mappings = indexed(Arc::new(mappings), listing, writers);
        let (blobs, results): (_, Arc<dyn BlobStore>) = match small_blobs {
            SmallBlobs::Apart => (indexed(verified(&cas), cas.list(), writers), results),
            SmallBlobs::Packed => {
                let packs = [opened(&place, "cas-packs")?, opened(&place, "ac-packs")?];
                let [of_blobs, of_results] = packs.map(Arc::new);
                let blobs = PackingBlobStore::new(of_blobs, cas, ABSENCE_CAPACITY);
                let results = PackingBlobStore::keyed(of_results, results, ABSENCE_CAPACITY);
                let blobs = VerifyingBlobStore::new(Arc::new(blobs));
                (Arc::new(blobs), Arc::new(results))
            }
        };
        let chunked = Arc::new(ChunkedBlobStore::new(known(blobs), mappings));
        Ok(Self {
            assets: Arc::new(assets),
            blobs: content_addressed(Arc::clone(&chunked) as _),
            chunked,
            results,
        })
    }
}

/// Opens one of the stores in a place, whose requests are counted.
fn opened(
    place: &ObjectStoreBlobStore,
    name: &'static str,
) -> Result<ObjectStoreBlobStore, OpenStoreError> {
    let store = place.below(name)?;
    Ok(store.with_requests_observed(Arc::new(move |request| {
        let labels = [("store", name), ("operation", request.name())];
        metrics::counter!("regatta_object_store_requests_total", &labels).increment(1);
    })))
}

/// Nothing wrong gets in or out. Whoever else writes to the store verifies what it writes, so that what was
/// found right, and is an unchanged file, need not be verified each time it is read.
fn verified(store: &Arc<ObjectStoreBlobStore>) -> Arc<dyn BlobStore> {
    let below: Arc<dyn BlobStore> = Arc::clone(store) as _;
    let files: Arc<dyn BlobFiles> = Arc::clone(store) as _;
    Arc::new(VerifyingBlobStore::new(below).with_unchanged_trusted(files))
}

/// A store that this process alone writes to need not be asked about what is absent.
fn indexed(
    store: Arc<dyn BlobStore>,
    listing: BoxStream<'static, Result<Digest, StoreError>>,
    writers: Writers,
) -> Arc<dyn BlobStore> {
    match writers {
        Writers::This => Arc::new(AbsenceIndex::new(store, listing, ABSENCE_CAPACITY)),
        Writers::Many => store,
    }
}

/// What is known to be there costs no request.
fn known(store: Arc<dyn BlobStore>) -> Arc<dyn BlobStore> {
    Arc::new(ExistenceIndex::new(store, INDEX_CAPACITY, INDEX_EXPIRY))
}

/// Small blobs stay at hand, and the empty blob is always there.
fn content_addressed(store: Arc<dyn BlobStore>) -> Arc<dyn BlobStore> {
    let store = Arc::new(MemoryTier::new(
        store,
        MEMORY_TIER_BYTES,
        MEMORY_TIER_MAX_BLOB_BYTES,
    ));
    Arc::new(EmptyBlobStore::new(store))
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
    use std::collections::HashMap;
    use std::sync::Mutex;

    use async_trait::async_trait;
    use bytes::Bytes;
    use regatta_cas::{BlobRange, BlobStream, MemoryBlobStore, conformance, put_bytes};
    use tokio::time::Instant;

    use super::*;

    /// Forgets a blob that was not used for a while, as a bucket that is swept does.
    #[derive(Debug)]
    struct ForgettingStore {
        blobs: MemoryBlobStore,
        retention: Duration,
        used: Mutex<HashMap<Digest, Instant>>,
    }

    impl ForgettingStore {
        fn new(retention: Duration) -> Arc<Self> {
            Arc::new(Self {
                blobs: MemoryBlobStore::new(),
                retention,
                used: Mutex::default(),
            })
        }

        fn use_now(&self, digest: &Digest) {
            self.used.lock().unwrap().insert(*digest, Instant::now());
        }

        async fn forget_unused(&self, digest: &Digest) -> Result<(), StoreError> {
            let used = self.used.lock().unwrap().get(digest).copied();
            match used.is_some_and(|used| used.elapsed() < self.retention) {
                true => Ok(()),
                false => self.blobs.delete(digest).await,
            }
        }
    }

    #[async_trait]
    impl BlobStore for ForgettingStore {
        async fn get(&self, digest: &Digest, range: BlobRange) -> Result<BlobStream, StoreError> {
            self.forget_unused(digest).await?;
            self.use_now(digest);
            self.blobs.get(digest, range).await
        }

        async fn put(&self, digest: &Digest, body: BlobStream) -> Result<(), StoreError> {
            self.use_now(digest);
            self.blobs.put(digest, body).await
        }

        async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
            for digest in digests {
                self.forget_unused(digest).await?;
            }
            let missing = self.blobs.find_missing(digests).await?;
            let present = digests.iter().filter(|digest| !missing.contains(digest));
            present.for_each(|digest| self.use_now(digest));
            Ok(missing)
        }

        async fn delete(&self, digest: &Digest) -> Result<(), StoreError> {
            self.blobs.delete(digest).await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_for_a_blob_again_and_again_keeps_it_alive() {
        let below = ForgettingStore::new(INDEX_EXPIRY * 2);
        let store = content_addressed(known(below.clone()));
        let asked = put_bytes(store.as_ref(), Bytes::from_static(b"asked")).await;
        let left = put_bytes(store.as_ref(), Bytes::from_static(b"left")).await;
        let (asked, left) = (asked.unwrap(), left.unwrap());
        for _ in 0..200 {
            tokio::time::advance(INDEX_EXPIRY / 20).await;
            assert_eq!(store.find_missing(&[asked]).await.unwrap(), []);
        }
        let kept = below.find_missing(&[asked, left]).await.unwrap();
        assert_eq!(kept, [left], "what is answered is what is there");
        assert_eq!(store.find_missing(&[left]).await.unwrap(), [left]);
    }

    #[tokio::test]
    async fn what_is_packed_conforms() {
        let storage = Storage::open("memory://", Writers::Many, SmallBlobs::Packed).unwrap();
        conformance::check_content_addressed(storage.blobs).await;
        conformance::check_keyed(storage.results).await;
    }

    #[test]
    fn small_blobs_are_packed_in_buckets_alone() {
        for (url, expected) in [
            ("file:///var/lib/regatta", SmallBlobs::Apart),
            ("s3://bucket/prefix", SmallBlobs::Packed),
            ("memory://", SmallBlobs::Packed),
        ] {
            assert_eq!(SmallBlobs::below(url), expected, "{url}");
        }
    }

    #[test]
    fn directories_become_urls() {
        assert_eq!(url_of(Path::new("/a b/c%")), "file:///a%20b/c%25");
    }
}
