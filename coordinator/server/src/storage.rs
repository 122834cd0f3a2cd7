//! The stacks of stores that blobs and action results live in.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use regatta_cas::{
    AbsenceIndex, BlobStore, ChunkedBlobStore, ChunkingParams, Deletions, Durability,
    EmptyBlobStore, ExistenceIndex, ListedBlobStore, MemoryTier, OpenStoreError, WrongReads,
};
use regatta_model::{Digest, TenantId};

use crate::cas::{CHUNKING_PARAMS, TenantViews};
use crate::retention::{Claimant, Kind, Place, Places, Retention, Seconds};
use crate::stored_objects::{SmallBlobs, StoredObjects, Upkeep};
use crate::upload_upkeep::UploadUpkeep;

/// How many blobs are known to be there without asking, at about 150 bytes each when all are used.
const INDEX_CAPACITY: usize = 1 << 17;

/// What is kept close by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Nearby {
    /// How much memory blobs that were read lately may take, in bytes.
    pub(crate) memory_bytes: u64,
    /// The largest blob that is kept in memory, in bytes: messages, not payloads.
    pub(crate) max_blob_bytes: u64,
    /// How long something is known to be there without asking: what is let go is known at once to be gone, but
    /// somebody else may delete from a bucket.
    pub(crate) presence_expiry: Duration,
}

impl Nearby {
    /// That of every coordinator.
    const DEFAULT: Self = Self {
        memory_bytes: 8 << 20,
        max_blob_bytes: 256 << 10,
        presence_expiry: Duration::from_secs(10 * 60),
    };
}

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

/// Where everything is stored, as each tenant sees it: the same for all, but for whom a use counts.
#[derive(Debug, Clone)]
pub(crate) struct Storage {
    /// Blobs under their digests, verified.
    pub(crate) blobs: TenantViews<dyn BlobStore>,
    /// What of them is kept as chunks: a part of the same stack.
    pub(crate) chunked: TenantViews<ChunkedBlobStore>,
    /// The objects that blobs are in: nothing that is known of them answers for these.
    pub(crate) objects: Arc<dyn BlobStore>,
    /// When wrong bytes came of them.
    pub(crate) wrong_reads: WrongReads,
    /// Action results, under keys that the action cache makes.
    pub(crate) results: TenantViews<dyn BlobStore>,
    /// What is known of URIs, under keys that the asset store makes.
    pub(crate) assets: TenantViews<dyn BlobStore>,
    /// Blobs whose use makes them stay for as long as verdicts that are given to the tenant.
    pub(crate) for_verdicts: TenantViews<dyn BlobStore>,
    /// The same for verdicts that were given to the tenant at some time.
    pub(crate) for_earlier_verdicts: EarlierVerdictViews,
    /// Of all of it, if a loss of power can take something that was stored.
    pub(crate) durability: Option<Arc<dyn Durability>>,
    /// What lets go of what is not used.
    pub(crate) places: Places,
    /// What aborts uploads that nobody will end.
    pub(crate) uploads: UploadUpkeep,
}

/// Blobs as verdicts of some time see them.
#[derive(Debug, Clone)]
pub(crate) struct EarlierVerdictViews(Stacks);

impl EarlierVerdictViews {
    /// Has what is asked for used by verdicts that were given to a tenant then.
    pub(crate) fn of(&self, tenant: &TenantId, given_at: Seconds) -> Arc<dyn BlobStore> {
        let Self(stacks) = self;
        let claimant = stacks.retention.claimant_of(tenant);
        stacks.chunked_of(claimant.for_verdicts(), Some(given_at))
    }
}

