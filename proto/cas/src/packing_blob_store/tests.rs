mod crashes;
mod faulty_store;
mod sharing;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future;

use self::faulty_store::{Fault, FaultyStore};
use super::*;
use crate::{
    MemoryBlobStore, ObjectStoreBlobStore, VerifyingBlobStore, conformance, put_bytes, read_all,
};

const CAPACITY: usize = 1000;

/// Limits that a few blobs reach.
const SMALL: Limits = Limits {
    max_value_bytes: 8,
    max_pack_bytes: 32,
    max_records: 8,
    merged_packs: 3,
    neighbours_bytes: 60,
    ..Limits::DEFAULT
};

/// A bucket that outlives those who use it.
#[derive(Clone)]
struct Bucket {
    packs: Arc<FaultyStore>,
    whole: Arc<MemoryBlobStore>,
}

impl Bucket {
    fn new() -> Self {
        Self {
            packs: Arc::new(FaultyStore::new()),
            whole: Arc::new(MemoryBlobStore::new()),
        }
    }

    fn open(&self, keys: Keys, limits: Limits) -> PackingBlobStore {
        let (packs, whole) = (self.packs.clone(), self.whole.clone());
        PackingBlobStore::with_limits(packs, whole, CAPACITY, keys, limits)
    }

    async fn pack_count(&self) -> usize {
        let names: Vec<Digest> = self.packs.list().try_collect().await.unwrap();
        names.len()
    }
}

async fn put_all(store: &PackingBlobStore, values: &[Bytes]) -> Vec<Digest> {
    let puts = values.iter().map(|value| put_bytes(store, value.clone()));
    future::try_join_all(puts).await.unwrap()
}

fn values(count: u32) -> Vec<Bytes> {
    let values = (0..count).map(|at| Bytes::copy_from_slice(&at.to_le_bytes()));
    values.collect()
}

async fn all_listed(store: &PackingBlobStore) -> Vec<Digest> {
    let mut listed: Vec<Digest> = store.list().try_collect().await.unwrap();
    listed.sort_unstable();
    listed
}

// The suite yields until something happens, which paused time never does.
#[tokio::test]
async fn it_conforms() {
    let bucket = Bucket::new();
    let keyed = Arc::new(bucket.open(Keys::Nothing, Limits::DEFAULT));
    conformance::check_keyed(keyed.clone()).await;
    conformance::check_held_in_memory(keyed).await;
    let hasty = Limits {
        listing_interval: Duration::from_millis(1),
        ..Limits::DEFAULT
    };
    let store = Bucket::new().open(Keys::Sizes, hasty);
    let verified = VerifyingBlobStore::new(Arc::new(store));
    conformance::check_content_addressed(Arc::new(verified)).await;
}

