//! What a bucket's failures come to.

use std::time::{Duration, Instant};

use super::proxy::{Concerned, Fault, FaultyProxy};
use super::server::Bucket;
use super::*;
use crate::PackingBlobStore;
use crate::object_store_blob_store::guarded::Limits;

/// Short, for tests that have to wait for them.
const LIMITS: Limits = Limits {
    answer: Duration::from_secs(5),
    stall: Duration::from_secs(3),
    complete: Duration::from_secs(5),
    sending_rate: 4 << 20,
    abort: Duration::from_secs(60),
    abandoned_after: Limits::DEFAULT.abandoned_after,
};
/// The longest that any one call may take that fails: four attempts and their waits, on a busy machine.
const BOUND: Duration = Duration::from_secs(60);
/// The longest that a store takes to be itself again.
const RECOVERY: Duration = Duration::from_secs(60);
/// A blob of one request, and one of two parts.
const SIZES: [usize; 2] = [10_000, (5 << 20) + 7];
/// How many checks go on at a time.
const CHECKS: usize = 8;

/// More often than anybody asks.
const ALWAYS: usize = usize::MAX;

struct Spoilt {
    bucket: Bucket,
    proxy: FaultyProxy,
    /// Through the proxy.
    store: VerifyingBlobStore,
    /// The truth.
    direct: ObjectStoreBlobStore,
}

impl Spoilt {
    async fn before(bucket: Bucket) -> Self {
        let proxy = FaultyProxy::before(bucket.address).await;
        let store = bucket.store_at(proxy.address(), LIMITS);
        Self {
            store: VerifyingBlobStore::new(Arc::new(store)),
            direct: bucket.store(),
            proxy,
            bucket,
        }
    }

    async fn read(&self, digest: &Digest) -> Result<Bytes, StoreError> {
        let begun = Instant::now();
        let read = read_all(&self.store, digest, u64::MAX).await;
        assert!(begun.elapsed() < BOUND, "{:?}", begun.elapsed());
        read
    }

    async fn put(&self, bytes: &Bytes) -> Result<Digest, StoreError> {
        let begun = Instant::now();
        let put = put_bytes(&self.store, bytes.clone()).await;
        assert!(begun.elapsed() < BOUND, "{:?}", begun.elapsed());
        put
    }

    /// Whether a blob is there; if it is, it is right.
    async fn is_there(&self, bytes: &Bytes) -> bool {
        let digest = Digest::of(bytes);
        match read_all(&self.direct, &digest, u64::MAX).await {
            Ok(read) => {
                assert!(read == *bytes, "a wrong blob is visible");
                true
            }
            Err(StoreError::NotFound { .. }) => false,
            Err(error) => panic!("{error}"),
        }
    }