impl Storage {
    /// Opens the stores below a URL, whose uses are counted by `retention`. `is_known` if that knows all that
    /// is stored; nothing goes while `deletions` are not allowed.
    pub(crate) fn open(
        (url, small_blobs): (&str, SmallBlobs),
        writers: Writers,
        retention: Arc<Retention>,
        is_known: bool,
        deletions: Deletions,
    ) -> Result<Self, OpenStoreError> {
        let objects = StoredObjects::open(url, small_blobs, Upkeep::Here(deletions.clone()))?;
        let opening = Opening {
            retention: &retention,
            writers,
            is_known,
            // A directory answers fast, and is asked: a machine that lost power may have cut files off.
            is_asked: url.starts_with("file:"),
            nearby: Nearby::DEFAULT,
            chunking: CHUNKING_PARAMS,
        };
        Ok(opening.storage(&objects, deletions))
    }
}

/// One store for each tenant, and one for nobody in particular.
fn views<T: ?Sized + Send + Sync + 'static>(
    retention: &Arc<Retention>,
    of: impl Fn(Claimant) -> Arc<T> + Send + Sync + 'static,
) -> TenantViews<T> {
    let retention = Arc::clone(retention);
    let shared = of(Claimant::NOBODY);
    TenantViews::new(shared, move |tenant| of(retention.claimant_of(tenant)))
}

/// What the views of blobs share.
#[derive(Debug, Clone)]
struct Stacks {
    blobs: Arc<dyn BlobStore>,
    mappings: Arc<dyn BlobStore>,
    memory: Arc<MemoryTier>,
    retention: Arc<Retention>,
    durability: Option<Arc<dyn Durability>>,
    chunking: ChunkingParams,
}

impl Stacks {
    fn chunked_of(&self, claimant: Claimant, used: Option<Seconds>) -> Arc<ChunkedBlobStore> {
        let retaining = |kind, store: &Arc<dyn BlobStore>| {
            self.retention.retaining(kind, store, (claimant, used))
        };
        let blobs = retaining(Kind::Blob, &self.blobs);
        let mappings = retaining(Kind::Mapping, &self.mappings);
        let retention = Arc::clone(&self.retention);
        let split = move |blob: &Digest, chunks: &[Digest]| retention.split(blob, chunks);
        let chunked = ChunkedBlobStore::new(blobs, mappings).with_params(self.chunking);
        let chunked = match &self.durability {
            Some(durability) => chunked.with_durability(Arc::clone(durability)),
            None => chunked,
        };
        Arc::new(chunked.with_splits_observed(Arc::new(split)))
    }

    /// Small blobs stay at hand, and the empty blob is always there.
    fn blobs_of(&self, claimant: Claimant) -> Arc<dyn BlobStore> {
        let store = self.memory.above(self.chunked_of(claimant, None));
        Arc::new(EmptyBlobStore::new(Arc::new(store)))
    }
}

/// How stores are opened.
pub(crate) struct Opening<'a> {
    pub(crate) retention: &'a Arc<Retention>,
    pub(crate) writers: Writers,
    /// Whether all that is stored is known.
    pub(crate) is_known: bool,
    /// Whether the store is asked about that all the same.
    pub(crate) is_asked: bool,
    pub(crate) nearby: Nearby,
    /// How blobs are cut that are kept as chunks.
    pub(crate) chunking: ChunkingParams,
}

