use std::sync::atomic::Ordering;

use super::retry::MAX_ATTEMPTS;
use super::test_server::{TestServer, start};
use super::*;
use crate::{conformance, put_bytes, read_all};

async fn connected() -> (Arc<TestServer>, GrpcBlobStore) {
    let (server, channel) = start().await;
    (server, GrpcBlobStore::new(channel, "tenant"))
}

#[tokio::test(flavor = "multi_thread")]
async fn it_conforms() {
    let (_server, store) = connected().await;
    let store = Arc::new(store);
    conformance::check_content_addressed(store.clone()).await;
    conformance::check_streaming(store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn small_blobs_share_requests() {
    let (server, store) = connected().await;
    let blobs: Vec<Bytes> = (0..1000u32)
        .map(|at| at.to_le_bytes().to_vec().into())
        .collect();
    let puts = blobs.iter().map(|blob| put_bytes(&store, blob.clone()));
    let digests = futures::future::try_join_all(puts).await.unwrap();
    let after_puts = server.calls.swap(0, Ordering::SeqCst);
    assert!(after_puts < 50, "{after_puts} calls for 1000 puts");
    let gets = digests.iter().map(|digest| read_all(&store, digest, 10));
    let read = futures::future::try_join_all(gets).await.unwrap();
    assert_eq!(read, blobs);
    let after_gets = server.calls.load(Ordering::SeqCst);
    assert!(after_gets < 50, "{after_gets} calls for 1000 gets");
}

#[tokio::test(flavor = "multi_thread")]
async fn passing_failures_are_survived_and_large_blobs_go_on_where_they_were() {
    let large = Bytes::from(vec![5; 6 << 20]);
    for blob in [Bytes::from_static(b"small"), large] {
        let (server, store) = connected().await;
        server.failures.store(3, Ordering::SeqCst);
        let digest = put_bytes(&store, blob.clone()).await.unwrap();
        server.failures.store(3, Ordering::SeqCst);
        assert!(read_all(&store, &digest, u64::MAX).await.unwrap() == blob);
        server.failures.store(3, Ordering::SeqCst);
        assert_eq!(store.find_missing(&[digest]).await.unwrap(), []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_batch_only_what_failed_is_sent_again() {
    let (server, store) = connected().await;
    let blobs: Vec<Bytes> = (0..100u32)
        .map(|at| at.to_le_bytes().to_vec().into())
        .collect();
    let digests: Vec<Digest> = blobs.iter().map(|blob| Digest::of(blob)).collect();
    let fail = |times| {
        let failing = digests.iter().take(3).map(|digest| (*digest, times));
        *server.blob_failures.lock().unwrap() = failing.collect();
    };
    fail(2);
    let puts = blobs.iter().map(|blob| put_bytes(&store, blob.clone()));
    futures::future::try_join_all(puts).await.unwrap();
    assert_eq!(
        server.blobs_in_batches.swap(0, Ordering::SeqCst),
        100 + 2 * 3
    );
    fail(2);
    let gets = digests.iter().map(|digest| read_all(&store, digest, 10));
    assert_eq!(futures::future::try_join_all(gets).await.unwrap(), blobs);
    assert_eq!(server.blobs_in_batches.load(Ordering::SeqCst), 100 + 2 * 3);
    fail(usize::MAX);
    let refused = read_all(&store, &digests[0], 10).await;
    assert!(
        matches!(refused, Err(StoreError::Unavailable { .. })),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_that_do_not_pass_come_back() {
    let (server, store) = connected().await;
    for size in [10, 3 << 20] {
        server.failures.store(usize::MAX, Ordering::SeqCst);
        let before = server.calls.load(Ordering::SeqCst);
        let refused = put_bytes(&store, Bytes::from(vec![1; size])).await;
        assert!(
            matches!(refused, Err(StoreError::Unavailable { .. })),
            "{refused:?}"
        );
        let calls = server.calls.load(Ordering::SeqCst) - before;
        assert_eq!(u32::try_from(calls).unwrap(), MAX_ATTEMPTS);
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable() {
    let channel = tonic::transport::Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
    let store = GrpcBlobStore::new(channel, "");
    let refused = store.find_missing(&[Digest::of(b"x")]).await;
    assert!(
        matches!(refused, Err(StoreError::Unavailable { .. })),
        "{refused:?}"
    );
}

/// Time passes by itself whenever nothing else happens: whatever waits for the server ends, or hangs.
#[tokio::test(start_paused = true)]
async fn a_server_that_falls_silent_is_unavailable() {
    let (server, store) = connected().await;
    for size in [10, 3 << 20] {
        let blob = Bytes::from(vec![1; size]);
        let digest = put_bytes(&server.blobs, blob.clone()).await.unwrap();
        server.silent.store(true, Ordering::SeqCst);
        let put = put_bytes(&store, blob).await.map(drop);
        let got = read_all(&store, &digest, u64::MAX).await.map(drop);
        let asked = store.find_missing(&[digest]).await.map(drop);
        for answer in [put, got, asked] {
            assert!(
                matches!(answer, Err(StoreError::Unavailable { .. })),
                "{answer:?}"
            );
        }
    }
}
