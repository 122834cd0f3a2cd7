//! What markers of uploads are told, and when.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use futures::FutureExt as _;

use super::*;
use crate::Deletions;
use crate::object_store_blob_store::abandoned_uploads::{AbandonedUploads, folder_of};
use crate::object_store_blob_store::observing::{ObjectStoreRequest, ObserveRequest, observed};

const HOUR: Duration = Duration::from_secs(60 * 60);

/// A store whose uploads are named by markers; what aborts those whose markers have so great an age.
fn marked(abandoned_after: Duration) -> (LyingStore, Arc<Guarded>, AbandonedUploads) {
    let store = LyingStore::default();
    let guarded = GuardedObjectStore::new(store.clone(), NAME);
    let (guarded, _) = guarded.with_uploads_marked(Path::default());
    let limits = Limits {
        abandoned_after,
        ..LIMITS
    };
    let aborting = GuardedObjectStore::with_limits(store.clone(), NAME, limits);
    let (_, uploads) = aborting.with_uploads_marked(Path::default());
    (store, guarded, uploads)
}

async fn markers(guarded: &Guarded) -> Vec<object_store::ObjectMeta> {
    let listed = guarded.list(Some(&folder_of(&Path::default())));
    let listed: Vec<_> = listed.try_collect().await.unwrap();
    let is_marker = |it: &object_store::ObjectMeta| it.location.filename() != Some("0-now");
    listed.into_iter().filter(is_marker).collect()
}

