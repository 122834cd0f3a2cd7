use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use bytes::Bytes;

use super::*;
use crate::{MemoryBlobStore, VerifyingBlobStore, conformance, put_bytes, read_all};

const BLOCK: u64 = 4096;

struct Bench {
    directory: tempfile::TempDir,
    below: Arc<MemoryBlobStore>,
}

impl Bench {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            below: Arc::new(MemoryBlobStore::new()),
        }
    }

    fn tier(&self, capacity_bytes: u64) -> DiskTier {
        self.try_tier(capacity_bytes, 0).unwrap()
    }

    fn try_tier(&self, capacity_bytes: u64, min_free_bytes: u64) -> Result<DiskTier, StoreError> {
        let cache = self.cache(capacity_bytes, min_free_bytes)?;
        Ok(self.tier_of(&cache, b"owner"))
    }

    fn cache(&self, capacity_bytes: u64, min_free_bytes: u64) -> Result<DiskCache, StoreError> {
        DiskCache::open(DiskCacheSettings {
            directory: self.root(),
            capacity_bytes,
            min_free_bytes,
        })
    }

    fn tier_of(&self, cache: &DiskCache, owner: &[u8]) -> DiskTier {
        let below = Arc::new(VerifyingBlobStore::new(self.below.clone()));
        cache.tier(below, &Digest::of(owner))
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("tier")
    }

    async fn put(&self, content: &'static [u8]) -> Digest {
        put_bytes(self.below.as_ref(), Bytes::from_static(content))
            .await
            .unwrap()
    }

    async fn put_all(&self, contents: [&'static [u8]; 3]) -> [Digest; 3] {
        let [a, b, c] = contents;
        [self.put(a).await, self.put(b).await, self.put(c).await]
    }

    fn assert_nothing_unfinished(&self) {
        let temporary = self.directory.path().join("tier/tmp");
        assert_eq!(fs::read_dir(temporary).unwrap().count(), 0);
    }

    async fn assert_kept(&self, tier: &DiskTier, digest: &Digest, kept: bool) {
        let bytes = read_all(self.below.as_ref(), digest, 1 << 20)
            .await
            .unwrap();
        self.below.delete(digest).await.unwrap();
        assert_eq!(tier.file(digest, false).await.is_ok(), kept);
        put_bytes(self.below.as_ref(), bytes).await.unwrap();
    }
}

#[tokio::test]
async fn it_conforms() {
    let bench = Bench::new();
    let tier = Arc::new(bench.tier(1 << 30));
    conformance::check_content_addressed(tier.clone()).await;
    conformance::check_held_in_memory(tier).await;
    let tight = Bench::new();
    conformance::check_content_addressed(Arc::new(tight.tier(2 << 20))).await;
}

#[tokio::test]
async fn files_have_the_content_and_the_mode_that_were_asked_for() {
    let bench = Bench::new();
    let tier = bench.tier(1 << 20);
    let digest = bench.put(b"content").await;
    let plain = tier.file(&digest, false).await.unwrap();
    let executable = tier.file(&digest, true).await.unwrap();
    let empty = tier.file(&Digest::EMPTY, true).await.unwrap();
    for (file, mode) in [(&plain, 0o644), (&executable, 0o755)] {
        assert_eq!(fs::read(file.path()).unwrap(), b"content");
        assert_eq!(
            fs::metadata(file.path()).unwrap().permissions().mode() & 0o777,
            mode
        );
    }
    let inode = |file: &PinnedFile| fs::metadata(file.path()).unwrap().ino();
    assert_ne!(inode(&plain), inode(&executable));
    assert_eq!(fs::read(empty.path()).unwrap(), b"");
    let usage = DiskCacheUsage {
        files: 3,
        used_bytes: 3 * BLOCK,
        pinned_files: 3,
    };
    assert_eq!(tier.cache().usage(), usage);
    drop((plain, executable, empty));
    assert_eq!(
        tier.cache().usage(),
        DiskCacheUsage {
            pinned_files: 0,
            ..usage
        }
    );
}

#[tokio::test]
async fn concurrent_users_share_one_fetch() {
    let bench = Bench::new();
    let tier = bench.tier(1 << 20);
    let digest = bench.put(b"content").await;
    let files = futures::future::try_join_all((0..50).map(|_| tier.file(&digest, false))).await;
    assert_eq!(files.unwrap().len(), 50);
    assert_eq!(tier.cache().usage().pinned_files, 0);
    assert_eq!(tier.cache().usage().files, 1);
}