impl Opening<'_> {
    /// The stacks above some objects.
    pub(crate) fn storage(&self, objects: &StoredObjects, deletions: Deletions) -> Storage {
        let retention = self.retention;
        let mappings = objects.of(Kind::Mapping);
        let mapping_place = self.place(Kind::Mapping, mappings, Arc::clone(mappings) as _);
        let blob_place = self.blob_place(objects);
        let stacks = Stacks {
            memory: Arc::new(MemoryTier::new(
                Arc::clone(&blob_place.store),
                self.nearby.memory_bytes,
                self.nearby.max_blob_bytes,
            )),
            blobs: Arc::clone(&blob_place.store),
            mappings: Arc::clone(&mapping_place.store),
            retention: Arc::clone(retention),
            durability: objects.durability.clone(),
            chunking: self.chunking,
        };
        let of_kind = HashMap::from([
            (Kind::Result, self.keyed_place(Kind::Result, objects)),
            (Kind::Asset, self.keyed_place(Kind::Asset, objects)),
            (Kind::Mapping, mapping_place),
            (Kind::Blob, blob_place),
        ]);
        let keyed = |kind: Kind| {
            let store = Arc::clone(&of_kind[&kind].store);
            let retention = Arc::clone(retention);
            move |claimant| retention.retaining(kind, &store, (claimant, None))
        };
        Storage {
            objects: Arc::clone(objects.of(Kind::Blob)) as _,
            wrong_reads: objects.wrong_reads.clone(),
            results: views(retention, keyed(Kind::Result)),
            assets: views(retention, keyed(Kind::Asset)),
            blobs: {
                let stacks = stacks.clone();
                views(retention, move |claimant| stacks.blobs_of(claimant))
            },
            chunked: {
                let stacks = stacks.clone();
                views(retention, move |claimant| stacks.chunked_of(claimant, None))
            },
            durability: objects.durability.clone(),
            uploads: UploadUpkeep::new(objects.uploads.clone(), deletions.clone()),
            places: Places {
                of_kind,
                memory: Arc::clone(&stacks.memory),
                deletions,
            },
            for_verdicts: {
                let stacks = stacks.clone();
                views(retention, move |claimant| {
                    stacks.chunked_of(claimant.for_verdicts(), None) as _
                })
            },
            for_earlier_verdicts: EarlierVerdictViews(stacks),
        }
    }

    fn blob_place(&self, objects: &StoredObjects) -> Place {
        let verified = Arc::clone(&objects.verified_blobs);
        let mut place = self.place(Kind::Blob, objects.of(Kind::Blob), verified);
        let known = ExistenceIndex::new(place.store, INDEX_CAPACITY, self.nearby.presence_expiry)
            .with_losses(objects.losses_of(Kind::Blob));
        // Of a bucket that others change, or that changed since, nothing is known.
        if self.retention.is_log_believed() && self.writers == Writers::This && !self.is_asked {
            known.remember(self.retention.digests(Kind::Blob));
        }
        place.store = Arc::new(known);
        place
    }

    /// Values that are read now and then, and asked for each time that they are used.
    fn keyed_place(&self, kind: Kind, stored: &StoredObjects) -> Place {
        let (objects, expiry) = (stored.of(kind), self.nearby.presence_expiry);
        let store = ExistenceIndex::new(Arc::clone(objects) as _, INDEX_CAPACITY, expiry);
        Place {
            store: Arc::new(store.with_losses(stored.losses_of(kind))),
            objects: Arc::clone(objects),
            absence: None,
        }
    }

    /// A store that this process alone writes to need not be asked about what is absent. What is there is read
    /// from the store, unless it is known already.
    fn place(
        &self,
        kind: Kind,
        objects: &Arc<dyn ListedBlobStore>,
        store: Arc<dyn BlobStore>,
    ) -> Place {
        let index = || {
            let (retention, is_known) = (Arc::clone(self.retention), self.is_known);
            let listed = Arc::clone(objects);
            let list = move || match is_known {
                true => stream::iter(retention.digests(kind)).map(Ok).boxed(),
                false => listed.list(),
            };
            Arc::new(AbsenceIndex::new(
                Arc::clone(&store),
                list,
                ABSENCE_CAPACITY,
            ))
        };
        let absence = (self.writers == Writers::This).then(index);
        Place {
            objects: Arc::clone(objects),
            store: match &absence {
                Some(index) => Arc::clone(index) as _,
                None => store,
            },
            absence,
        }
    }
}