#[tokio::test]
async fn it_conforms_in_an_object_store_and_with_other_limits() {
    let objects = || Arc::new(ObjectStoreBlobStore::open("memory://").unwrap());
    // Between the sizes of what the suite writes: what is small becomes large, and back.
    let limits = Limits {
        max_value_bytes: 600,
        max_pack_bytes: 2000,
        merged_packs: 3,
        ..Limits::DEFAULT
    };
    let store =
        PackingBlobStore::with_limits(objects(), objects(), CAPACITY, Keys::Nothing, limits);
    conformance::check_keyed(Arc::new(store)).await;
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_small_blobs_cost_a_few_writes_and_no_questions() {
    let bucket = Bucket::new();
    let store = bucket.open(Keys::Sizes, Limits::DEFAULT);
    let values = values(10_000);
    let digests: Vec<Digest> = values.iter().map(|value| Digest::of(value)).collect();
    assert_eq!(store.find_missing(&digests).await.unwrap(), digests);
    put_all(&store, &values).await;
    assert_eq!(store.find_missing(&digests).await.unwrap(), []);
    let asked = bucket.packs.asked();
    assert_eq!((asked.puts, asked.gets), (10, 0));
    assert!(asked.lists <= 2, "{asked:?}");
    assert_eq!(bucket.pack_count().await, 10);
}

/// A store in which things may be forgotten while this says so.
fn forgetting_while(bucket: &Bucket, may: &Arc<AtomicBool>) -> PackingBlobStore {
    let may = Arc::clone(may);
    let deletions = Deletions::allowed_while(move || may.load(Ordering::Relaxed));
    bucket.open(Keys::Sizes, SMALL).with_deletions(deletions)
}

#[tokio::test(start_paused = true)]
async fn nothing_is_forgotten_once_it_is_not_allowed_and_what_is_stored_meanwhile_is_there() {
    let bucket = Bucket::new();
    let may = Arc::new(AtomicBool::new(true));
    let store = forgetting_while(&bucket, &may);
    let stored = put_all(&store, &values(3)).await;
    store.delete(&stored[0]).await.unwrap();
    bucket.packs.fail_next_change(Fault::Hangs);
    let forbidden = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        may.store(false, Ordering::Relaxed);
    };
    let deleting = future::join3(
        store.delete(&stored[1]),
        put_bytes(&store, Bytes::from_static(b"new")),
        forbidden,
    );
    let ended = tokio::time::timeout(Duration::from_secs(60), deleting).await;
    let (deleted, new, ()) = ended.expect("what hangs is given up");
    assert!(deleted.is_err());
    // It does not begin either.
    assert!(store.delete(&stored[2]).await.is_err());
    let known = [stored[0], stored[1], stored[2], new.unwrap()];
    for store in [&store, &bucket.open(Keys::Sizes, SMALL)] {
        assert_eq!(store.find_missing(&known).await.unwrap(), [stored[0]]);
    }
    may.store(true, Ordering::Relaxed);
    store.delete(&stored[1]).await.unwrap();
    let missing = store.find_missing(&known).await.unwrap();
    assert_eq!(missing, stored[..2]);
}

#[tokio::test(start_paused = true)]
async fn who_only_looks_rewrites_nothing() {
    let bucket = Bucket::new();
    let looking = || bucket.open(Keys::Sizes, SMALL).without_upkeep();
    let store = looking();
    let values = values(9);
    for value in &values {
        put_bytes(&store, value.clone()).await.unwrap();
    }
    let packs = bucket.pack_count().await;
    assert_eq!(packs, 9);
    let store = looking();
    let digests = all_listed(&store).await;
    for digest in &digests {
        read_all(&store, digest, 100).await.unwrap();
    }
    let upkeep_would_have = Duration::from_secs(60);
    tokio::time::sleep(upkeep_would_have).await;
    assert_eq!(bucket.pack_count().await, packs);
    // As it would have.
    let store = bucket.open(Keys::Sizes, SMALL);
    assert_eq!(all_listed(&store).await, digests);
    tokio::time::sleep(upkeep_would_have).await;
    assert!(bucket.pack_count().await < packs);
}

#[tokio::test(start_paused = true)]
async fn what_was_written_together_is_read_together() {
    let bucket = Bucket::new();
    let blobs: Vec<Bytes> = (0..100u8)
        .map(|at| Bytes::from(vec![at; 1000 + 600 * usize::from(at)]))
        .collect();
    let digests = put_all(&bucket.open(Keys::Sizes, Limits::DEFAULT), &blobs).await;
    let again = bucket.open(Keys::Sizes, Limits::DEFAULT);
    again.find_missing(&digests).await.unwrap();
    let gets_before = bucket.packs.asked().gets;
    let reads = digests.iter().zip(&blobs).map(async |(digest, blob)| {
        assert_eq!(read_all(&again, digest, u64::MAX).await.unwrap(), blob);
    });
    future::join_all(reads).await;
    let gets = bucket.packs.asked().gets - gets_before;
    assert!(gets < digests.len() / 3, "{gets} requests");
}

#[tokio::test(start_paused = true)]
async fn a_write_that_comes_alone_waits_for_others_no_longer_than_it_must() {
    let store = Bucket::new().open(Keys::Sizes, Limits::DEFAULT);
    let begun = tokio::time::Instant::now();
    for value in values(3) {
        put_bytes(&store, value).await.unwrap();
    }
    assert_eq!(begun.elapsed(), 3 * Limits::DEFAULT.linger);
}

