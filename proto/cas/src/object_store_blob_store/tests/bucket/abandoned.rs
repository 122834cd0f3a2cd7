//! Uploads that their writers leave.

use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use super::server::Bucket;
use super::*;
use crate::Deletions;
use crate::object_store_blob_store::guarded::Limits;

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(60);
/// Of two parts and a rest.
const SIZE: usize = (10 << 20) + 7;
const HOUR: Duration = Duration::from_secs(60 * 60);

/// Aborts what nobody has said anything of for so long.
async fn abort(bucket: &Bucket, abandoned_after: Duration) -> u64 {
    let limits = Limits {
        abandoned_after,
        ..Limits::DEFAULT
    };
    let uploads = bucket.store_at(bucket.address, limits).abandoned_uploads();
    let uploads = uploads.expect("is a bucket");
    uploads.abort(&Deletions::default()).await.unwrap()
}

/// A body that comes in two halves: after the first, `reached` is told, and `go` is waited for.
fn halting(bytes: &Bytes) -> (BlobStream, oneshot::Receiver<()>, oneshot::Sender<()>) {
    let (reached, at_half) = oneshot::channel();
    let (go, gone_on) = oneshot::channel::<()>();
    let (first, rest) = (bytes.slice(..SIZE - 1), bytes.slice(SIZE - 1..));
    let rest = futures::stream::once(async move {
        reached.send(()).unwrap();
        gone_on.await.unwrap();
        Ok(rest)
    });
    (stream_of(first).chain(rest).boxed(), at_half, go)
}

fn blob() -> Bytes {
    let seed = uuid::Uuid::new_v4();
    seed.as_bytes().iter().copied().cycle().take(SIZE).collect()
}

/// Waits until the parts that can be sent are in the bucket, as far as that can be seen.
async fn until_sent(bucket: &Bucket) {
    let begun = Instant::now();
    while bucket.markers().await.is_empty() || bucket.arrived_parts().is_some_and(|it| it < 2) {
        assert!(begun.elapsed() < PATIENCE, "no upload has begun");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Begins an upload, and is killed in the middle of it: nothing that it would do at its end happens.
async fn leave_an_upload(bucket: &Bucket, bytes: &Bytes) {
    let (body, at_half, go) = halting(bytes);
    let (store, digest) = (bucket.store(), Digest::of(bytes));
    let writer = Runtime::new().unwrap();
    writer.spawn(async move { store.put(&digest, body).await });
    at_half.await.unwrap();
    until_sent(bucket).await;
    writer.shutdown_background();
    // What it waited for never comes.
    std::mem::forget(go);
}

/// Waits until there are only so many markers: one goes after its upload has ended.
async fn until_marked(bucket: &Bucket, count: usize) {
    let begun = Instant::now();
    while bucket.markers().await.len() != count {
        assert!(begun.elapsed() < PATIENCE, "a marker stays");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(super) async fn check_killed_writer(bucket: &Bucket) {
    let bytes = blob();
    leave_an_upload(bucket, &bytes).await;
    // Whoever else uploads is not in its way.
    let other = put_bytes(&bucket.store(), blob()).await.unwrap();
    until_marked(bucket, 1).await;
    assert_eq!(abort(bucket, HOUR).await, 0, "it may be somebody's");
    assert_eq!(bucket.markers().await.len(), 1);
    assert_eq!(abort(bucket, Duration::ZERO).await, 1);
    assert_eq!(bucket.unfinished(), 0, "its parts are gone");
    assert_eq!(bucket.markers().await, [""; 0]);
    assert_eq!(abort(bucket, Duration::ZERO).await, 0);
    let store = bucket.store();
    let digests = [Digest::of(&bytes), other];
    let missing = store.find_missing(&digests).await.unwrap();
    assert_eq!(missing, digests[..1], "what was completed is there");
    put_bytes(&store, bytes).await.unwrap();
    assert_eq!(store.find_missing(&digests).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_writer_leaves_is_aborted() {
    check_killed_writer(&Bucket::in_directory().await).await;
}

pub(super) async fn check_aborted_writer(bucket: &Bucket) {
    let bytes = blob();
    let (body, at_half, go) = halting(&bytes);
    let (store, digest) = (Arc::new(bucket.store()), Digest::of(&bytes));
    let writer = Arc::clone(&store);
    let writing = tokio::spawn(async move { writer.put(&digest, body).await });
    at_half.await.unwrap();
    until_sent(bucket).await;
    assert_eq!(abort(bucket, Duration::ZERO).await, 1);
    go.send(()).unwrap();
    let written = writing.await.unwrap();
    assert!(
        matches!(written, Err(StoreError::Unavailable { .. })),
        "{written:?}"
    );
    let missing = store.find_missing(&[digest]).await.unwrap();
    assert_eq!(missing, [digest], "half a blob is none");
    put_bytes(store.as_ref(), bytes.clone()).await.unwrap();
    let read = read_all(store.as_ref(), &digest, u64::MAX).await;
    assert!(read.unwrap() == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_whose_upload_was_aborted_is_told_to_begin_again() {
    check_aborted_writer(&Bucket::in_directory().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn how_old_a_marker_is_the_bucket_says() {
    let bucket = Bucket::in_directory().await;
    leave_an_upload(&bucket, &blob()).await;
    let day = Limits::DEFAULT.abandoned_after;
    bucket.age_markers(day - HOUR);
    assert_eq!(abort(&bucket, day).await, 0);
    bucket.age_markers(HOUR);
    assert_eq!(abort(&bucket, day).await, 1);
    assert_eq!(bucket.unfinished(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_ends_leaves_no_marker() {
    let bucket = Bucket::in_directory().await;
    put_bytes(&bucket.store(), blob()).await.unwrap();
    until_marked(&bucket, 0).await;
}