#[tokio::test]
async fn the_least_recently_used_goes_first_and_what_is_in_use_stays() {
    let bench = Bench::new();
    let tier = bench.tier(2 * BLOCK);
    let [a, b, c] = bench.put_all([b"a", b"b", b"c"]).await;
    for digest in [a, b, a] {
        tier.file(&digest, false).await.unwrap();
    }
    let pinned = tier.file(&c, false).await.unwrap();
    bench.assert_kept(&tier, &a, true).await;
    bench.assert_kept(&tier, &b, false).await;
    let also_pinned = tier.file(&a, false).await.unwrap();
    let full = tier.file(&b, false).await;
    assert!(matches!(full, Err(StoreError::Full { .. })), "{full:?}");
    assert_eq!(read_all(&tier, &b, 10).await.unwrap(), "b");
    assert!(pinned.path().exists() && also_pinned.path().exists());
    drop(pinned);
    tier.file(&b, false).await.unwrap();
    assert!(also_pinned.path().exists());
}

#[tokio::test]
async fn it_survives_a_restart_and_keeps_the_order_of_use() {
    let bench = Bench::new();
    let [a, b, c] = bench.put_all([b"a", b"b", b"c"]).await;
    let tier = bench.tier(1 << 20);
    for digest in [a, b, c] {
        let file = tier.file(&digest, false).await.unwrap();
        // Access times of the file system may tick slowly; what matters is that they order.
        let seconds = if digest == a { 300 } else { 200 };
        let times = fs::FileTimes::new()
            .set_accessed(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds));
        fs::File::open(file.path())
            .unwrap()
            .set_times(times)
            .unwrap();
    }
    assert!(bench.try_tier(1 << 20, 0).is_err(), "one process at a time");
    drop(tier);
    let tier = bench.tier(BLOCK);
    assert_eq!(tier.cache().usage().files, 1);
    bench.assert_kept(&tier, &a, true).await;
}

#[tokio::test]
async fn all_parts_share_one_quota_and_none_sees_into_another() {
    let bench = Bench::new();
    let [a, b, c] = bench.put_all([b"a", b"b", b"c"]).await;
    let cache = bench.cache(2 * BLOCK, 0).unwrap();
    let (one, other) = (
        bench.tier_of(&cache, b"one"),
        bench.tier_of(&cache, b"other"),
    );
    one.file(&a, false).await.unwrap();
    other.file(&b, false).await.unwrap();
    bench.assert_kept(&other, &a, false).await;
    other.file(&c, false).await.unwrap();
    assert_eq!(cache.usage().used_bytes, 2 * BLOCK);
    bench.assert_kept(&one, &a, false).await;
    bench.assert_kept(&other, &b, true).await;
    drop(one.file(&a, false).await.unwrap());
    assert_eq!(cache.usage().files, 2, "the other part made room");
}

#[tokio::test]
async fn what_an_earlier_process_kept_makes_room_before_anybody_asks_for_its_part() {
    let bench = Bench::new();
    let [a, b, _] = bench.put_all([b"a", b"b", b"c"]).await;
    let cache = bench.cache(1 << 20, 0).unwrap();
    for (owner, digest) in [(b"one", a), (b"two", b)] {
        let tier = bench.tier_of(&cache, owner);
        tier.file(&digest, false).await.unwrap();
    }
    drop(cache);
    let cache = bench.cache(1 << 20, u64::MAX / 2).unwrap();
    assert_eq!(cache.usage().files, 2);
    let full = cache.make_room();
    assert!(matches!(full, Err(StoreError::Full { .. })), "{full:?}");
    assert_eq!(cache.usage().files, 0, "all that could go went");
    drop(cache);
    let cache = bench.cache(1 << 20, 0).unwrap();
    drop(cache);
    let left = fs::read_dir(bench.root()).unwrap().count();
    assert_eq!(left, 2, "the lock and the directory for what is on its way");
}

#[tokio::test]
async fn what_is_short_foreign_or_unfinished_is_removed_at_the_start() {
    let bench = Bench::new();
    let [a, b, c] = bench.put_all([b"aaaa", b"bbbb", b"cccc"]).await;
    let tier = bench.tier(1 << 20);
    let mut paths = Vec::new();
    for digest in [a, b, c] {
        paths.push(tier.file(&digest, false).await.unwrap().path().to_owned());
    }
    drop(tier);
    fs::write(&paths[0], b"aa").unwrap();
    fs::set_permissions(&paths[1], fs::Permissions::from_mode(0o600)).unwrap();
    let root = bench.root();
    let part = root.join(Digest::of(b"owner").hash_hex());
    let prefix = paths[2].parent().unwrap();
    let strays = [
        root.join("foreign"),
        root.join("tmp/unfinished"),
        part.join("lock"),
        prefix.join("foreign"),
    ];
    for stray in &strays {
        fs::write(stray, b"x").unwrap();
    }
    let tier = bench.tier(1 << 20);
    assert_eq!(tier.cache().usage().files, 1);
    for stray in &strays {
        assert!(!stray.exists(), "{} is still there", stray.display());
    }
    for (digest, content) in [(a, "aaaa"), (b, "bbbb"), (c, "cccc")] {
        assert_eq!(read_all(&tier, &digest, 10).await.unwrap(), content);
    }
}