#[tokio::test(start_paused = true)]
async fn what_is_packed_outlives_the_process_and_is_listed() {
    let bucket = Bucket::new();
    let large = Bytes::from_static(b"larger than eight");
    let mut digests = {
        let store = bucket.open(Keys::Sizes, SMALL);
        let mut digests = put_all(&store, &values(20)).await;
        digests.push(put_bytes(&store, large).await.unwrap());
        store.delete(&digests[0]).await.unwrap();
        digests.remove(0);
        digests
    };
    digests.sort_unstable();
    let again = bucket.open(Keys::Sizes, SMALL);
    assert_eq!(again.find_missing(&digests).await.unwrap(), []);
    assert_eq!(all_listed(&again).await, digests);
    for digest in &digests {
        let read = read_all(&again, digest, 100).await.unwrap();
        assert_eq!(Digest::of(&read), *digest);
    }
}

#[tokio::test(start_paused = true)]
async fn blobs_from_before_there_were_packs_are_found_and_can_be_deleted() {
    let bucket = Bucket::new();
    let small = Bytes::from_static(b"small");
    let digest = put_bytes(bucket.whole.as_ref(), small.clone())
        .await
        .unwrap();
    let store = bucket.open(Keys::Sizes, SMALL);
    assert_eq!(read_all(&store, &digest, 100).await.unwrap(), small);
    assert_eq!(store.find_missing(&[digest]).await.unwrap(), []);
    put_bytes(&store, small).await.unwrap();
    assert_eq!(all_listed(&store).await, [digest], "listed once");
    store.delete(&digest).await.unwrap();
    assert_eq!(store.find_missing(&[digest]).await.unwrap(), [digest]);
    let again = bucket.open(Keys::Sizes, SMALL);
    assert_eq!(again.find_missing(&[digest]).await.unwrap(), [digest]);
}

