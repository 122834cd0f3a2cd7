//! What many writers and readers at a time see of each other.

use bytes::Bytes;
use futures::future;
use regatta_model::Digest;

use super::{SIZES, Store, blob, get, put};
use crate::{StoreError, read_all};

/// How many writers of one blob there are at a time.
const WRITERS: usize = 8;

pub(super) async fn check_concurrent_writers_all_succeed(store: &Store) {
    for size in SIZES {
        let (digest, bytes) = blob(size);
        let writers = (0..WRITERS).map(|_| put(store, &digest, &bytes));
        future::join_all(writers).await;
        let readers = (0..WRITERS).map(|_| get(store, &digest));
        let read = future::join_all(readers).await;
        assert!(
            read.iter().all(|read| *read == bytes),
            "{WRITERS} readers see one blob"
        );
    }
}

pub(super) async fn check_small_blobs_in_crowds(store: &Store) {
    let blobs: Vec<(Digest, Bytes)> = (0..300).map(|at| blob(at * 50)).collect();
    future::join_all(
        blobs
            .iter()
            .map(|(digest, bytes)| put(store, digest, bytes)),
    )
    .await;
    let read = future::join_all(blobs.iter().map(|(digest, _)| get(store, digest))).await;
    let same = read
        .iter()
        .zip(&blobs)
        .all(|(read, (_, bytes))| read == bytes);
    assert!(same, "each reader gets its own blob");
}

pub(super) async fn check_concurrent_writes_do_not_mix(store: &Store) {
    for size in SIZES {
        let key = blob(size).0;
        let values: Vec<Bytes> = (0..WRITERS).map(|_| blob(size).1).collect();
        let writing = future::join_all(values.iter().map(|value| put(store, &key, value)));
        let mut writing = std::pin::pin!(writing);
        let mut is_written = false;
        while !is_written {
            is_written = tokio::select! {
                _ = &mut writing => true,
                () = tokio::task::yield_now() => false,
            };
            if store
                .find_missing(&[key])
                .await
                .expect("presence is known")
                .is_empty()
            {
                match read_all(store.as_ref(), &key, u64::MAX).await {
                    Ok(read) => assert!(
                        values.contains(&read),
                        "a reader sees one of the values whole"
                    ),
                    // A bucket lets go of what it replaces, also of what is being read.
                    Err(StoreError::Unavailable { .. }) => {}
                    Err(error) => panic!("a blob that is replaced is there: {error}"),
                }
            }
        }
        assert!(
            values.contains(&get(store, &key).await),
            "one of the values is left"
        );
    }
}
