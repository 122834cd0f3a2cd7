//! Digesting input roots and bringing them to the store.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use regatta_cas::merkle::{
    BuildError, FileDigestCache, FileDigestsError, Tree, TreeBuilder, Unfit, digest_files,
};
use regatta_cas::{BlobStore, StoreError, UploadError, UploadSummary, stream_of, upload_telling};
use regatta_model::Digest;

use super::{Entries, Source};
use crate::exit_code::{ExitCode, Failure};
use crate::git::Content;
use crate::patience::Patience;

/// Why input roots are not in the store.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// A file cannot be read.
    #[error(transparent)]
    Digest(Box<FileDigestsError>),
    /// Something among the inputs cannot be sent. Change it, leave it out of the inputs, or have git
    /// ignore it.
    #[error("the input {path} cannot be sent: {problem}; change it or leave it out of the inputs")]
    Unfit {
        /// Its path in the tree.
        path: String,
        /// Why.
        problem: Unfit,
    },
    /// The entries contradict each other. Fix the inputs.
    #[error("the inputs do not make a tree: {0}")]
    Build(#[from] BuildError),
    /// A file cannot be uploaded.
    #[error(transparent)]
    Upload(Box<UploadError>),
    /// Something small cannot be stored.
    #[error("blob {digest} cannot be stored")]
    Put {
        /// The blob.
        digest: Digest,
        /// Why.
        source: Box<StoreError>,
    },
    /// The coordinator took nothing for too long: its store may be full, or away.
    #[error(
        "the coordinator took no files, tried for {} s; see to its storage (its /readyz says what is wrong), and run \
         this again",
        waited.as_secs()
    )]
    Exhausted {
        /// For how long they were offered.
        waited: Duration,
        /// What it said last.
        source: Box<StageError>,
    },
}

impl StageError {
    /// If the coordinator takes nothing for now: what it says, and how long it wants to be left alone.
    fn exhaustion(&self) -> Option<(&str, Duration)> {
        let source = match self {
            Self::Put { source, .. } => source.as_ref(),
            Self::Upload(error) => match error.as_ref() {
                UploadError::Put { source, .. } | UploadError::Find(source) => source,
                UploadError::FileChanged { .. }
                | UploadError::Read { .. }
                | UploadError::NoSource { .. } => return None,
            },
            Self::Digest(_) | Self::Unfit { .. } | Self::Build(_) | Self::Exhausted { .. } => {
                return None;
            }
        };
        match source {
            StoreError::Exhausted {
                detail,
                retry_after,
            } => Some((detail, retry_after.unwrap_or_default())),
            StoreError::Away {
                detail,
                retry_after,
            } => Some((detail, *retry_after)),
            StoreError::NotFound { .. }
            | StoreError::OutOfRange { .. }
            | StoreError::Corrupt { .. }
            | StoreError::Undecodable { .. }
            | StoreError::Full { .. }
            | StoreError::Unavailable { .. } => None,
        }
    }
}

impl From<FileDigestsError> for StageError {
    fn from(error: FileDigestsError) -> Self {
        Self::Digest(Box::new(error))
    }
}

impl From<UploadError> for StageError {
    fn from(error: UploadError) -> Self {
        Self::Upload(Box::new(error))
    }
}

impl From<StageError> for Failure {
    fn from(error: StageError) -> Self {
        let code = match &error {
            StageError::Unfit { .. } | StageError::Build(_) => ExitCode::BadConfiguration,
            StageError::Digest(_) => ExitCode::Local,
            StageError::Upload(error) => match error.as_ref() {
                UploadError::FileChanged { .. } | UploadError::Read { .. } => ExitCode::Local,
                UploadError::NoSource { .. } | UploadError::Put { .. } | UploadError::Find(_) => {
                    ExitCode::Infrastructure
                }
            },
            StageError::Put { .. } | StageError::Exhausted { .. } => ExitCode::Infrastructure,
        };
        Self {
            code,
            error: error.into(),
        }
    }
}

/// Input roots on their way to the store: files are digested once, however many trees they are in, and
/// everything is uploaded together.
#[derive(Debug)]
pub struct Staging {
    cache: FileDigestCache,
    read_count: usize,
    digests: HashMap<PathBuf, Digest>,
    files: HashMap<Digest, PathBuf>,
    bytes: BTreeMap<Digest, Bytes>,
    all: Tree,
}