/// The directory that a URL names, if it names one of this machine.
pub(crate) fn directory_of(url: &str) -> Option<PathBuf> {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt as _;
    let mut encoded = url.strip_prefix("file://")?.bytes();
    let mut bytes = Vec::new();
    while let Some(byte) = encoded.next() {
        let digits = match byte {
            b'%' => [encoded.next()?, encoded.next()?],
            _ => {
                bytes.push(byte);
                continue;
            }
        };
        let digits = std::str::from_utf8(&digits).ok()?.to_owned();
        bytes.push(u8::from_str_radix(&digits, 16).ok()?);
    }
    Some(PathBuf::from(OsString::from_vec(bytes)))
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
    use std::convert::Infallible;
    use std::sync::Mutex;

    use async_trait::async_trait;
    use bytes::Bytes;
    use futures::TryStreamExt as _;
    use regatta_cas::{BlobRange, BlobStream, MemoryBlobStore, StoreError, put_bytes};
    use tokio::time::Instant;

    use super::*;
    use crate::retention::{CacheSettings, UseLogFrom};

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
        let expiry = Nearby::DEFAULT.presence_expiry;
        let below = ForgettingStore::new(expiry * 2);
        let known = ExistenceIndex::new(below.clone(), INDEX_CAPACITY, expiry);
        let memory = MemoryTier::new(Arc::new(known), Nearby::DEFAULT.memory_bytes, 1 << 10);
        let store = EmptyBlobStore::new(Arc::new(memory));
        let asked = put_bytes(&store, Bytes::from_static(b"asked")).await;
        let left = put_bytes(&store, Bytes::from_static(b"left")).await;
        let (asked, left) = (asked.unwrap(), left.unwrap());
        for _ in 0..200 {
            tokio::time::advance(expiry / 20).await;
            assert_eq!(store.find_missing(&[asked]).await.unwrap(), []);
        }
        let kept = below.find_missing(&[asked, left]).await.unwrap();
        assert_eq!(kept, [left], "what is answered is what is there");
        assert_eq!(store.find_missing(&[left]).await.unwrap(), [left]);
    }

    #[tokio::test]
    async fn what_was_there_ahead_of_a_kill_is_there_without_asking() {
        let state = tempfile::tempdir().unwrap();
        // Each opens a bucket of its own: what the second takes for present, it has not asked about.
        let open = |log| {
            let opened = Retention::open(state.path(), None, CacheSettings::default(), log);
            let (retention, is_known) = opened.unwrap();
            let place = ("memory://", SmallBlobs::Packed);
            let retained = Arc::clone(&retention);
            let deletions = Deletions::default();
            let opened = Storage::open(place, Writers::This, retained, is_known, deletions);
            (retention, opened.unwrap())
        };
        let (retention, storage) = open(UseLogFrom::TheLastTerm);
        let blobs = (0..20).map(|fill| Bytes::from(vec![fill; 300 << 10]));
        let mut digests = Vec::new();
        for blob in blobs {
            let stored = put_bytes(storage.blobs.shared().as_ref(), blob).await;
            digests.push(stored.unwrap());
        }
        retention.flush();
        drop((retention, storage));
        let (_, storage) = open(UseLogFrom::TheLastTerm);
        let store = storage.blobs.shared();
        assert_eq!(store.find_missing(&digests).await.unwrap(), []);
        // It is corrected by what is read.
        let read = store.get(&digests[3], BlobRange::ALL).await.map(drop);
        assert!(matches!(read, Err(StoreError::NotFound { .. })), "{read:?}");
        assert_eq!(store.find_missing(&digests).await.unwrap(), [digests[3]]);
        drop(storage);
        // Another may have deleted them; that is so until they have been listed.
        for log in [UseLogFrom::AnEarlierTerm, UseLogFrom::TheLastTerm] {
            let (retention, storage) = open(log);
            assert!(retention.digests(Kind::Blob).len() >= 19);
            let missing = storage.blobs.shared().find_missing(&digests[..1]).await;
            assert_eq!(missing.unwrap(), digests[..1], "{log:?}");
        }
    }

    #[tokio::test]
    async fn what_somebody_else_removes_is_found_to_be_gone_when_it_is_read() {
        let state = tempfile::tempdir().unwrap();
        let log = UseLogFrom::TheLastTerm;
        let opened = Retention::open(state.path(), None, CacheSettings::default(), log);
        let (retention, is_known) = opened.unwrap();
        let place = ("memory://", SmallBlobs::Packed);
        let deletions = Deletions::default();
        let opened = Storage::open(place, Writers::This, retention, is_known, deletions);
        let storage = opened.unwrap();
        let store = storage.blobs.shared();
        // More than is kept in memory.
        let blob = Bytes::from(vec![7; 300 << 10]);
        let digest = put_bytes(store.as_ref(), blob.clone()).await.unwrap();
        let objects = &storage.places.of_kind[&Kind::Blob].objects;
        objects.delete(&digest).await.unwrap();
        // The bucket is not asked about what was there a moment ago.
        assert_eq!(store.find_missing(&[digest]).await.unwrap(), []);
        let read = store.get(&digest, BlobRange::ALL).await.map(drop);
        assert!(matches!(read, Err(StoreError::NotFound { .. })), "{read:?}");
        assert_eq!(store.find_missing(&[digest]).await.unwrap(), [digest]);
        put_bytes(store.as_ref(), blob).await.unwrap();
        assert_eq!(store.find_missing(&[digest]).await.unwrap(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pack_that_somebody_else_removes_takes_along_what_is_known_of_all_that_was_in_it() {
        let state = tempfile::tempdir().unwrap();
        let log = UseLogFrom::TheLastTerm;
        let opened = Retention::open(state.path(), None, CacheSettings::default(), log);
        let (retention, is_known) = opened.unwrap();
        let packs = Arc::new(MemoryBlobStore::new());
        let below = |place: &'static str| -> Result<Arc<dyn ListedBlobStore>, Infallible> {
            Ok(match place {
                "cas-packs" => Arc::clone(&packs) as _,
                _ => Arc::new(MemoryBlobStore::new()),
            })
        };
        let upkeep = Upkeep::Here(Deletions::default());
        let objects = StoredObjects::over(below, SmallBlobs::Packed, upkeep).unwrap();
        let opening = Opening {
            retention: &retention,
            writers: Writers::This,
            is_known,
            is_asked: false,
            nearby: Nearby {
                memory_bytes: 0,
                ..Nearby::DEFAULT
            },
            chunking: CHUNKING_PARAMS,
        };
        let storage = opening.storage(&objects, Deletions::default());
        let store = storage.blobs.shared().as_ref();
        let [one, two] = ["one", "two"].map(|blob| put_bytes(store, Bytes::from(blob)));
        let (one, two) = tokio::join!(one, two);
        let both = [one.unwrap(), two.unwrap()];
        let stored: Vec<Digest> = packs.list().try_collect().await.unwrap();
        for pack in &stored {
            packs.delete(pack).await.unwrap();
        }
        assert_eq!(
            (stored.len(), store.find_missing(&both).await.unwrap()),
            (1, vec![])
        );
        let read = store.get(&both[0], BlobRange::ALL).await.map(drop);
        assert!(matches!(read, Err(StoreError::NotFound { .. })), "{read:?}");
        assert_eq!(store.find_missing(&both).await.unwrap(), both);
        put_bytes(store, Bytes::from("two")).await.unwrap();
        assert_eq!(store.find_missing(&both).await.unwrap(), both[..1]);
    }

    #[test]
    fn directories_become_urls() {
        assert_eq!(url_of(Path::new("/a b/c%")), "file:///a%20b/c%25");
        assert_eq!(directory_of("file:///a%20b/c%25"), Some("/a b/c%".into()));
        assert_eq!(directory_of("s3://bucket/p"), None);
    }
}
