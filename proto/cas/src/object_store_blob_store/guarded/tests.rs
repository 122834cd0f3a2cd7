mod lying_store;
mod markers;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt as _;
use object_store::path::Path;
use object_store::{
    Error, GetOptions, GetRange, MultipartUpload, ObjectStore as _, ObjectStoreExt as _,
    PutMultipartOptions, PutPayload, Result,
};
use tokio::time::Instant;

use self::lying_store::{Lie, LyingStore};
use super::attempts::{MAX_ATTEMPTS, REPEAT_WITHIN};
use super::circuit_breaker::{AWAY_AFTER, AWAY_AFTER_FAILURES, LONGEST_PAUSE};
use super::{GuardedObjectStore, Limits, Trouble};
use crate::object_store_blob_store::ObjectStoreBlobStore;
use crate::{StoreError, conformance};

const NAME: &str = "lying://store";
const LIMITS: Limits = Limits::DEFAULT;

type Guarded = GuardedObjectStore<LyingStore>;

fn guarded(lies: impl IntoIterator<Item = Lie>) -> (LyingStore, Guarded) {
    let store = LyingStore::default();
    let guarded = GuardedObjectStore::new(store.clone(), NAME);
    store.tell(lies);
    (store, guarded)
}

fn place() -> Path {
    Path::from("object")
}

/// A thousand bytes, each unlike its neighbours.
fn object() -> Bytes {
    (0..=u8::MAX).cycle().take(1000).collect()
}

async fn read(store: &Guarded, range: Option<GetRange>) -> Result<Bytes> {
    let options = GetOptions {
        range,
        ..GetOptions::default()
    };
    store.get_opts(&place(), options).await?.bytes().await
}

/// What every call comes to, one by one, each in the store's present mood.
async fn every_call(store: &LyingStore, guarded: &Guarded, lies: &[Lie]) -> Vec<Result<()>> {
    let mut results = Vec::new();
    let tell = || store.tell(lies.iter().copied());
    tell();
    results.push(guarded.put(&place(), object().into()).await.map(drop));
    store.put_truly(&place(), object()).await;
    tell();
    results.push(
        read(guarded, None)
            .await
            .map(|read| assert_eq!(read, object())),
    );
    tell();
    let found = guarded.head(&place()).await;
    results.push(found.map(|found| assert_eq!(found.size, 1000)));
    tell();
    let listed: Result<Vec<_>> = guarded.list(None).try_collect().await;
    results.push(listed.map(|listed| assert_eq!(listed.len(), 1)));
    tell();
    let listed = guarded.list_with_delimiter(None).await;
    results.push(listed.map(|listed| assert_eq!(listed.objects.len(), 1)));
    tell();
    results.push(guarded.delete(&place()).await);
    tell();
    let upload = guarded.put_multipart(&place()).await;
    results.push(upload.map(drop));
    store.tell([]);
    let mut upload = guarded.put_multipart(&place()).await.unwrap();
    tell();
    results.push(upload.put_part(object().into()).await);
    if results.iter().all(Result::is_ok) {
        // Which takes so long that it is asked for twice at most.
        store.tell(lies.first().copied());
        results.push(upload.complete().await.map(drop));
    }
    results
}

