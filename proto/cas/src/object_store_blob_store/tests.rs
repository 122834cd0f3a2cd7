mod bucket;

use bytes::Bytes;
use object_store::memory::InMemory;

use super::*;
use crate::{conformance, put_bytes, read_all};

fn in_directory() -> (tempfile::TempDir, ObjectStoreBlobStore) {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("file://{}", directory.path().display());
    let store = ObjectStoreBlobStore::open(&url).unwrap();
    (directory, store)
}

#[tokio::test]
async fn a_directory_conforms() {
    let (directory, store) = in_directory();
    let store = Arc::new(store);
    conformance::check_keyed(store.clone()).await;
    conformance::check_streaming(store).await;
    drop(directory);
}

/// The open files of this process below a directory.
fn open_files(directory: &std::path::Path) -> usize {
    let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let open = open.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    open.filter(|file| file.starts_with(directory)).count()
}

#[tokio::test]
async fn small_blobs_that_wait_to_be_read_cost_no_open_files() {
    let (directory, store) = in_directory();
    let small = put_bytes(&store, Bytes::from(vec![1; 64 << 10]));
    let large = put_bytes(&store, Bytes::from(vec![2; 4 << 20]));
    let (small, large) = (small.await.unwrap(), large.await.unwrap());
    let gets = (0..2000).map(|_| store.get(&small, BlobRange::ALL));
    let mut most = 0;
    let bodies = futures::stream::iter(gets).buffer_unordered(2000);
    let bodies: Vec<BlobStream> = bodies
        .inspect(|_| most = most.max(open_files(directory.path())))
        .try_collect()
        .await
        .unwrap();
    assert_eq!(open_files(directory.path()), 0);
    assert!(most < 500, "{most} files were open at once");
    for body in bodies {
        let pieces: Vec<Bytes> = body.try_collect().await.unwrap();
        assert_eq!(pieces.concat().len(), 64 << 10);
    }
    // A large one is read as it is wanted.
    let body = store.get(&large, BlobRange::ALL).await.unwrap();
    assert_eq!(open_files(directory.path()), 1);
    let pieces: Vec<Bytes> = body.try_collect().await.unwrap();
    assert_eq!(pieces.concat().len(), 4 << 20);
}

#[tokio::test]
async fn memory_conforms() {
    let store = Arc::new(ObjectStoreBlobStore::open("memory://").unwrap());
    conformance::check_keyed(store.clone()).await;
    conformance::check_held_in_memory(store).await;
}

#[tokio::test]
async fn a_prefix_in_a_shared_store_conforms() {
    let objects = Arc::new(InMemory::new());
    let store = ObjectStoreBlobStore::new(objects.clone(), "a/b");
    let digest = put_bytes(&store, Bytes::from_static(b"x")).await.unwrap();
    conformance::check_keyed(Arc::new(store)).await;
    let hash = digest.hash_hex();
    let path = format!("a/b/{}/{hash}-1", &hash[..2]);
    assert_eq!(objects.head(&Path::from(path)).await.unwrap().size, 1);
}

#[tokio::test]
async fn blobs_outlive_the_store_and_aborted_writes_leave_no_file() {
    let (directory, store) = in_directory();
    let digest = put_bytes(&store, Bytes::from_static(b"kept"))
        .await
        .unwrap();
    conformance::check_keyed(Arc::new(store)).await;
    // Temporary files of dropped writes are removed in the background.
    let unfinished = || temporary_files(directory.path());
    let cleaned = async {
        while unfinished() > 0 {
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(std::time::Duration::from_secs(10), cleaned).await;
    assert!(waited.is_ok(), "{} temporary files are left", unfinished());
    let url = format!("file://{}", directory.path().display());
    let again = ObjectStoreBlobStore::open(&url).unwrap();
    assert_eq!(read_all(&again, &digest, 10).await.unwrap(), "kept");
}

fn temporary_files(directory: &std::path::Path) -> usize {
    let below = std::fs::read_dir(directory).unwrap();
    let files = below.flat_map(|entry| std::fs::read_dir(entry.unwrap().path()).unwrap());
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.contains('#')).count()
}

#[tokio::test]
async fn a_directory_lists_its_blobs_and_nothing_else() {
    let (directory, store) = in_directory();
    let listed = || async {
        let listed: Vec<_> = store.list().try_collect().await.unwrap();
        listed
    };
    assert_eq!(listed().await, []);
    let digest = put_bytes(&store, Bytes::from_static(b"x")).await.unwrap();
    std::fs::write(directory.path().join("note-1"), "no blob").unwrap();
    assert_eq!(listed().await, [digest]);
}

#[tokio::test]
async fn stores_below_one_place_are_apart() {
    let (directory, place) = in_directory();
    let places = [
        place,
        ObjectStoreBlobStore::open("memory://").unwrap(),
        ObjectStoreBlobStore::new(Arc::new(InMemory::new()), "some/prefix"),
    ];
    for place in places {
        let [one, other] = ["one", "other"].map(|name| place.below(name).unwrap());
        let digest = put_bytes(&one, Bytes::from_static(b"x")).await.unwrap();
        assert_eq!(other.find_missing(&[digest]).await.unwrap(), [digest]);
        let again = place.below("one").unwrap();
        assert_eq!(read_all(&again, &digest, 10).await.unwrap(), "x");
    }
    assert_eq!(
        std::fs::read_dir(directory.path().join("one"))
            .unwrap()
            .count(),
        1
    );
}