impl Staging {
    /// Nothing staged; digests of files that did not change are taken from the cache in `cache_file`.
    #[must_use]
    pub fn new(cache_file: &Path) -> Self {
        Self {
            cache: FileDigestCache::open(cache_file),
            read_count: 0,
            digests: HashMap::new(),
            files: HashMap::new(),
            bytes: BTreeMap::new(),
            all: TreeBuilder::new().build(),
        }
    }

    /// Adds input roots and tells their digests, in the order given. Blocks while files are read.
    ///
    /// # Errors
    /// A file cannot be read, or entries contradict each other.
    pub fn add(&mut self, roots: &[&Entries]) -> Result<Vec<Digest>, StageError> {
        self.digest_roots(roots)?;
        roots.iter().map(|entries| self.add_root(entries)).collect()
    }

    /// Adds files that input roots will have, so that they are uploaded ahead of these. Blocks while they are read.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn add_files<'a>(
        &mut self,
        paths: impl Iterator<Item = &'a PathBuf>,
    ) -> Result<(), StageError> {
        let paths: BTreeSet<&PathBuf> = paths.collect();
        self.digest_files(paths.iter().copied())?;
        let digests = paths.into_iter().filter_map(|path| self.digests.get(path));
        self.all.files.extend(digests);
        Ok(())
    }

    fn digest_roots(&mut self, roots: &[&Entries]) -> Result<(), StageError> {
        let sources = roots.iter().flat_map(|entries| entries.by_path.values());
        self.digest_files(sources.filter_map(|source| match source {
            Source::File { path, .. } => Some(path),
            Source::Bytes { .. }
            | Source::Symlink { .. }
            | Source::Directory
            | Source::Unfit(_) => None,
        }))
    }

    fn digest_files<'a>(
        &mut self,
        paths: impl Iterator<Item = &'a PathBuf>,
    ) -> Result<(), StageError> {
        let unknown = paths.filter(|path| !self.digests.contains_key(*path));
        let mut paths: Vec<PathBuf> = unknown.cloned().collect();
        paths.sort();
        paths.dedup();
        let found = digest_files(&paths, Some(&mut self.cache))?;
        tracing::debug!(files = paths.len(), read = found.read_count, "digested");
        self.read_count += found.read_count;
        for (path, digest) in paths.into_iter().zip(found.digests) {
            self.files.entry(digest).or_insert_with(|| path.clone());
            self.digests.insert(path, digest);
        }
        Ok(())
    }

    fn add_root(&mut self, entries: &Entries) -> Result<Digest, StageError> {
        let mut builder = TreeBuilder::new();
        for (path, source) in &entries.by_path {
            match source {
                Source::File {
                    path: file,
                    executable,
                } => {
                    let digest = self.digests.get(file).copied().unwrap_or(Digest::EMPTY);
                    builder.insert_file(path, digest, *executable)?;
                }
                Source::Bytes { bytes, executable } => {
                    let digest = Digest::of(bytes);
                    self.bytes.insert(digest, bytes.clone());
                    builder.insert_file(path, digest, *executable)?;
                }
                Source::Symlink { target } => builder.insert_symlink(path, target)?,
                Source::Directory => builder.insert_directory(path)?,
                Source::Unfit(problem) => {
                    return Err(StageError::Unfit {
                        path: path.clone(),
                        problem: problem.clone(),
                    });
                }
            }
        }
        let tree = builder.build();
        self.all.directories.extend(tree.directories);
        self.all.files.extend(tree.files);
        Ok(tree.root)
    }

    /// What was read of an input root: its files, as they were then, and its symlinks.
    pub fn contents(&self, entries: &Entries) -> impl Iterator<Item = (String, Content)> {
        let content = |source: &Source| match source {
            Source::File { path, executable } => Some(Content::File {
                digest: *self.digests.get(path)?,
                executable: *executable,
            }),
            Source::Symlink { target } => Some(Content::Symlink {
                target: target.clone(),
            }),
            Source::Bytes { .. } | Source::Directory | Source::Unfit(_) => None,
        };
        let entries = entries.by_path.iter();
        entries.filter_map(move |(path, source)| Some((path.clone(), content(source)?)))
    }

    /// How many files had to be read because the cache did not know them.
    #[must_use]
    pub const fn read_count(&self) -> usize {
        self.read_count
    }

    /// Adds a blob that is in no tree: a command or an action.
    pub fn add_bytes(&mut self, bytes: Bytes) -> Digest {
        let digest = Digest::of(&bytes);
        // Directories are the blobs of a tree that are uploaded from memory.
        self.all.directories.insert(digest, bytes);
        digest
    }

    /// Brings everything added to `store` that it does not have. A store that takes nothing for now is offered it
    /// again, for as long as a coordinator is that does not answer, since it has taken something last.
    ///
    /// # Errors
    /// A file changed or cannot be read, or the store refuses, or takes nothing for too long.
    pub async fn upload(&mut self, store: &dyn BlobStore) -> Result<UploadSummary, StageError> {
        self.upload_within(store, Patience::default()).await
    }

    async fn upload_within(
        &mut self,
        store: &dyn BlobStore,
        mut patience: Patience,
    ) -> Result<UploadSummary, StageError> {
        let mut since = Instant::now();
        let stored = AtomicUsize::new(0);
        loop {
            let error = match self.upload_once(store, &stored).await {
                Ok(summary) => return Ok(summary),
                Err(error) => error,
            };
            let Some((detail, least)) = error.exhaustion() else {
                return Err(error);
            };
            if stored.swap(0, Ordering::Relaxed) > 0 {
                patience.renew();
                since = Instant::now();
            }
            if !patience.outlasts(least) {
                return Err(StageError::Exhausted {
                    waited: since.elapsed(),
                    source: Box::new(error),
                });
            }
            if patience.is_whole() {
                tracing::warn!(
                    detail,
                    "the coordinator takes no files; they are offered again"
                );
            }
            patience.pause_for(least).await;
        }
    }

    async fn upload_once(
        &mut self,
        store: &dyn BlobStore,
        stored: &AtomicUsize,
    ) -> Result<UploadSummary, StageError> {
        let count = || {
            stored.fetch_add(1, Ordering::Relaxed);
        };
        self.upload_bytes(store, &count).await?;
        Ok(upload_telling(store, &self.all, &self.files, &count).await?)
    }

    async fn upload_bytes(
        &mut self,
        store: &dyn BlobStore,
        stored: &(dyn Fn() + Sync),
    ) -> Result<(), StageError> {
        let digests: Vec<Digest> = self.bytes.keys().copied().collect();
        if digests.is_empty() {
            return Ok(());
        }
        let missing = store
            .find_missing(&digests)
            .await
            .map_err(UploadError::Find)?;
        for digest in missing {
            let bytes = self.bytes.get(&digest).cloned().unwrap_or_default();
            let put = store.put(&digest, stream_of(bytes)).await;
            put.map_err(|source| StageError::Put {
                digest,
                source: Box::new(source),
            })?;
            stored();
        }
        Ok(())
    }

    /// Remembers the digests of files for the next time; without that it only takes longer.
    pub fn save_cache(&mut self) {
        if let Err(error) = self.cache.save() {
            tracing::warn!("file digests are not remembered: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use async_trait::async_trait;
    use regatta_cas::{BlobRange, BlobStream, MemoryBlobStore, VerifyingBlobStore, read_all};

    use super::*;

    #[tokio::test]
    async fn roots_with_files_and_bytes_arrive_whole() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("f");
        std::fs::write(&file, "file").expect("written");
        let mut entries = Entries::default();
        for (path, source) in [
            (
                "a/f",
                Source::File {
                    path: file.clone(),
                    executable: true,
                },
            ),
            (
                "b",
                Source::Bytes {
                    bytes: "bytes".into(),
                    executable: false,
                },
            ),
            (
                "c",
                Source::Symlink {
                    target: "b".to_owned(),
                },
            ),
            ("d", Source::Directory),
        ] {
            entries.insert(Path::new(path), source).expect("UTF-8");
        }
        let mut staging = Staging::new(&directory.path().join("cache"));
        let roots = staging.add(&[&entries, &entries]).expect("it can be read");
        assert_eq!(roots[0], roots[1]);
        let action = staging.add_bytes("action".into());
        let store = MemoryBlobStore::new();
        staging.upload(&store).await.expect("it arrives");
        for (digest, bytes) in [
            (Digest::of(b"file"), "file"),
            (Digest::of(b"bytes"), "bytes"),
            (action, "action"),
        ] {
            assert_eq!(
                read_all(&store, &digest, 100).await.expect("it is there"),
                bytes
            );
        }
        assert_eq!(store.find_missing(&roots).await.expect("it answers"), []);
    }

    #[tokio::test]
    async fn files_that_are_sent_ahead_are_read_and_sent_once() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("f");
        std::fs::write(&file, "file").expect("written");
        let mut staging = Staging::new(&directory.path().join("cache"));
        staging.add_files([&file].into_iter()).expect("it is there");
        let store = MemoryBlobStore::new();
        staging.upload(&store).await.expect("it arrives");
        let sent = read_all(&store, &Digest::of(b"file"), 100).await;
        assert_eq!(sent.expect("it is there"), "file");
        let source = Source::File {
            path: file,
            executable: true,
        };
        let mut entries = Entries::default();
        entries.insert(Path::new("a/f"), source).expect("UTF-8");
        let roots = staging.add(&[&entries]).expect("it can be read");
        let later = staging.upload(&store).await.expect("it arrives");
        assert_eq!((staging.read_count(), later.uploaded_blobs), (1, 2));
        assert_eq!(store.find_missing(&roots).await.expect("it answers"), []);
    }

    #[tokio::test]
    async fn a_file_that_changes_before_it_is_sent_is_this_machines_fault() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("f");
        for later in ["less", "as much", "more than before"] {
            std::fs::write(&file, "as long").expect("written");
            let source = Source::File {
                path: file.clone(),
                executable: false,
            };
            let mut entries = Entries::default();
            entries.insert(Path::new("f"), source).expect("UTF-8");
            let mut staging = Staging::new(&directory.path().join("cache"));
            staging.add(&[&entries]).expect("it can be read");
            std::fs::write(&file, later).expect("written");
            let store = VerifyingBlobStore::new(Arc::new(MemoryBlobStore::new()));
            let error = staging.upload(&store).await.expect_err("it changed");
            let failure = Failure::from(error);
            assert_eq!(failure.code, ExitCode::Local, "{failure}");
            assert!(failure.to_string().contains("f changed while"), "{failure}");
        }
    }

    /// A store that takes nothing the first so many times.
    #[derive(Debug)]
    struct BusyBlobStore {
        store: MemoryBlobStore,
        refusals: AtomicUsize,
        refusal: StoreError,
    }

    fn full(retry_after: Option<Duration>) -> StoreError {
        let detail = "the store is full".to_owned();
        StoreError::Exhausted {
            detail,
            retry_after,
        }
    }

    fn away(retry_after: Duration) -> StoreError {
        let detail = "the bucket is away".to_owned();
        StoreError::Away {
            detail,
            retry_after,
        }
    }

    #[async_trait]
    impl BlobStore for BusyBlobStore {
        async fn get(&self, digest: &Digest, range: BlobRange) -> Result<BlobStream, StoreError> {
            self.store.get(digest, range).await
        }

        async fn put(&self, digest: &Digest, body: BlobStream) -> Result<(), StoreError> {
            let less = |refusals: usize| refusals.checked_sub(1);
            let left = self
                .refusals
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
            if left.is_ok() {
                return Err(self.refusal.clone());
            }
            self.store.put(digest, body).await
        }

        async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
            self.store.find_missing(digests).await
        }

        async fn delete(&self, digest: &Digest) -> Result<(), StoreError> {
            self.store.delete(digest).await
        }
    }

    /// How an upload ends to a store that refuses it so often, and how long that takes.
    async fn uploaded(
        refusals: usize,
        refusal: &StoreError,
        limit: Duration,
    ) -> (Result<UploadSummary, Failure>, Duration) {
        let mut staging = Staging::new(Path::new(""));
        staging.add_bytes("action".into());
        let store = BusyBlobStore {
            store: MemoryBlobStore::new(),
            refusals: refusals.into(),
            refusal: refusal.clone(),
        };
        let begun = Instant::now();
        let uploaded = staging.upload_within(&store, Patience::of(limit)).await;
        (uploaded.map_err(Failure::from), begun.elapsed())
    }

    #[tokio::test]
    async fn a_store_that_takes_nothing_is_asked_again_no_sooner_than_it_says_and_not_for_ever() {
        let wanted = Duration::from_millis(300);
        let limit = Duration::from_secs(60);
        for refusal in [full(Some(wanted)), away(wanted)] {
            // Two blobs are offered at once.
            let (stored, took) = uploaded(4, &refusal, limit).await;
            assert!(stored.is_ok(), "{stored:?}");
            assert!(took >= wanted * 2, "{took:?}");
        }
        for (refusal, limit) in [
            (full(Some(limit)), limit),
            (full(None), wanted),
            (away(limit), limit),
            (away(Duration::ZERO), wanted),
        ] {
            let (refused, took) = uploaded(usize::MAX, &refusal, limit).await;
            let failure = refused.expect_err("it is never taken");
            assert_eq!(failure.code, ExitCode::Infrastructure);
            let text = format!("{:#}", failure.error);
            assert_eq!(text.matches(&refusal.to_string()).count(), 1, "{text}");
            assert!(text.contains("run this again"), "{text}");
            assert!(took < Duration::from_secs(30), "{took:?}");
        }
    }

    #[tokio::test]
    async fn what_waiting_does_not_mend_is_told_at_once() {
        let detail = "this tenant may not write".to_owned();
        let refusal = StoreError::Unavailable { detail };
        let (refused, took) = uploaded(1, &refusal, Duration::from_secs(60)).await;
        let failure = refused.expect_err("it is refused");
        let text = format!("{:#}", failure.error);
        assert!(text.contains("may not write"), "{text}");
        assert!(took < Duration::from_secs(30), "{took:?}");
    }

    /// A store that takes one blob in so long, and none meanwhile.
    #[derive(Debug)]
    struct SlowBlobStore {
        store: MemoryBlobStore,
        taken: Mutex<tokio::time::Instant>,
        pause: Duration,
    }

    #[async_trait]
    impl BlobStore for SlowBlobStore {
        async fn get(&self, digest: &Digest, range: BlobRange) -> Result<BlobStream, StoreError> {
            self.store.get(digest, range).await
        }

        async fn put(&self, digest: &Digest, body: BlobStream) -> Result<(), StoreError> {
            {
                let mut taken = self.taken.lock().expect("nobody panics");
                if taken.elapsed() < self.pause {
                    return Err(StoreError::Exhausted {
                        detail: "too many uploads".to_owned(),
                        retry_after: None,
                    });
                }
                *taken = tokio::time::Instant::now();
            }
            self.store.put(digest, body).await
        }

        async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
            self.store.find_missing(digests).await
        }

        async fn delete(&self, digest: &Digest) -> Result<(), StoreError> {
            self.store.delete(digest).await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_taken_meanwhile_renews_patience_with_the_rest() {
        let limit = Duration::from_secs(10);
        for (pause, is_patient) in [(limit / 2, true), (limit * 2, false)] {
            let mut staging = Staging::new(Path::new(""));
            for number in 0..5 {
                staging.add_bytes(format!("{number}").into());
            }
            let begun = tokio::time::Instant::now();
            let store = SlowBlobStore {
                store: MemoryBlobStore::new(),
                taken: Mutex::new(begun),
                pause,
            };
            let uploaded = staging.upload_within(&store, Patience::of(limit)).await;
            assert_eq!(uploaded.is_ok(), is_patient, "{uploaded:?}");
            assert_eq!(begun.elapsed() > limit * 2, is_patient);
        }
    }

    #[test]
    fn what_cannot_be_sent_is_named_once_it_is_an_input() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = directory.path();
        std::fs::write(root.join("file"), "").expect("written");
        std::os::unix::fs::symlink("/etc/passwd", root.join("link")).expect("linked");
        let files = crate::tree::walk(root, root, &[]).expect("it can be read");
        let stage = |patterns: &[&str]| {
            let chosen = crate::tree::expand(root, &files, patterns.iter().copied());
            Staging::new(Path::new("")).add(&[&chosen.expect("they match")])
        };
        stage(&["*", "!link"]).expect("it is left out");
        let error = stage(&["*"]).expect_err("it leads out").to_string();
        let start = "the input link cannot be sent: it is a symlink that points out of the tree, to \
                     /etc/passwd;";
        assert!(error.starts_with(start), "{error}");
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let mut entries = Entries::default();
        let source = Source::File {
            path: "/nowhere/x".into(),
            executable: false,
        };
        entries.insert(Path::new("x"), source).expect("UTF-8");
        let refused = Staging::new(Path::new("/nowhere/cache")).add(&[&entries]);
        assert_eq!(
            refused.expect_err("it is missing").to_string(),
            "cannot read /nowhere/x"
        );
    }
}
