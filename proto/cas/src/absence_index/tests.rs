use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures::stream;
use tokio::sync::Notify;

use super::*;
use crate::{MemoryBlobStore, conformance, put_bytes};

/// Counts the digests that the store below is asked about.
#[derive(Debug, Default)]
struct AskedBlobStore {
    store: MemoryBlobStore,
    asked: AtomicUsize,
}

impl AskedBlobStore {
    fn asked(&self) -> usize {
        self.asked.swap(0, Ordering::Relaxed)
    }
}

#[async_trait]
impl BlobStore for AskedBlobStore {
    async fn get(&self, digest: &Digest, range: BlobRange) -> Result<BlobStream, StoreError> {
        self.store.get(digest, range).await
    }

    async fn put(&self, digest: &Digest, body: BlobStream) -> Result<(), StoreError> {
        self.store.put(digest, body).await
    }

    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        self.asked.fetch_add(digests.len(), Ordering::Relaxed);
        self.store.find_missing(digests).await
    }

    async fn delete(&self, digest: &Digest) -> Result<(), StoreError> {
        self.store.delete(digest).await
    }
}

fn digest(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

fn down() -> StoreError {
    StoreError::Unavailable {
        detail: "down".to_owned(),
    }
}

/// Waits until the listing has been read.
async fn settled(index: &AbsenceIndex) -> Extent {
    let settling = async {
        while lock(&index.seen).extent == Extent::Some {
            tokio::task::yield_now().await;
        }
        lock(&index.seen).extent
    };
    let settled = tokio::time::timeout(std::time::Duration::from_secs(10), settling).await;
    settled.expect("the listing is read to its end")
}

#[tokio::test]
async fn it_conforms() {
    let lists: [fn() -> Listing; 3] = [
        || stream::empty().boxed(),
        || stream::pending().boxed(),
        || stream::iter([Err(down())]).boxed(),
    ];
    for list in lists {
        let index = AbsenceIndex::new(Arc::new(MemoryBlobStore::new()), list, 1000);
        conformance::check_keyed(Arc::new(index)).await;
    }
}

#[tokio::test]
async fn the_store_is_asked_only_about_what_may_be_there() {
    let store = Arc::new(AskedBlobStore::default());
    let old = put_bytes(store.as_ref(), Bytes::from_static(b"old"))
        .await
        .unwrap();
    let gone = digest("gone");
    let list = move || stream::iter([Ok(old), Ok(gone)]).boxed();
    let index = AbsenceIndex::new(store.clone(), list, 10);
    assert_eq!(settled(&index).await, Extent::All);
    let new = put_bytes(&index, Bytes::from_static(b"new")).await.unwrap();
    let (a, b) = (digest("a"), digest("b"));
    let missing = index.find_missing(&[a, old, gone, new, b]).await.unwrap();
    assert_eq!((missing, store.asked()), (vec![a, gone, b], 3));
    assert_eq!(index.find_missing(&[a, b]).await.unwrap(), [a, b]);
    assert_eq!(store.asked(), 0);
}

#[tokio::test]
async fn until_the_listing_ends_the_store_is_asked_about_all() {
    let store = Arc::new(AskedBlobStore::default());
    let old = put_bytes(store.as_ref(), Bytes::from_static(b"old"))
        .await
        .unwrap();
    let go_on = Arc::new(Notify::new());
    let waiting = Arc::clone(&go_on);
    let list = move || {
        let waiting = Arc::clone(&waiting);
        let listed = async move {
            waiting.notified().await;
            Ok(old)
        };
        stream::once(listed).boxed()
    };
    let index = AbsenceIndex::new(store.clone(), list, 10);
    let asked = [digest("a"), old];
    assert_eq!(index.find_missing(&asked).await.unwrap(), asked[..1]);
    assert_eq!(store.asked(), 2);
    go_on.notify_one();
    assert_eq!(settled(&index).await, Extent::All);
    assert_eq!(index.find_missing(&asked).await.unwrap(), asked[..1]);
    assert_eq!(store.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_listing_that_fails_is_begun_again_until_it_ends() {
    let store = Arc::new(AskedBlobStore::default());
    let old = put_bytes(store.as_ref(), Bytes::from_static(b"old"))
        .await
        .unwrap();
    let listings = Arc::new(AtomicUsize::new(0));
    let begun = Arc::clone(&listings);
    let list = move || match begun.fetch_add(1, Ordering::Relaxed) {
        0..5 => stream::iter([Ok(digest("gone")), Err(down())]).boxed(),
        _ => stream::iter([Ok(old)]).boxed(),
    };
    let index = AbsenceIndex::new(store.clone(), list, 10);
    // Before the first, and between the others.
    let new = put_bytes(&index, Bytes::from_static(b"new")).await.unwrap();
    for failed in 1..=5 {
        let begun = async {
            while listings.load(Ordering::Relaxed) < failed {
                tokio::time::sleep(FIRST_PAUSE).await;
            }
        };
        let begun = tokio::time::timeout(MAX_PAUSE, begun).await;
        begun.expect("it is listed again");
        assert_eq!(lock(&index.seen).extent, Extent::Some);
        let asked = [digest("a"), old, new];
        assert_eq!(index.find_missing(&asked).await.unwrap(), asked[..1]);
        assert_eq!(store.asked(), 3, "nothing is known to be absent");
    }
    // Paused time passes at once.
    tokio::time::sleep(MAX_PAUSE).await;
    assert_eq!(lock(&index.seen).extent, Extent::All);
    let asked = [digest("a"), old, new];
    assert_eq!(index.find_missing(&asked).await.unwrap(), asked[..1]);
    assert_eq!(store.asked(), 2);
    assert_eq!(
        listings.load(Ordering::Relaxed),
        6,
        "once it was read it is not read again"
    );
}

#[tokio::test]
async fn a_store_with_more_blobs_than_the_index_holds_is_asked_about_all() {
    let store = Arc::new(AskedBlobStore::default());
    let list = || stream::iter([Ok(digest("a")), Ok(digest("b"))]).boxed();
    let index = AbsenceIndex::new(store.clone(), list, 1);
    assert_eq!(settled(&index).await, Extent::Unknown);
    let old = put_bytes(&index, Bytes::from_static(b"old")).await.unwrap();
    let asked = [digest("a"), old];
    assert_eq!(index.find_missing(&asked).await.unwrap(), asked[..1]);
    assert_eq!(store.asked(), 2);
    assert!(lock(&index.seen).fingerprints.is_empty());
}

#[tokio::test]
async fn a_renewal_forgets_what_is_gone_and_nothing_that_came_meanwhile() {
    let below = Arc::new(AskedBlobStore::default());
    let index = AbsenceIndex::new(below.clone(), || stream::empty().boxed(), 10);
    settled(&index).await;
    let gone = put_bytes(&index, Bytes::from_static(b"gone"))
        .await
        .unwrap();
    let kept = put_bytes(&index, Bytes::from_static(b"kept"))
        .await
        .unwrap();
    index.delete(&gone).await.unwrap();
    index.begin_renewal();
    let came = put_bytes(&index, Bytes::from_static(b"came"))
        .await
        .unwrap();
    let noted = put_bytes(&below.store, Bytes::from_static(b"noted"))
        .await
        .unwrap();
    index.note(&noted);
    index.end_renewal(&[kept]);
    below.asked();
    assert_eq!(index.find_missing(&[gone]).await.unwrap(), [gone]);
    assert_eq!(below.asked(), 0, "it is known to be absent");
    assert_eq!(index.find_missing(&[kept, came, noted]).await.unwrap(), []);
    // Nothing ends that has not begun.
    index.end_renewal(&[]);
    assert_eq!(index.find_missing(&[kept]).await.unwrap(), []);
}

#[track_caller]
fn check_wants_renewal(extent: Extent, remembered: u64, present: usize, wanted: bool) {
    let seen = Seen {
        fingerprints: (0..remembered).collect(),
        renewed: None,
        capacity: 1600,
        extent,
    };
    let wants = seen.wants_renewal(present);
    assert_eq!(wants, wanted, "{extent:?}: {present} of {remembered}");
}

#[test]
fn a_renewal_is_wanted_once_much_is_gone() {
    check_wants_renewal(Extent::All, 0, 0, false);
    check_wants_renewal(Extent::All, 100, 0, false);
    check_wants_renewal(Extent::All, 101, 0, true);
    check_wants_renewal(Extent::All, 1000, 500, false);
    check_wants_renewal(Extent::All, 1001, 500, true);
    // Long before there are too many, if there is anything to be had by it.
    check_wants_renewal(Extent::All, 1500, 1000, false);
    check_wants_renewal(Extent::All, 1501, 1000, true);
    check_wants_renewal(Extent::All, 1501, 1450, false);
    // More than are remembered may be there, of other kinds.
    check_wants_renewal(Extent::All, 10, 1000, false);
    check_wants_renewal(Extent::Unknown, 0, 1400, true);
    check_wants_renewal(Extent::Unknown, 0, 1401, false);
    check_wants_renewal(Extent::Some, 1600, 0, false);
}