#[tokio::test(start_paused = true)]
async fn a_pack_that_cannot_be_written_fails_those_in_it_alone() {
    let bucket = Bucket::new();
    let store = bucket.open(Keys::Sizes, SMALL);
    let before = put_all(&store, &values(1)).await[0];
    bucket.packs.fail_next_change(Fault::Lost);
    let puts = values(9).into_iter().skip(1);
    let refused = future::join_all(puts.map(|value| put_bytes(&store, value))).await;
    for refused in &refused {
        assert!(
            matches!(refused, Err(StoreError::Unavailable { .. })),
            "{refused:?}"
        );
    }
    assert_eq!(store.find_missing(&[before]).await.unwrap(), []);
    let after = put_all(&store, &values(9)).await;
    assert_eq!(store.find_missing(&after).await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn what_was_stored_without_an_answer_can_be_deleted() {
    let bucket = Bucket::new();
    let store = bucket.open(Keys::Nothing, SMALL);
    bucket.packs.fail_next_change(Fault::AnswerLost);
    let digest = Digest::of(b"x");
    put_bytes(&store, Bytes::from_static(b"x"))
        .await
        .unwrap_err();
    store.delete(&digest).await.unwrap();
    tokio::time::advance(SMALL.max_age * 2).await;
    assert_eq!(store.find_missing(&[digest]).await.unwrap(), [digest]);
    let again = bucket.open(Keys::Nothing, SMALL);
    assert_eq!(again.find_missing(&[digest]).await.unwrap(), [digest]);
}

/// Writes packs, spoils one of them, and says of which blobs.
async fn check_refused(spoil: impl FnOnce(&FaultyStore, Digest, Vec<u8>) -> (Digest, Vec<u8>)) {
    let bucket = Bucket::new();
    let (spoilt, kept) = {
        let store = bucket.open(Keys::Sizes, SMALL);
        let spoilt = put_all(&store, &values(2)).await;
        let name: Vec<Digest> = bucket.packs.list().try_collect().await.unwrap();
        let kept = put_bytes(&store, Bytes::from_static(b"kept"))
            .await
            .unwrap();
        let bytes = read_all(bucket.packs.as_ref(), &name[0], 10_000)
            .await
            .unwrap();
        let (renamed, bytes) = spoil(&bucket.packs, name[0], bytes.to_vec());
        bucket.packs.delete(&name[0]).await.unwrap();
        let put = bucket.packs.put(&renamed, stream_of(bytes.into())).await;
        put.unwrap();
        (spoilt, kept)
    };
    let store = bucket.open(Keys::Sizes, SMALL);
    assert_eq!(store.find_missing(&spoilt).await.unwrap(), spoilt);
    for digest in &spoilt {
        let read = read_all(&store, digest, 100).await;
        assert!(matches!(read, Err(StoreError::NotFound { .. })), "{read:?}");
    }
    assert_eq!(read_all(&store, &kept, 100).await.unwrap(), "kept");
    put_all(&store, &values(2)).await;
    assert_eq!(store.find_missing(&spoilt).await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn a_pack_that_lies_is_refused_and_its_blobs_are_absent() {
    check_refused(|_, name, mut bytes| {
        let at = bytes.len() - 60;
        bytes[at] ^= 1;
        (name, bytes)
    })
    .await;
    check_refused(|_, name, bytes| (name, bytes[..bytes.len() - 1].to_vec())).await;
    check_refused(|_, name, _| (name, Vec::new())).await;
    check_refused(|_, _, bytes| {
        let shorter = bytes[1..].to_vec();
        (Digest::of(&shorter), shorter)
    })
    .await;
    check_refused(|_, _, mut bytes| {
        let at = bytes.len() - 12;
        bytes[at] = 99;
        (Digest::of(&bytes), bytes)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_is_spoilt_on_its_way_is_not_lost() {
    let bucket = Bucket::new();
    let digests = put_all(&bucket.open(Keys::Sizes, Limits::DEFAULT), &values(100)).await;
    let open = || bucket.open(Keys::Sizes, Limits::DEFAULT);
    let store = VerifyingBlobStore::new(Arc::new(open()));
    assert_eq!(store.find_missing(&digests).await.unwrap(), []);
    bucket.packs.spoil_next_read();
    for digest in &digests {
        let read = read_all(&store, digest, 100).await.unwrap();
        assert_eq!(Digest::of(&read), *digest);
    }
    let store = open();
    bucket.packs.spoil_next_read();
    assert_eq!(store.find_missing(&digests).await.unwrap(), digests);
    tokio::time::advance(2 * Limits::DEFAULT.max_age).await;
    assert_eq!(store.find_missing(&digests).await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn packs_that_go_away_take_their_blobs_along() {
    let bucket = Bucket::new();
    let store = bucket.open(Keys::Sizes, SMALL);
    let digests = put_all(&store, &values(2)).await;
    let names: Vec<Digest> = bucket.packs.list().try_collect().await.unwrap();
    bucket.packs.delete(&names[0]).await.unwrap();
    let read = read_all(&store, &digests[0], 100).await;
    assert!(matches!(read, Err(StoreError::NotFound { .. })), "{read:?}");
    assert_eq!(store.find_missing(&digests).await.unwrap(), digests);
}

#[tokio::test(start_paused = true)]
async fn small_packs_are_put_together_and_dead_ones_go() {
    let bucket = Bucket::new();
    let store = bucket.open(Keys::Sizes, Limits::DEFAULT);
    let mut digests = Vec::new();
    for value in values(100) {
        digests.push(put_bytes(&store, value).await.unwrap());
    }
    store.packs.keep_up().await.unwrap();
    let count = bucket.pack_count().await;
    assert!(
        count < Limits::DEFAULT.merged_packs,
        "{count} packs are left"
    );
    assert_eq!(store.find_missing(&digests).await.unwrap(), []);
    let again = bucket.open(Keys::Sizes, Limits::DEFAULT);
    for digest in &digests {
        read_all(&again, digest, 100).await.unwrap();
    }
    let deletes = digests.iter().map(|digest| again.delete(digest));
    future::try_join_all(deletes).await.unwrap();
    assert_eq!(all_listed(&again).await, []);
    let third = bucket.open(Keys::Sizes, Limits::DEFAULT);
    assert_eq!(third.find_missing(&digests).await.unwrap(), digests);
}

#[tokio::test(start_paused = true)]
async fn what_was_forgotten_long_ago_leaves_nothing() {
    let bucket = Bucket::new();
    let limits = Limits {
        forgotten_for: Duration::ZERO,
        ..SMALL
    };
    let store = bucket.open(Keys::Sizes, limits);
    for _ in 0..4 {
        let digests = put_all(&store, &values(8)).await;
        let deletes = digests.iter().map(|digest| store.delete(digest));
        future::try_join_all(deletes).await.unwrap();
    }
    store.packs.keep_up().await.unwrap();
    assert_eq!(bucket.pack_count().await, 0);
}
