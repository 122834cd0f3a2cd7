//! Several processes with one bucket.

use super::*;

async fn assert_read(store: &PackingBlobStore, key: &Digest, value: &[u8]) {
    assert_eq!(read_all(store, key, 100).await.unwrap(), value);
}

/// Packs of one value each.
async fn put_apart(store: &PackingBlobStore, count: u32) -> Vec<Digest> {
    let mut digests = Vec::new();
    for value in values(count) {
        digests.push(put_bytes(store, value).await.unwrap());
    }
    digests
}

#[tokio::test(start_paused = true)]
async fn what_another_stored_is_read_at_once_and_what_it_forgot_is_missing_soon() {
    let bucket = Bucket::new();
    let [one, other] = [(); 2].map(|()| bucket.open(Keys::Sizes, SMALL));
    let digest = Digest::of(b"x");
    assert_eq!(other.find_missing(&[digest]).await.unwrap(), [digest]);
    put_bytes(&one, Bytes::from_static(b"x")).await.unwrap();
    assert_read(&other, &digest, b"x").await;
    assert_eq!(other.find_missing(&[digest]).await.unwrap(), []);
    one.delete(&digest).await.unwrap();
    tokio::time::advance(SMALL.max_age + Duration::from_millis(1)).await;
    assert_eq!(other.find_missing(&[digest]).await.unwrap(), [digest]);
}

#[tokio::test(start_paused = true)]
async fn who_reads_while_another_moves_finds_the_blob_where_it_went() {
    let bucket = Bucket::new();
    let [one, other] = [(); 2].map(|()| bucket.open(Keys::Sizes, Limits::DEFAULT));
    let digests = put_apart(&one, 40).await;
    assert_eq!(other.find_missing(&digests).await.unwrap(), []);
    one.packs.keep_up().await.unwrap();
    assert!(bucket.pack_count().await < Limits::DEFAULT.merged_packs);
    for (digest, value) in digests.iter().zip(values(40)) {
        assert_read(&other, digest, &value).await;
    }
}

#[tokio::test(start_paused = true)]
async fn of_several_that_tidy_up_at_a_time_none_deletes_the_only_copy() {
    let bucket = Bucket::new();
    let untidy = Limits {
        merged_packs: usize::MAX,
        ..Limits::DEFAULT
    };
    let digests = put_apart(&bucket.open(Keys::Sizes, untidy), 30).await;
    let all = [(); 3].map(|()| bucket.open(Keys::Sizes, Limits::DEFAULT));
    // Each begins from what it knew in the last round, and makes new packs meanwhile.
    for round in 0..5u8 {
        let tidying = all.iter().map(async |store| {
            store.find_missing(&digests).await.unwrap();
            store.packs.keep_up().await.unwrap();
            for fill in 0..6u8 {
                let value = vec![round, fill, 7, 7, 7];
                put_bytes(store, value.into()).await.unwrap();
            }
        });
        future::join_all(tidying).await;
        let fresh = bucket.open(Keys::Sizes, Limits::DEFAULT);
        assert_eq!(fresh.find_missing(&digests).await.unwrap(), []);
        for (digest, value) in digests.iter().zip(values(30)) {
            for store in all.iter().chain([&fresh]) {
                assert_read(store, digest, &value).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_writes_of_one_key_all_see_the_later() {
    let bucket = Bucket::new();
    let [one, other] = [(); 2].map(|()| bucket.open(Keys::Nothing, SMALL));
    let key = Digest::of(b"key");
    let values: [&'static [u8]; 4] = [b"a", b"too large for a pack", b"b", b"c"];
    for value in values {
        for (writer, reader) in [(&one, &other), (&other, &one)] {
            let body = stream_of(Bytes::from_static(value));
            writer.put(&key, body).await.unwrap();
            tokio::time::advance(SMALL.max_age * 2).await;
            assert_eq!(reader.find_missing(&[key]).await.unwrap(), []);
            assert_read(reader, &key, value).await;
        }
    }
    one.delete(&key).await.unwrap();
    tokio::time::advance(SMALL.max_age * 2).await;
    assert_eq!(other.find_missing(&[key]).await.unwrap(), [key]);
}
