use bytes::Bytes;
use regatta_wire::reapi::FastCdc2020Params;
use tonic::Code;

use super::*;
use crate::grpc_blob_store::test_server::{TestServer, start};
use crate::{BlobStore as _, put_bytes, read_all, stream_of};

const RECOMMENDED: FastCdc2020Params = FastCdc2020Params {
    avg_chunk_size_bytes: 512 << 10,
    seed: 0,
};

async fn connected(cutting: Option<FastCdc2020Params>) -> (Arc<TestServer>, GrpcBlobStore) {
    let (server, channel) = start().await;
    *server.cutting.lock().unwrap() = cutting;
    (server, GrpcBlobStore::new(channel, "tenant"))
}

fn noise(length: u64) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(next).collect()
}

/// A blob, and another one that has most of it.
fn versions() -> [Bytes; 2] {
    let before = noise(2 * CHUNKED_FROM_BYTES);
    let mut after = before.clone();
    after.splice(5_000_000..5_000_000, *b"some bytes more");
    [before.into(), after.into()]
}

/// How many bytes of blobs the server receives when it is brought a blob.
async fn bytes_received(server: &TestServer, store: &GrpcBlobStore, blob: &Bytes) -> usize {
    let before = server.received_bytes.load(Ordering::SeqCst);
    let digest = put_bytes(store, blob.clone()).await.unwrap();
    assert!(read_all(&server.blobs, &digest, u64::MAX).await.unwrap() == *blob);
    server.received_bytes.load(Ordering::SeqCst) - before
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_blob_that_changed_a_little_only_a_little_is_sent() {
    let (server, store) = connected(Some(RECOMMENDED)).await;
    let [before, after] = versions();
    assert_eq!(bytes_received(&server, &store, &before).await, before.len());
    let received = bytes_received(&server, &store, &after).await;
    assert!(received <= 4 << 20, "{received} bytes");
    assert_eq!(server.splices.load(Ordering::SeqCst), 2);
    // What is there is not sent, with or without its chunks.
    let whole = Bytes::from(noise(CHUNKED_FROM_BYTES + 1));
    put_bytes(&server.blobs, whole.clone()).await.unwrap();
    for blob in [after, whole] {
        assert_eq!(bytes_received(&server, &store, &blob).await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn passing_failures_are_survived() {
    let (server, store) = connected(Some(RECOMMENDED)).await;
    server.failures.store(3, Ordering::SeqCst);
    let [blob, _] = versions();
    bytes_received(&server, &store, &blob).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_offers_nothing_usable_is_sent_whole_blobs() {
    let odd = FastCdc2020Params {
        avg_chunk_size_bytes: 600_000,
        seed: 0,
    };
    for cutting in [None, Some(odd)] {
        let (server, store) = connected(cutting).await;
        for blob in versions() {
            assert_eq!(bytes_received(&server, &store, &blob).await, blob.len());
        }
        assert_eq!(server.splices.load(Ordering::SeqCst), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn small_blobs_are_not_cut() {
    let (server, store) = connected(Some(RECOMMENDED)).await;
    let blob = Bytes::from(noise(CHUNKED_FROM_BYTES - 1));
    bytes_received(&server, &store, &blob).await;
    assert_eq!(server.splices.load(Ordering::SeqCst), 0);
    assert!(!store.chunking.offered.initialized());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_what_it_offers_is_sent_whole_blobs() {
    for code in [Code::Unimplemented, Code::InvalidArgument] {
        let (server, store) = connected(Some(RECOMMENDED)).await;
        *server.splice_failure.lock().unwrap() = Some(code);
        let [before, after] = versions();
        let received = bytes_received(&server, &store, &before).await;
        assert_eq!(received, 2 * before.len(), "{code}: as chunks and whole");
        let received = bytes_received(&server, &store, &after).await;
        assert_eq!(received, after.len(), "{code}: it is not asked again");
        assert_eq!(server.splices.load(Ordering::SeqCst), 1, "{code}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_that_vanish_are_worth_another_attempt() {
    let (server, store) = connected(Some(RECOMMENDED)).await;
    *server.splice_failure.lock().unwrap() = Some(Code::NotFound);
    let [blob, _] = versions();
    let refused = put_bytes(&store, blob.clone()).await;
    let Err(StoreError::Unavailable { detail }) = refused else {
        panic!("{refused:?}")
    };
    assert!(detail.contains("vanished"), "{detail}");
    *server.splice_failure.lock().unwrap() = None;
    bytes_received(&server, &store, &blob).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_blob_than_promised_becomes_none() {
    let (server, store) = connected(Some(RECOMMENDED)).await;
    let [promised, sent] = versions();
    let digest = Digest::of(&promised);
    let refused = store.put(&digest, stream_of(sent)).await;
    assert!(
        matches!(refused, Err(StoreError::Corrupt { .. })),
        "{refused:?}"
    );
    assert_eq!(server.splices.load(Ordering::SeqCst), 0);
    assert_eq!(
        server.blobs.find_missing(&[digest]).await.unwrap(),
        [digest]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_somebody_else_brings_meanwhile_is_there() {
    let (server, store) = connected(Some(RECOMMENDED)).await;
    *server.splice_failure.lock().unwrap() = Some(Code::AlreadyExists);
    let [blob, _] = versions();
    put_bytes(&store, blob).await.unwrap();
}