async fn until_unmarked(guarded: &Guarded) {
    let begun = Instant::now();
    while !markers(guarded).await.is_empty() {
        assert!(begun.elapsed() < HOUR, "a marker stays");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn no_part_is_sent_before_its_upload_has_a_marker() {
    let (store, guarded, _) = marked(HOUR);
    let mut upload = guarded.put_multipart(&place()).await.unwrap();
    // Who is killed now leaves an upload without parts, which costs nothing.
    assert_eq!((store.uploads(), markers(&guarded).await.len()), (1, 0));
    let asked = store.asked();
    store.tell([Lie::Refuse]);
    upload.put_part(object().into()).await.unwrap_err();
    assert_eq!(store.asked(), asked + 1, "only the marker was asked for");
    // Several parts have one marker.
    let mut upload = guarded.put_multipart(&place()).await.unwrap();
    let parts = [(); 3].map(|()| upload.put_part(object().into()));
    futures::future::try_join_all(parts).await.unwrap();
    assert_eq!(markers(&guarded).await.len(), 1);
    upload.complete().await.unwrap();
    until_unmarked(&guarded).await;
}

#[tokio::test(start_paused = true)]
async fn a_marker_is_written_anew_for_as_long_as_its_upload_has_a_writer() {
    let (_, guarded, _) = marked(HOUR);
    let upload = half_an_upload(&guarded).await;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..24 {
        seen.insert(markers(&guarded).await[0].e_tag.clone());
        tokio::time::sleep(HOUR).await;
    }
    assert!(seen.len() >= 23, "{seen:?}");
    // As if its process were gone.
    drop(upload);
    let left = markers(&guarded).await;
    tokio::time::sleep(24 * HOUR).await;
    assert_eq!(markers(&guarded).await, left);
}

#[tokio::test(start_paused = true)]
async fn what_was_completed_stays_though_its_marker_does() {
    let (store, guarded, uploads) = marked(Duration::ZERO);
    let mut upload = half_an_upload(&guarded).await;
    // The answer is lost, and whoever asks again is told that there is no such upload.
    store.tell([Lie::DoAndFail]);
    upload.complete().await.unwrap();
    drop(upload);
    assert_eq!(markers(&guarded).await.len(), 1);
    assert_eq!(uploads.abort(&Deletions::default()).await.unwrap(), 0);
    assert_eq!(markers(&guarded).await.len(), 0);
    assert_eq!(read(&guarded, None).await.unwrap(), object());
}

#[tokio::test(start_paused = true)]
async fn who_completes_what_was_aborted_is_told_that_it_is_gone() {
    for arrived in [true, false] {
        let (store, guarded, uploads) = marked(Duration::ZERO);
        let mut upload = half_an_upload(&guarded).await;
        let next = (!arrived).then(|| upload.put_part(object().into()));
        assert_eq!(uploads.abort(&Deletions::default()).await.unwrap(), 1);
        if let Some(next) = next {
            next.await.unwrap();
        }
        let completed = upload.complete().await;
        assert!(
            matches!(completed, Err(Error::NotFound { .. })),
            "{completed:?}"
        );
        assert!(guarded.head(&place()).await.is_err(), "nothing is visible");
        assert_eq!(store.uploads(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_aborted_is_aborted_later() {
    let (store, guarded, uploads) = marked(Duration::ZERO);
    let upload = half_an_upload(&guarded).await;
    drop(upload);
    let may_not = Deletions::allowed_while(|| false);
    assert_eq!(uploads.abort(&may_not).await.unwrap(), 0);
    assert_eq!(
        store.uploads(),
        1,
        "whoever lost the storage aborts nothing"
    );
    // A list, the time, another list, the marker, and then what aborts the upload.
    let truth = std::iter::repeat_n(Lie::End(usize::MAX), 4);
    store.tell(truth.chain([Lie::Refuse]));
    uploads.abort(&Deletions::default()).await.unwrap_err();
    assert_eq!((store.uploads(), markers(&guarded).await.len()), (1, 1));
    assert_eq!(uploads.abort(&Deletions::default()).await.unwrap(), 1);
    assert_eq!((store.uploads(), markers(&guarded).await.len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_a_late_part_may_outlive_keeps_its_marker() {
    let (store, guarded, _) = marked(HOUR);
    let mut upload = half_an_upload(&guarded).await;
    upload.abort().await.unwrap();
    assert_eq!(markers(&guarded).await.len(), 0, "all of it is gone");
    let mut upload = half_an_upload(&guarded).await;
    store.tell([Lie::Refuse]);
    upload.put_part(object().into()).await.unwrap_err();
    upload.abort().await.unwrap();
    assert_eq!((store.uploads(), markers(&guarded).await.len()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn the_requests_of_markers_are_told() {
    use ObjectStoreRequest::{Delete, Put, Upload};
    let (_, guarded, _) = marked(HOUR);
    let requests = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&requests);
    let observe: ObserveRequest = Arc::new(move |request| seen.lock().unwrap().push(request));
    let objects = observed(Arc::clone(&guarded) as _, observe);
    let mut upload = objects.put_multipart(&place()).await.unwrap();
    upload.put_part(object().into()).await.unwrap();
    upload.complete().await.unwrap();
    until_unmarked(&guarded).await;
    let requests = requests.lock().unwrap().clone();
    assert_eq!(requests, [Upload, Upload, Put, Upload, Delete]);
}

#[tokio::test(start_paused = true)]
async fn a_marker_that_is_written_anew_meanwhile_is_somebodys() {
    let (store, guarded, uploads) = marked(Duration::ZERO);
    drop(half_an_upload(&guarded).await);
    let marker = markers(&guarded).await[0].location.clone();
    let text = guarded.get(&marker).await.unwrap().bytes().await.unwrap();
    let (bucket, asked) = (store.clone(), AtomicU32::new(0));
    let meanwhile = Deletions::allowed_while(move || {
        // It is asked first before the markers are listed, then before each of them is read.
        if asked.fetch_add(1, Ordering::Relaxed) == 1 {
            let renewed = bucket.put_truly(&marker, text.clone());
            renewed.now_or_never().expect("it is in memory");
        }
        true
    });
    assert_eq!(uploads.abort(&meanwhile).await.unwrap(), 0);
    assert_eq!((store.uploads(), markers(&guarded).await.len()), (1, 1));
    assert_eq!(uploads.abort(&Deletions::default()).await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_upload_to_what_is_not_below_the_root_is_left() {
    let (store, guarded, _) = marked(HOUR);
    drop(half_an_upload(&guarded).await);
    let marker = markers(&guarded).await[0].location.clone();
    let text = guarded.get(&marker).await.unwrap().bytes().await.unwrap();
    let root = Path::from("elsewhere");
    let copy = folder_of(&root).join(marker.filename().unwrap());
    store.put_truly(&copy, text).await;
    let limits = Limits {
        abandoned_after: Duration::ZERO,
        ..LIMITS
    };
    let aborting = GuardedObjectStore::with_limits(store.clone(), NAME, limits);
    let (_, uploads) = aborting.with_uploads_marked(root);
    assert_eq!(uploads.abort(&Deletions::default()).await.unwrap(), 0);
    assert_eq!(store.uploads(), 1);
    assert!(guarded.head(&copy).await.is_ok(), "somebody can read it");
}

#[tokio::test(start_paused = true)]
async fn whoever_loses_the_storage_meanwhile_aborts_nothing_more() {
    let (store, guarded, uploads) = marked(Duration::ZERO);
    for _ in 0..2 {
        drop(half_an_upload(&guarded).await);
    }
    let bucket = store.clone();
    let until_one_is_gone = Deletions::allowed_while(move || bucket.uploads() == 2);
    uploads.abort(&until_one_is_gone).await.unwrap_err();
    assert_eq!(store.uploads(), 1);
}