#[tokio::test]
async fn a_file_that_somebody_wrote_to_is_fetched_again() {
    let bench = Bench::new();
    let digest = bench.put(b"right").await;
    let tier = bench.tier(1 << 20);
    let path = tier.file(&digest, false).await.unwrap().path().to_owned();
    fs::write(&path, b"wrong").unwrap();
    let file = tier.file(&digest, false).await.unwrap();
    assert_eq!(fs::read(file.path()).unwrap(), b"right");
    fs::remove_file(&path).unwrap();
    drop(file);
    let file = tier.file(&digest, false).await.unwrap();
    assert_eq!(fs::read(file.path()).unwrap(), b"right");
}

#[tokio::test]
async fn silent_corruption_is_noticed_by_a_read_and_repaired_by_the_next() {
    let bench = Bench::new();
    let digest = bench.put(b"right").await;
    let tier = bench.tier(1 << 20);
    let path = tier.file(&digest, false).await.unwrap().path().to_owned();
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, b"wrong").unwrap();
    let times = fs::FileTimes::new().set_modified(modified);
    fs::File::open(&path).unwrap().set_times(times).unwrap();
    let corrupt = read_all(&tier, &digest, 10).await;
    assert!(matches!(corrupt, Err(StoreError::Corrupt { .. })));
    assert_eq!(read_all(&tier, &digest, 10).await.unwrap(), "right");
}

#[tokio::test]
async fn the_disk_is_never_filled_beyond_the_watermark() {
    let bench = Bench::new();
    let digest = bench.put(b"content").await;
    let tier = bench.try_tier(1 << 20, u64::MAX / 2).unwrap();
    let full = tier.file(&digest, false).await;
    assert!(matches!(full, Err(StoreError::Full { .. })), "{full:?}");
    assert_eq!(read_all(&tier, &digest, 10).await.unwrap(), "content");
}

#[tokio::test]
async fn corrupt_and_absent_blobs_leave_nothing_and_drive_nothing_out() {
    let bench = Bench::new();
    let tier = bench.tier(BLOCK);
    let kept = bench.put(b"kept").await;
    tier.file(&kept, false).await.unwrap();
    let absent = tier.file(&Digest::of(b"absent"), false).await;
    assert!(matches!(absent, Err(StoreError::NotFound { .. })));
    bench.assert_kept(&tier, &kept, true).await;
    let digest = Digest::of(b"right");
    bench
        .below
        .put(&digest, crate::stream_of(Bytes::from_static(b"wrong")))
        .await
        .unwrap();
    let corrupt = tier.file(&digest, false).await;
    assert!(matches!(corrupt, Err(StoreError::Corrupt { .. })));
    bench.assert_kept(&tier, &kept, true).await;
    assert_eq!(tier.cache().usage().files, 1);
    bench.assert_nothing_unfinished();
}

#[tokio::test]
async fn a_large_blob_is_written_as_it_comes_and_leaves_nothing_if_it_is_corrupt() {
    let bench = Bench::new();
    let tier = bench.tier(8 << 20);
    static LARGE: [u8; 3 << 20] = [7; 3 << 20];
    let digest = bench.put(&LARGE).await;
    let file = tier.file(&digest, true).await.unwrap();
    assert_eq!(fs::read(file.path()).unwrap(), LARGE);
    drop(file);
    tier.delete(&digest).await.unwrap();
    let mut wrong = LARGE.to_vec();
    wrong[2 << 20] = 8;
    let below = &bench.below;
    let put = below.put(&digest, crate::stream_of(Bytes::from(wrong)));
    put.await.unwrap();
    let corrupt = tier.file(&digest, false).await;
    assert!(matches!(corrupt, Err(StoreError::Corrupt { .. })));
    assert_eq!(tier.cache().usage(), DiskCacheUsage::default());
    bench.assert_nothing_unfinished();
}

#[tokio::test]
async fn a_deleted_file_stays_for_those_who_use_it() {
    let bench = Bench::new();
    let digest = bench.put(b"content").await;
    let tier = bench.tier(1 << 20);
    let file = tier.file(&digest, false).await.unwrap();
    tier.delete(&digest).await.unwrap();
    assert!(file.path().exists());
    let path = file.path().to_owned();
    drop(file);
    assert!(!path.exists());
    assert_eq!(tier.cache().usage(), DiskCacheUsage::default());
}