    /// Waits until what was begun and came to nothing is gone.
    async fn expect_no_remains(&self) {
        let begun = Instant::now();
        while self.bucket.unfinished() > 0 {
            assert!(begun.elapsed() < RECOVERY, "parts of uploads are left");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Calls until it succeeds, as a client does that is told to come back.
    async fn recovered<T, Call>(&self, mut call: impl FnMut() -> Call) -> T
    where
        Call: Future<Output = Result<T, StoreError>>,
    {
        let begun = Instant::now();
        loop {
            match call().await {
                Ok(done) => return done,
                Err(StoreError::Unavailable { detail }) => {
                    assert!(begun.elapsed() < RECOVERY, "not back: {detail}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

fn blob(size: usize) -> Bytes {
    let seed = uuid::Uuid::new_v4();
    let bytes = (0..size).map(|at| seed.as_bytes()[at % 16] ^ at.to_le_bytes()[at / 16 % 3]);
    bytes.collect()
}

#[track_caller]
fn expect_unavailable<T: std::fmt::Debug>(what: &str, answer: Result<T, StoreError>) {
    let unavailable =
        matches!(&answer, Err(StoreError::Unavailable { detail }) if !detail.is_empty());
    assert!(unavailable, "{what}: {answer:?}");
}

const READS: Concerned = Concerned {
    method: "GET",
    path_has: "some/prefix",
};

/// Reads while the next reads are spoilt, while all are, and after.
async fn check_reads(bucket: Bucket, fault: Fault) {
    let spoilt = Spoilt::before(bucket).await;
    for size in SIZES {
        let what = format!("{fault:?}, {size} bytes");
        let bytes = blob(size);
        let digest = spoilt.put(&bytes).await.unwrap();
        spoilt.proxy.spoil(fault, READS, 2);
        if fault == Fault::CorruptAnswer {
            spoilt.proxy.spoil(fault, READS, 1);
            // Who reads has the wrong bytes already, and is told so.
            expect_unavailable(&what, spoilt.read(&digest).await);
        }
        let read = spoilt.read(&digest).await;
        assert!(read.unwrap_or_default() == bytes, "{what}: nobody notices");
        assert!(spoilt.proxy.applied() > 0, "{what}: nothing was spoilt");
        spoilt.proxy.heal();
        if fault != Fault::CorruptAnswer {
            spoilt.proxy.spoil(fault, READS, ALWAYS);
            expect_unavailable(&what, spoilt.read(&digest).await);
            spoilt.proxy.heal();
        }
        let read = spoilt.recovered(|| spoilt.read(&digest)).await;
        assert!(read == bytes, "{what}: it is back");
        assert!(spoilt.is_there(&bytes).await, "{what}: it stayed");
    }
}

/// Writes while the next requests of a kind are spoilt, while all are, and after.
async fn check_writes(bucket: Bucket, fault: Fault, size: usize, concerned: Concerned) {
    let spoilt = Spoilt::before(bucket).await;
    let what = format!("{fault:?} of {concerned:?}, {size} bytes");
    let bytes = blob(size);
    spoilt.proxy.spoil(fault, concerned, 2);
    let put = spoilt.put(&bytes).await;
    assert!(put.is_ok(), "{what}: {put:?}");
    assert!(spoilt.proxy.applied() > 0, "{what}: nothing was spoilt");
    spoilt.proxy.heal();
    assert!(spoilt.is_there(&bytes).await, "{what}");

    let bytes = blob(size);
    spoilt.proxy.spoil(fault, concerned, ALWAYS);
    expect_unavailable(&what, spoilt.put(&bytes).await);
    // What was done though nobody heard of it is whole.
    let there = spoilt.is_there(&bytes).await;
    assert!(!there || fault == Fault::LoseAnswer, "{what}");
    spoilt.proxy.heal();
    spoilt.recovered(|| spoilt.put(&bytes)).await;
    assert!(spoilt.is_there(&bytes).await, "{what}");
    // Nobody knows the name of an upload whose beginning was not heard of: the bucket's own rules remove it.
    let nameless = matches!(fault, Fault::LoseAnswer | Fault::Reset) && concerned == BEGINNING;
    if !nameless {
        spoilt.expect_no_remains().await;
    }
}

const FAULTS_OF_READS: [Fault; 7] = [
    Fault::Status(500),
    Fault::Status(503),
    Fault::Hang,
    Fault::Reset,
    Fault::HangInAnswer,
    Fault::CutAnswer,
    Fault::CorruptAnswer,
];

const FAULTS_OF_WRITES: [Fault; 6] = [
    Fault::Status(500),
    Fault::Status(503),
    Fault::Hang,
    Fault::Reset,
    Fault::LoseAnswer,
    Fault::CorruptRequest,
];

/// Of an upload in parts.
const BEGINNING: Concerned = Concerned {
    method: "POST",
    path_has: "?uploads",
};

/// A small blob's request; an upload's beginning, parts and completion.
const STEPS_OF_WRITES: [(usize, Concerned); 4] = [
    (
        SIZES[0],
        Concerned {
            method: "PUT",
            path_has: "some/prefix",
        },
    ),
    (SIZES[1], BEGINNING),
    (
        SIZES[1],
        Concerned {
            method: "PUT",
            path_has: "partNumber=2",
        },
    ),
    (
        SIZES[1],
        Concerned {
            method: "POST",
            path_has: "?uploadId=",
        },
    ),
];

/// Checks reads from a new bucket for each fault.
pub(super) async fn check_all_reads<New: Future<Output = Bucket>>(bucket: impl Fn() -> New) {
    let bucket = &bucket;
    let faults = futures::stream::iter(FAULTS_OF_READS);
    let check = |fault| async move { check_reads(bucket().await, fault).await };
    faults.for_each_concurrent(CHECKS, check).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_from_a_bucket_that_fails_are_right_or_fail_in_time() {
    check_all_reads(Bucket::in_directory).await;
}

/// Checks writes to a new bucket for each fault of each step.
pub(super) async fn check_all_writes<New: Future<Output = Bucket>>(bucket: impl Fn() -> New) {
    let bucket = &bucket;
    let all = FAULTS_OF_WRITES.into_iter();
    let all = all.flat_map(|fault| STEPS_OF_WRITES.map(|step| (fault, step)));
    let check = |(fault, (size, concerned)): (Fault, (usize, Concerned))| async move {
        let nothing_to_spoil = fault == Fault::CorruptRequest && concerned == BEGINNING;
        if !nothing_to_spoil {
            check_writes(bucket().await, fault, size, concerned).await;
        }
    };
    let all = futures::stream::iter(all);
    all.for_each_concurrent(CHECKS, check).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_to_a_bucket_that_fails_are_whole_or_nothing() {
    check_all_writes(Bucket::in_directory).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_crawls_arrives() {
    let spoilt = Spoilt::before(Bucket::in_directory().await).await;
    spoilt.proxy.spoil(Fault::Crawl, Concerned::ALL, ALWAYS);
    for size in SIZES {
        let bytes = blob(size);
        let digest = spoilt.put(&bytes).await.unwrap();
        assert!(spoilt.read(&digest).await.unwrap() == bytes);
    }
    assert!(spoilt.proxy.applied() > 0, "nothing was spoilt");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_away_is_told_of_at_once_and_found_again() {
    let spoilt = Spoilt::before(Bucket::in_directory().await).await;
    let digest = spoilt.put(&blob(10)).await.unwrap();
    spoilt
        .proxy
        .spoil(Fault::Status(503), Concerned::ALL, ALWAYS);
    let begun = Instant::now();
    let detail = loop {
        match spoilt.store.find_missing(&[digest]).await {
            Err(StoreError::Unavailable { detail }) if detail.contains("left alone") => {
                break detail;
            }
            answer => expect_unavailable("all is spoilt", answer),
        }
        assert!(begun.elapsed() < RECOVERY, "it is asked for ever");
    };
    assert!(
        detail.contains("503") && detail.contains("s3://blobs"),
        "{detail}"
    );
    spoilt.proxy.heal();
    let asked = [digest];
    let ask = || spoilt.store.find_missing(&asked);
    let missing = spoilt.recovered(ask).await;
    assert_eq!(missing, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_dropped_leaves_nothing_in_the_bucket() {
    let spoilt = Spoilt::before(Bucket::in_directory().await).await;
    let bytes = blob(SIZES[1]);
    let digest = Digest::of(&bytes);
    let (reached, at_end) = tokio::sync::oneshot::channel();
    let never = futures::stream::once(async move {
        reached.send(()).unwrap();
        std::future::pending().await
    });
    let body = stream_of(bytes.clone()).chain(never).boxed();
    tokio::select! {
        ended = spoilt.store.put(&digest, body) => panic!("the body has not ended: {ended:?}"),
        _ = at_end => {}
    }
    assert!(!spoilt.is_there(&bytes).await);
    spoilt.expect_no_remains().await;
}

/// How long what comes wrong counts as absent here.
const QUARANTINE: Duration = Duration::from_millis(500);

fn whole(objects: &ObjectStoreBlobStore) -> Arc<ObjectStoreBlobStore> {
    Arc::new(objects.below("whole").unwrap())
}

/// What is read from the bucket through the proxy by whoever packs small blobs, or by whoever does not.
fn verifying(objects: ObjectStoreBlobStore, is_packed: bool) -> VerifyingBlobStore {
    let store: Arc<dyn BlobStore> = match is_packed {
        true => {
            let packs = Arc::new(objects.below("packs").unwrap());
            Arc::new(PackingBlobStore::new(packs, whole(&objects), 1000))
        }
        false => whole(&objects),
    };
    VerifyingBlobStore::new(store).with_quarantine(QUARANTINE)
}

/// Reads, again and again, a blob that comes wrong so many times. Answers how many readers were told that it is.
async fn read_until_right(
    spoilt: &Spoilt,
    store: &VerifyingBlobStore,
    bytes: &Bytes,
    wrong_times: usize,
) -> usize {
    let (digest, begun) = (Digest::of(bytes), Instant::now());
    spoilt.proxy.spoil(Fault::CorruptAnswer, READS, wrong_times);
    let mut told_wrong = 0;
    loop {
        match read_all(store, &digest, u64::MAX).await {
            Ok(read) => {
                assert!(read == *bytes, "nobody notices");
                return told_wrong;
            }
            Err(StoreError::Corrupt { .. }) => told_wrong += 1,
            Err(StoreError::Unavailable { .. }) => {}
            Err(StoreError::NotFound { .. }) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => panic!("{error}"),
        }
        assert!(begun.elapsed() < RECOVERY, "it is absent for ever");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_wrong_from_a_bucket_again_and_again_is_not_lost() {
    let spoilt = Spoilt::before(Bucket::in_directory().await).await;
    let open = |address, is_packed| {
        let objects = spoilt.bucket.store_at(address, LIMITS);
        verifying(objects, is_packed)
    };
    for (size, is_packed) in [(SIZES[0], false), (SIZES[1], false), (SIZES[0], true)] {
        let store = open(spoilt.proxy.address(), is_packed);
        for wrong_times in [1, 2, 3, 4, 9] {
            let what = format!("{size} bytes, packed: {is_packed}, wrong {wrong_times} times");
            let bytes = blob(size);
            put_bytes(&store, bytes.clone()).await.unwrap();
            let told = read_until_right(&spoilt, &store, &bytes, wrong_times).await;
            assert_eq!(spoilt.proxy.applied(), wrong_times, "{what}");
            // Who packs reads once more itself.
            let enough = if is_packed { 3 } else { 2 };
            assert_eq!(told > 0, wrong_times >= enough, "{what}");
            // Whoever has another way to the bucket has it, too.
            let direct = open(spoilt.bucket.address, is_packed);
            let read = read_all(&direct, &Digest::of(&bytes), u64::MAX).await;
            assert!(read.unwrap() == bytes, "{what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stored_wrong_in_a_bucket_is_absent_until_it_is_uploaded_again() {
    let bucket = Bucket::in_directory().await;
    let [bytes, wrong] = [blob(SIZES[0]), blob(SIZES[0])];
    let digest = Digest::of(&bytes);
    for is_packed in [false, true] {
        let objects = whole(&bucket.store());
        let put = objects.put(&digest, stream_of(wrong.clone()));
        put.await.unwrap();
        let store = verifying(bucket.store(), is_packed);
        let begun = Instant::now();
        while store.find_missing(&[digest]).await.unwrap().is_empty() {
            let read = read_all(&store, &digest, u64::MAX).await;
            let is_told = matches!(
                read,
                Err(StoreError::Corrupt { .. } | StoreError::NotFound { .. })
            );
            assert!(is_told, "{read:?}");
            assert!(begun.elapsed() < RECOVERY);
        }
        put_bytes(&store, bytes.clone()).await.unwrap();
        assert_eq!(store.find_missing(&[digest]).await.unwrap(), []);
        let read = read_all(&store, &digest, u64::MAX).await;
        assert!(read.unwrap() == bytes);
        objects.delete(&digest).await.unwrap();
    }
}
