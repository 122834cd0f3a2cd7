//! The adapter against real S3 servers, whole and through a proxy that spoils what passes.

mod abandoned;
mod faults;
mod full;
#[cfg(feature = "garage-tests")]
mod garage;
mod proxy;
mod server;

use super::*;
use crate::VerifyingBlobStore;

use self::server::Bucket;

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_conforms() {
    check_conformance(&Bucket::in_directory().await).await;
}

async fn check_conformance(bucket: &Bucket) {
    let store = Arc::new(bucket.store());
    conformance::check_keyed(store.clone()).await;
    // Three parts of 5 MiB on their way and a fourth being read, to the end of its last piece.
    conformance::check_streaming_within(store.clone(), 22 << 20).await;
    conformance::check_content_addressed(Arc::new(VerifyingBlobStore::new(store))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stored_is_an_object_of_the_bucket() {
    let bucket = Bucket::in_directory().await;
    let store = bucket.store();
    let digest = put_bytes(&store, Bytes::from_static(b"kept"))
        .await
        .unwrap();
    let hash = digest.hash_hex();
    let path = Path::from(format!("some/prefix/{}/{hash}-4", &hash[..2]));
    let object = bucket.objects().get(&path).await.unwrap();
    assert_eq!(object.bytes().await.unwrap(), "kept");
    let again = bucket.store();
    assert_eq!(read_all(&again, &digest, 10).await.unwrap(), "kept");
    let listed: Vec<_> = again.list().try_collect().await.unwrap();
    assert_eq!(listed, [digest]);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_an_error_and_not_an_absence() {
    let mut bucket = Bucket::in_directory().await;
    let digest = put_bytes(&bucket.store(), Bytes::from_static(b"x"))
        .await
        .unwrap();
    bucket.secret_key = "another".to_owned();
    let refused = bucket.store().find_missing(&[digest]).await;
    assert!(
        matches!(refused, Err(StoreError::Unavailable { .. })),
        "{refused:?}"
    );
}

/// The same against Garage (feature `garage-tests`).
#[cfg(feature = "garage-tests")]
mod with_garage {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn garage_conforms() {
        check_conformance(&Bucket::in_garage().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_a_killed_writer_leaves_in_garage_is_aborted() {
        abandoned::check_killed_writer(&Bucket::in_garage().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_writer_whose_upload_to_garage_was_aborted_is_told_to_begin_again() {
        abandoned::check_aborted_writer(&Bucket::in_garage().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn reads_from_garage_through_a_bad_network_are_right_or_fail_in_time() {
        faults::check_all_reads(Bucket::in_garage).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn writes_to_garage_through_a_bad_network_are_whole_or_nothing() {
        faults::check_all_writes(Bucket::in_garage).await;
    }
}