#[tokio::test(start_paused = true)]
async fn what_passes_is_asked_again_until_it_has_passed() {
    for lie in [Lie::Fail, Lie::Hang] {
        let (store, guarded) = guarded([]);
        let lies = vec![lie; MAX_ATTEMPTS as usize - 1];
        for (call, result) in every_call(&store, &guarded, &lies).await.iter().enumerate() {
            assert!(result.is_ok(), "{lie:?}, call {call}: {result:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn attempts_are_few_and_end_in_time() {
    for lie in [Lie::Fail, Lie::Hang] {
        let lies = vec![lie; 3 * MAX_ATTEMPTS as usize];
        let (store, guarded) = guarded(lies);
        let begun = Instant::now();
        let failed = guarded.head(&place()).await;
        assert!(matches!(failed, Err(Error::Generic { .. })), "{failed:?}");
        assert_eq!(store.asked(), MAX_ATTEMPTS);
        assert!(begun.elapsed() <= REPEAT_WITHIN + LIMITS.answer);
        let late = matches!(
            Trouble::of(&failed.unwrap_err()),
            Some(Trouble::Late { .. })
        );
        assert_eq!(late, lie == Lie::Hang);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_or_absent_is_asked_once() {
    for lie in [Lie::Refuse, Lie::Absent] {
        let (store, guarded) = guarded([lie]);
        let answer = guarded.head(&place()).await;
        assert!(answer.is_err(), "{lie:?}");
        assert_eq!(store.asked(), 1, "{lie:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_goes_on_where_it_was() {
    for lie in [Lie::Break(300), Lie::Stall(300), Lie::End(300)] {
        for (range, expected) in [
            (None, 0..1000),
            (Some(GetRange::Offset(100)), 100..1000),
            (Some(GetRange::Bounded(100..900)), 100..900),
        ] {
            // Each break comes later than the one before: 300 bytes of what was left then.
            let (store, guarded) = guarded([lie, lie, Lie::Fail, lie, lie]);
            store.put_truly(&place(), object()).await;
            let read = read(&guarded, range.clone()).await;
            let expected = object().slice(expected);
            assert_eq!(read.unwrap(), expected, "{lie:?} of {range:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_makes_progress_is_never_cut() {
    let (store, guarded) = guarded([Lie::Crawl(LIMITS.stall - Duration::from_millis(1))]);
    store.put_truly(&place(), object()).await;
    let begun = Instant::now();
    assert_eq!(read(&guarded, None).await.unwrap(), object());
    assert!(begun.elapsed() > 19 * LIMITS.stall, "it took its time");
    assert_eq!(store.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_makes_no_progress_ends_in_time() {
    for lie in [Lie::Break(0), Lie::Stall(0), Lie::End(0)] {
        let (store, guarded) = guarded(vec![lie; 100]);
        store.put_truly(&place(), object()).await;
        let begun = Instant::now();
        read(&guarded, None).await.unwrap_err();
        assert_eq!(store.asked(), MAX_ATTEMPTS, "{lie:?}");
        assert!(begun.elapsed() <= REPEAT_WITHIN + LIMITS.answer);
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_of_two_objects_never_mix() {
    let (store, guarded) = guarded([Lie::Break(300)]);
    store.put_truly(&place(), object()).await;
    let found = guarded.get(&place()).await.unwrap();
    let mut body = found.into_stream();
    let mut read = body.try_next().await.unwrap().unwrap().len();
    store.put_truly(&place(), vec![7; 1000].into()).await;
    let failed = loop {
        match body.try_next().await {
            Ok(piece) => read += piece.expect("no end before the object's").len(),
            Err(error) => break error,
        }
    };
    assert!(matches!(failed, Error::Precondition { .. }), "{failed}");
    assert_eq!(read, 300);
}

#[tokio::test(start_paused = true)]
async fn a_list_that_breaks_goes_on_where_it_was() {
    let (store, guarded) = guarded([]);
    for number in 0..10 {
        let place = Path::from(format!("object-{number}"));
        store.put_truly(&place, object()).await;
    }
    store.tell([Lie::Break(3), Lie::Stall(3), Lie::Fail, Lie::Break(2)]);
    let listed: Vec<_> = guarded.list(None).try_collect().await.unwrap();
    let names: Vec<_> = listed.iter().map(|it| it.location.to_string()).collect();
    let expected: Vec<_> = (0..10).map(|number| format!("object-{number}")).collect();
    assert_eq!(names, expected);
}

async fn half_an_upload(guarded: &Guarded) -> Box<dyn MultipartUpload> {
    let options = PutMultipartOptions::default();
    let mut upload = guarded.put_multipart_opts(&place(), options).await.unwrap();
    let part = upload.put_part(PutPayload::from_bytes(object()));
    part.await.unwrap();
    upload
}

#[tokio::test(start_paused = true)]
async fn a_completion_whose_answer_was_lost_counts() {
    for lie in [Lie::DoAndFail, Lie::DoAndHang] {
        let (store, guarded) = guarded([]);
        let mut upload = half_an_upload(&guarded).await;
        store.tell([lie]);
        upload.complete().await.unwrap();
        assert_eq!(read(&guarded, None).await.unwrap(), object());
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_is_gone_counts_if_its_object_is_there() {
    for (there, counts) in [
        (Some(object()), true),
        (Some(object().slice(1..)), false),
        (None, false),
    ] {
        for parts_are_sent_before in [true, false] {
            let (store, guarded) = guarded([]);
            let mut upload = guarded.put_multipart(&place()).await.unwrap();
            if !parts_are_sent_before {
                store.forget_uploads();
            }
            upload.put_part(object().into()).await.unwrap();
            store.forget_uploads();
            if let Some(there) = there.clone() {
                store.put_truly(&place(), there).await;
            }
            let completed = upload.complete().await;
            assert_eq!(completed.is_ok(), counts, "{completed:?}");
            let is_gone = matches!(completed, Err(Error::NotFound { .. }));
            assert!(is_gone || counts, "{completed:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_is_aborted_though_its_store_is_away_for_minutes() {
    let (store, guarded) = guarded([]);
    let mut upload = half_an_upload(&guarded).await;
    assert_eq!(store.uploads(), 1);
    store.tell(vec![Lie::Fail; AWAY_AFTER_FAILURES as usize + 5]);
    upload.abort().await.unwrap();
    assert_eq!(store.uploads(), 0);
    // For ever, nobody tries.
    let mut upload = half_an_upload(&guarded).await;
    store.tell(vec![Lie::Hang; 10_000]);
    let begun = Instant::now();
    upload.abort().await.unwrap_err();
    assert!(begun.elapsed() <= LIMITS.abort + LIMITS.answer);
    assert!(begun.elapsed() >= LIMITS.abort - LONGEST_PAUSE);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_is_left_alone_and_found_again() {
    let (store, guarded) = guarded(vec![Lie::Fail; 100_000]);
    store.put_truly(&place(), object()).await;
    let begun = Instant::now();
    let away = loop {
        let failed = guarded.head(&place()).await.unwrap_err();
        if let Some(Trouble::Away { again_in, .. }) = Trouble::of(&failed) {
            let words = failed.to_string();
            assert!(
                words.contains(NAME) && words.contains("told to fail"),
                "{words}"
            );
            break *again_in;
        }
    };
    assert!(begun.elapsed() >= AWAY_AFTER);
    let asked = store.asked();
    assert!(asked >= AWAY_AFTER_FAILURES);
    for _ in 0..1000 {
        guarded.head(&place()).await.unwrap_err();
    }
    assert_eq!(store.asked(), asked, "nobody reaches it");
    // It is tried again, once a pause.
    tokio::time::advance(away).await;
    guarded.head(&place()).await.unwrap_err();
    assert_eq!(store.asked(), asked + 1);
    store.tell([]);
    let back = Instant::now();
    while guarded.head(&place()).await.is_err() {
        tokio::time::advance(Duration::from_millis(100)).await;
    }
    assert!(back.elapsed() <= LONGEST_PAUSE);
    guarded.head(&place()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn larger_bodies_have_longer() {
    let (store, guarded) = guarded([Lie::Hang]);
    let begun = Instant::now();
    let payload = PutPayload::from(vec![0; 64 * LIMITS.sending_rate as usize]);
    guarded.put(&place(), payload).await.unwrap();
    assert!(begun.elapsed() >= LIMITS.answer + Duration::from_secs(64));
    assert_eq!(store.asked(), 2);
}

#[tokio::test]
async fn a_guarded_store_conforms() {
    let objects = Arc::new(GuardedObjectStore::new(LyingStore::default(), NAME));
    let store = Arc::new(ObjectStoreBlobStore::new(objects, "prefix"));
    conformance::check_keyed(store.clone()).await;
    conformance::check_held_in_memory(store).await;
}

/// One request in seven fails, one in eleven of their bodies breaks: nobody above notices.
#[tokio::test(start_paused = true)]
async fn a_store_with_a_bad_day_conforms() {
    let lying = LyingStore::default();
    lying.lie_every(7, Lie::Fail);
    lying.lie_every(11, Lie::Break(100));
    let objects = Arc::new(GuardedObjectStore::new(lying, NAME));
    let store = Arc::new(ObjectStoreBlobStore::new(objects, "prefix"));
    conformance::check_keyed(store).await;
}

#[tokio::test(start_paused = true)]
async fn the_port_says_what_is_the_matter() {
    use crate::BlobStore as _;
    use regatta_model::Digest;
    let lying = LyingStore::default();
    lying.tell(vec![Lie::Hang; MAX_ATTEMPTS as usize]);
    let objects = Arc::new(GuardedObjectStore::new(lying, NAME));
    let store = ObjectStoreBlobStore::new(objects, "prefix");
    let asked = store.find_missing(&[Digest::of(b"x")]).await;
    let expected = format!("{NAME} did not answer within 15000 ms");
    assert!(
        matches!(&asked, Err(StoreError::Unavailable { detail }) if *detail == expected),
        "{asked:?}"
    );
}
