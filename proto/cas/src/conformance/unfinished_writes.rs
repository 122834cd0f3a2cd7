//! What is seen of a write that has not ended, or never ends.

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt as _, future, stream};

use super::{Store, assert_absent, blob, get, put};
use crate::{BlobStream, StoreError, stream_of};

/// The first half of a blob, and nothing after it yet.
fn half(bytes: &Bytes) -> BlobStream {
    stream_of(bytes.slice(..bytes.len() / 2))
}

pub(super) async fn check_a_failing_body_leaves_nothing(store: &Store, size: usize) {
    let (digest, bytes) = blob(size);
    let failure = StoreError::Unavailable {
        detail: "the body broke".to_owned(),
    };
    let body = half(&bytes).chain(stream::iter([Err(failure)])).boxed();
    let refused = store.put(&digest, body).await;
    let passed_on = matches!(
        &refused,
        Err(StoreError::Unavailable { detail }) if detail == "the body broke"
    );
    assert!(passed_on, "the error of the body comes back: {refused:?}");
    assert_absent(store, &digest).await;
}

pub(super) async fn check_a_dropped_write_leaves_nothing(store: &Store, size: usize) {
    let (digest, bytes) = blob(size);
    let (reached, at_half) = tokio::sync::oneshot::channel();
    let waiting = stream::once(async move {
        reached.send(()).expect("the check waits");
        future::pending().await
    });
    let body = half(&bytes).chain(waiting).boxed();
    let writing = {
        let (store, digest) = (Arc::clone(store), digest);
        async move { store.put(&digest, body).await }
    };
    tokio::select! {
        ended = writing => panic!("the body has not ended: {ended:?}"),
        _ = at_half => {}
    }
    assert_absent(store, &digest).await;
    put(store, &digest, &bytes).await;
    assert!(
        get(store, &digest).await == bytes,
        "a dropped write is no obstacle"
    );
}

pub(super) async fn check_nothing_is_visible_before_the_end(store: &Store, size: usize) {
    let (digest, bytes) = blob(size);
    let (reached, at_half) = tokio::sync::oneshot::channel();
    let (release, released) = tokio::sync::oneshot::channel::<()>();
    let rest = bytes.slice(bytes.len() / 2..);
    let waiting = stream::once(async move {
        reached.send(()).expect("the check waits");
        released.await.expect("the check goes on");
        stream_of(rest)
    });
    let body = half(&bytes).chain(waiting.flatten()).boxed();
    let writing = store.put(&digest, body);
    let watching = async {
        at_half.await.expect("the store reads the body");
        assert_absent(store, &digest).await;
        release.send(()).expect("the body waits");
    };
    let (written, ()) = future::join(writing, watching).await;
    written.expect("the store takes a good blob");
    assert!(get(store, &digest).await == bytes, "a slow write is whole");
}
